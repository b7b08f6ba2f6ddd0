"""Pages of other sites: none may call, unless its origin is named (V19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.cors import Origins
from tests.server.conftest import Client

ONE = "one=echo:?x=FP32[-1,3]"
INFER = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
FRIEND, EVIL = "https://app.example", "https://evil.example"
ASKING = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}


def infer(ask: Client, **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask("POST", "/v2/models/one/infer", INFER, given)


def test_no_page_is_let_in_by_default(serving: Callable[..., Client]) -> None:
    ask = serving(ONE)
    for path in ("/v2", "/v2/models/one", "/v1/models", "/livez", "/nothing"):
        answer = ask("GET", path, headers={"origin": EVIL})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = ask("OPTIONS", "/v2/models/one/infer", headers={"origin": EVIL, **ASKING})
    assert preflight.status == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_a_page_can_make_no_browser_ask_in_its_place(serving: Callable[..., Client]) -> None:
    """A plain form or `no-cors` needs no preflight: nobody reads its answer, and the work would be done."""
    ask = serving(ONE, management=True)
    own = f"http://127.0.0.1:{ask.port}"
    assert infer(ask).status == 200  # no browser
    assert infer(ask, origin=own).status == 200
    assert infer(ask, origin=own, sec_fetch_site="same-origin").status == 200
    assert infer(ask, origin="https://proxy.example", sec_fetch_site="same-origin").status == 200  # Host was rewritten
    for headers in (
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": own, "sec_fetch_site": "cross-site"},
        {"origin": EVIL, "sec_fetch_site": "same-site"},
    ):
        assert infer(ask, **headers).status == 403
    assert ask("POST", "/v2/repository/models/one/unload", b"", {"origin": EVIL}).status == 403
    assert infer(ask).status == 200


def test_a_named_origin_is_let_in_and_no_other(serving: Callable[..., Client]) -> None:
    ask = serving(ONE, cors=[FRIEND])
    asked = ask("OPTIONS", "/v2/models/one/infer", headers={"origin": FRIEND, **ASKING})
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == FRIEND
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert asked.headers["access-control-allow-headers"] == "authorization, content-type"
    assert "access-control-allow-credentials" not in asked.headers
    answer = infer(ask, origin=FRIEND, sec_fetch_site="cross-site")
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert "Origin" in answer.headers["vary"]
    assert "retry-after" in answer.headers["access-control-expose-headers"]
    assert ask("GET", "/nothing", headers={"origin": FRIEND}).headers["access-control-allow-origin"] == FRIEND
    for other in (EVIL, FRIEND + ".evil.example", "http://app.example", FRIEND + ":8443", "null", FRIEND.upper()):
        refused = infer(ask, origin=other)
        assert refused.status == 403
        assert "access-control-allow-origin" not in refused.headers
        assert "Origin" in refused.headers["vary"]
        assert ask("OPTIONS", "/v2", headers={"origin": other, **ASKING}).status == 405


def test_a_preflight_has_no_key_and_needs_none(serving: Callable[..., Client], tmp_path: Any) -> None:
    from aiaas_sdk.server.keys import made, write_keys

    text, key = made("alice")
    write_keys(tmp_path / "keys.toml", [key])
    ask = serving(ONE, cors=[FRIEND], api_keys=tmp_path / "keys.toml")
    assert ask("OPTIONS", "/v2/models/one/infer", headers={"origin": FRIEND, **ASKING}).status == 204
    refused = infer(ask, origin=FRIEND)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, FRIEND)  # the page can read why
    assert infer(ask, origin=FRIEND, authorization=f"Bearer {text}").status == 200
    assert ask("OPTIONS", "/v2/models/one/infer", headers={"origin": EVIL, **ASKING}).status == 401


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "app.example", "https://app.example/", "https://app.example/x", "https://App.example", "ftp://x",
     "https://u@app.example", "https://app.example:443", "http://app.example:80", "https://app.example:x", ""],
)  # fmt: skip
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="no origin"):
        Origins([origin])


def test_origins_as_browsers_send_them() -> None:
    Origins([FRIEND, "http://localhost:3000", "http://[::1]:8080", "https://app.example:8443"])
