"""Keys, limits and TLS of `aiaas serve --grpc-port`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiaas_grpc.codec import encode_request
from aiaas_grpc.forking import grpc
from aiaas_grpc.messages import HEALTH, SERVICE, message

import aiaas_sdk as aiaas
from aiaas_sdk.server.allowances import Limits
from aiaas_sdk.server.keys import made, write_keys
from aiaas_sdk.tensors import Tensor
from tests.server.test_tls import pair

X = np.ones((1, 3), np.float32)
TARGETS = ("one=echo:?x=FP32[-1,3]", "two=echo:?x=FP32[-1,3]")
BODY = b"".join(encode_request("one", "", {"x": Tensor("FP32", X)}, outputs=(), id="", parameters={}))


@pytest.fixture
def keyed(tmp_path: Path) -> tuple[Path, str]:
    """A file with a key for the model `one`, and the key."""
    text, key = made("alice", models=["one"], limits=Limits(requests_per_minute=2))
    write_keys(tmp_path / "keys.toml", [key])
    return tmp_path / "keys.toml", text


def code(address: str, method: str, body: bytes = b"", *metadata: tuple[str, str]) -> Any:
    with grpc.insecure_channel(address.removeprefix("grpc://")) as channel:
        try:
            channel.unary_unary(method)(body, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def test_a_call_needs_a_key_and_a_probe_none(serving: Callable[..., str], keyed: tuple[Path, str]) -> None:
    file, key = keyed
    address = serving(*TARGETS, api_keys=file)
    for probe in (f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady", f"/{HEALTH}/Check"):
        assert code(address, probe) is grpc.StatusCode.OK
    named = message("grpc.health.v1.HealthCheckRequest")(service="one").SerializeToString()
    assert code(address, f"/{HEALTH}/Check", named) is grpc.StatusCode.NOT_FOUND
    mine = ("authorization", f"Bearer {key}")
    assert code(address, f"/{HEALTH}/Check", named, mine) is grpc.StatusCode.OK
    for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", f"Basic {key}"),)):
        assert code(address, f"/{SERVICE}/ModelInfer", BODY, *metadata) is grpc.StatusCode.UNAUTHENTICATED
        assert code(address, f"/{SERVICE}/ServerMetadata", b"", *metadata) is grpc.StatusCode.UNAUTHENTICATED
    other = BODY.replace(b"one", b"two")
    assert code(address, f"/{SERVICE}/ModelInfer", other, mine) is grpc.StatusCode.NOT_FOUND
    assert code(address, f"/{SERVICE}/ModelInfer", BODY, ("x-api-key", key)) is grpc.StatusCode.OK
    assert code(address, f"/{SERVICE}/ModelInfer", BODY, mine) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
@pytest.mark.parametrize("good", [0, 1])
def test_a_credential_that_stands_twice_is_none(
    serving: Callable[..., str], keyed: tuple[Path, str], name: str, good: int
) -> None:
    """A proxy that looks at the first one, and a server that looks at the last, let in whom neither knows."""
    file, key = keyed
    address, scheme = serving(*TARGETS, api_keys=file), "Bearer " if name == "authorization" else ""
    two = [(name, scheme + (key if place == good else "guessed")) for place in (0, 1)]
    assert code(address, f"/{SERVICE}/ModelInfer", BODY, *two) is grpc.StatusCode.UNAUTHENTICATED
    assert code(address, f"/{SERVICE}/ModelInfer", BODY, two[good]) is grpc.StatusCode.OK


def test_our_own_client(load: Any, serving: Callable[..., str], keyed: tuple[Path, str]) -> None:
    file, key = keyed
    address = serving(*TARGETS, api_keys=file)
    with load(f"{address}/models/one", api_key=key, retry=None) as model:
        for _ in range(2):
            assert model.predict(X)["x"].tolist() == X.tolist()
        with pytest.raises(aiaas.RateLimitedError):
            model.predict(X)
    for given, wanted in (({}, aiaas.AuthenticationError), ({"api_key": key}, aiaas.ModelNotFoundError)):
        model = load(f"{address}/models/two", retry=None, **given)
        with pytest.raises(wanted):
            model.info()
        model.close()


def test_each_request_of_a_stream_counts(serving: Callable[..., str], keyed: tuple[Path, str]) -> None:
    file, key = keyed
    address = serving(*TARGETS, api_keys=file)
    with grpc.insecure_channel(address.removeprefix("grpc://")) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as refused:
            list(stream(iter([BODY]), timeout=10))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answers = list(stream(iter([BODY] * 3), metadata=(("authorization", f"Bearer {key}"),), timeout=10))
    told = [message("inference.ModelStreamInferResponse").FromString(answer).error_message for answer in answers]
    assert len([text for text in told if not text]) == 2
    assert [text for text in told if text] == ["your limit is reached: 2 requests a minute"]


def test_tls_with_a_certificate_that_is_renewed(load: Any, serving: Callable[..., str], tmp_path: Path) -> None:
    files = pair(tmp_path / "first")
    address = serving(*TARGETS, **files).replace("grpc://", "grpcs://")

    def works(ca: Path) -> bool:
        with load(f"{address}/models/one", network=aiaas.Network(ca=ca), retry=None, timeout=5) as model:
            return bool(model.predict(X)["x"].tolist() == X.tolist())

    assert works(files["tls_cert"])
    with pytest.raises(aiaas.ConnectError):
        load(f"{address.replace('grpcs', 'grpc')}/models/one", retry=None, timeout=5).info()
    renewed = pair(tmp_path / "second")
    for name, file in renewed.items():
        os.replace(file, files[name])
    time.sleep(1.5)
    assert works(files["tls_cert"])
