"""Addresses: what each form means, and what is refused without repeating a credential."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from aiaas_sdk.address import parse
from aiaas_sdk.errors import AddressError


@pytest.mark.parametrize(
    ("text", "scheme", "target", "version"),
    [
        ("torch:models/digits", "torch", "models/digits", None),
        ("torch:models/digits@3", "torch", "models/digits", "3"),
        ("torch:models/digits@prod", "torch", "models/digits", "prod"),
        ("models/digits@3", "torch", "models/digits", "3"),
        (Path("models/digits"), "torch", "models/digits", None),
        ("C:\\models\\digits", "torch", "C:\\models\\digits", None),
        ("digits", "name", "digits", None),
        ("https://h/v2/models/digits", "oip", "https://h/v2/models/digits", None),
        ("https://h:8443/a/v2/models/digits/versions/3", "oip", "https://h:8443/a/v2/models/digits", "3"),
        ("oip+http://[::1]:80/v2/models/digits@3", "oip", "http://[::1]:80/v2/models/digits", "3"),
        ("echo:?x=FP32[-1,3]", "echo", "?x=FP32[-1,3]", None),
        ("grpc://h:8001/models/digits", "grpc", "http://h:8001/models/digits", None),
        ("grpcs://h/models/digits/versions/3", "grpc", "https://h/models/digits", "3"),
        ("GRPC+https://h/models/digits@3", "grpc", "https://h/models/digits", "3"),
    ],
)
def test_what_an_address_means(text: str | Path, scheme: str, target: str, version: str | None) -> None:
    address = parse(text)
    assert (address.scheme, address.target, address.version) == (scheme, target, version)


def test_the_model_of_an_openai_address() -> None:
    address = parse("openai+https://h/v1#gpt-x")
    assert (address.scheme, address.target, address.model, address.origin) == (
        "openai",
        "https://h/v1",
        "gpt-x",
        "https://h",
    )


@pytest.mark.parametrize(
    "text",
    [
        "grpc://me:s3cret@h/models/m",
        "https://me:s3cret@h/v2/models/m",
        "https://h/v2/models/m?key=s3cret",
        "https://h/v2/models/m#s3cret",
    ],
)
def test_a_credential_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(AddressError, match="api_key=") as caught:
        parse(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", "m\0", "https:///v2", "https://h:port/v2", "https://h/v2/models/../x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(AddressError):
        parse(text)


STRAYS = ["..", ".", "a/../..", "..\\..", "a\r\nb", "a\0b", "a\u202eb", "x" * 70_000]


@pytest.mark.parametrize("name", STRAYS)
def test_a_path_that_leads_elsewhere_is_refused_after_one_decoding(name: str) -> None:
    """K04: plain, percent-encoded, and in the place of a version."""
    for text in (name, quote(name, safe=""), quote(name, safe="").replace(".", "%2e").replace("%2F", "%2f")):
        for path in (text, f"m/versions/{text}"):
            with pytest.raises(AddressError):
                parse(f"https://h/v2/models/{path}")
    assert parse("https://h/v2/models/%252e%252e").target.endswith("/%252e%252e")  # decoded twice by nobody
