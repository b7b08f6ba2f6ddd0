"""What the policies cost a call that passes: a tensor of 12 bytes to a peer in this process that answers at once.

All of a call is there but the network: encoding, the policies, the flow, decoding. The models take turns; a figure is
the median of the rounds' differences to the model without policies, of this thread's CPU time. A hedged call is
given a delay that never passes, so that its price is that of being ready for a second request.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from turns import seconds

import aiaas_sdk as aiaas
from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire import oip

ROUNDS, CALLS = 200, 50
ADDRESS = "http://127.0.0.1:9/v2/models/m"
X = np.ones((1, 3), np.float32)

OFF: Mapping[str, Any] = {"retry": None, "breaker": None}
LIMITS = aiaas.Limits(concurrency=64, requests_per_second=1e9)
STACKS: Mapping[str, Mapping[str, Any]] = {
    "none": OFF,
    "retry": {"breaker": None},
    "breaker": {"retry": None},
    "retry, breaker (the defaults)": {},
    "retry, limits, breaker": {"limits": LIMITS},
    "retry, hedge, limits, breaker": {"limits": LIMITS, "hedge": aiaas.Hedge(delay=60)},
}


class AtOnce:
    """A peer of the Open Inference Protocol without a network. `send` of both faces."""

    def __init__(self) -> None:
        spec = TensorSpec("x", "FP32", (-1, 3))
        metadata = oip.ModelMetadata(name="m", versions=("1",), platform="", inputs=(spec,), outputs=(spec,))
        server = oip.ServerMetadata(name="at-once", version="1", extensions=("binary_tensor_data",))
        asked = oip.decode_request(
            *_joined(oip.encode_request({"x": Tensor("FP32", X)}, outputs=None, binary=True)), specs=(spec,)
        )
        answer = oip.InferResponse(model_name="m", model_version="1", outputs={"x": Tensor("FP32", X)})
        headers, body = _joined(oip.encode_response(answer, asked))
        self._replies = {
            "/v2": Reply(200, {}, oip.encode_server(server)),
            "/v2/models/m": Reply(200, {}, oip.encode_metadata(metadata)),
            "/v2/models/m/infer": Reply(200, {k.lower(): v for k, v in headers.items()}, memoryview(body)),
        }

    @property
    def awaited(self) -> Awaited:
        return Awaited(self)

    def send(self, request: Request, until: float | None) -> Reply:
        return self._replies[request.url[18:]]

    def begin(self, request: Request, until: float | None, pause: float) -> Reply:
        return self.send(request, until)


class Awaited:
    """Its twin for event loops."""

    def __init__(self, peer: AtOnce) -> None:
        self._peer = peer

    async def send(self, request: Request, until: float | None) -> Reply:
        return self._peer.send(request, until)


def _joined(message: Any) -> tuple[Mapping[str, str], bytes]:
    return message.headers, b"".join(message.body)


def model(load: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    made, peer = load(ADDRESS, timeout=30, **options), AtOnce()
    made._engine._sender, made._engine._async_sender = peer, peer.awaited  # in place of the sockets
    return made


# ---------------------------------------------------------------- turns
def orders() -> Iterator[Sequence[str]]:
    """Each model comes after each other one as often: what went before has left its own data in the caches."""
    names, shuffled = list(STACKS), random.Random(0)
    for _ in range(ROUNDS):
        shuffled.shuffle(names)
        yield tuple(names)


def plain_turns(models: Mapping[str, Any]) -> list[dict[str, float]]:
    def turn(made: Any) -> float:
        return seconds(lambda: made.predict(X), CALLS)

    return [{name: turn(models[name]) for name in order} for order in orders()]


async def awaited_turns(models: Mapping[str, Any]) -> list[dict[str, float]]:
    async def turn(made: Any) -> float:
        begun = time.thread_time()
        for _ in range(CALLS):
            await made.predict(X)
        return (time.thread_time() - begun) / CALLS

    return [{name: await turn(models[name]) for name in order} for order in orders()]


def shown(face: str, rounds: list[dict[str, float]]) -> None:
    rounds = rounds[ROUNDS // 10 :]  # the first ones warm up
    print(f"{'predict, ' + face + ', 12 bytes':40}{'CPU, us':>10}{'over, us':>10}")
    for name in STACKS:
        cost = statistics.median(found[name] for found in rounds)
        over = statistics.median(found[name] - found["none"] for found in rounds)
        print(f"{name:40}{1e6 * cost:>10.0f}{1e6 * over:>+10.1f}")


def main() -> None:
    for face, load in (("sync", aiaas.load), ("async", aiaas.load_async)):
        models = {name: model(load, options) for name, options in STACKS.items()}
        gc.collect()
        gc.freeze()
        shown(face, plain_turns(models) if face == "sync" else asyncio.run(awaited_turns(models)))


if __name__ == "__main__":
    main()
