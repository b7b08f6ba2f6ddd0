"""Servers with the same two models, one after the other in each round: requests/s, and how long a request takes.

The models: `tiny` gives a tensor of 12 bytes back, `digits` is the digits CNN, one row a request. 1, 8 and 64 clients,
each with one request under way; the load comes from a process on one core, and the server whose turn it is has the
other. A ratio is the median over the rounds of (ours / theirs in that round), so that a machine that slows down slows
both. `uvicorn` is the yardstick: a handler that does nothing else. Needs Linux, two cores and .peers/NAME of each
(`scripts/peers.sh NAME`).

    python benchmarks/servers.py                                     # writes benchmarks/results/servers.json
    python benchmarks/servers.py --rounds 3 --peers aiaas uvicorn triton --clients 64
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from processes import CLIENT_CORE, Worker, two_cores
from report import parser, written
from servers_peers import MODELS, PEERS, SHAPES, Names, Peer, Running, answer, running
from turns import Round, middle, orders
from turns import ratio as ratio_of

CLIENTS = (1, 8, 64)
WARM, SECONDS = 0.25, 1.0
TARGETS = {
    "tiny": {"triton": 1.0, "mlserver": 3.0, "kserve": 5.0, "litserve": 5.0, "bentoml": 5.0},
    "digits": {"triton": 1.0, "mlserver": 4.0, "litserve": 4.0, "bentoml": 4.0},
}
"""How many times their requests per second are wanted at least, at 64 clients."""


# ---------------------------------------------------------------- the models
def prepared(folder: Path) -> tuple[Path, np.ndarray, Names]:
    """A bundle of the CNN in `folder`/models; the same weights in a file of their own, the logits of the image, and the
    names of the bundle's input and output."""
    import torch

    import aiaas_sdk as aiaas
    from aiaas_sdk.architectures.cnn import CNN

    torch.manual_seed(0)
    module = CNN().eval()
    address = aiaas.save(module, folder / "models" / "digits", example=np.zeros((1, 1, 28, 28), np.float32))
    with aiaas.load(address) as model:
        info = model.info()
    torch.save(module.state_dict(), folder / "weights.pt")
    with torch.inference_mode():
        logits = module(torch.from_numpy(image())).numpy()
    return folder / "weights.pt", logits, (info.inputs[0].name, info.outputs[0].name)


def image() -> np.ndarray:
    """Like a handwritten digit: grey values of a byte, four fifths of them black."""
    random = np.random.default_rng(0)
    grey = random.integers(1, 256, SHAPES["digits"]) * (random.random(SHAPES["digits"]) < 0.2)
    return (grey / 255).astype(np.float32)


def check(came: bytes, wanted: np.ndarray, peer: Peer) -> None:
    """The right numbers are in an answer, as bytes at its end or as text."""
    body = came.partition(b"\r\n\r\n")[2]
    if b"octet-stream" in came or peer.name in ("kserve", "uvicorn"):
        body = body.removesuffix(b"\r\n0\r\n\r\n")
        found = np.frombuffer(body[-wanted.nbytes :], np.float32)
    else:
        numbers = max(re.findall(rb"\[[-+.\deE, ]+\]", body), key=len)
        found = np.array(json.loads(numbers), np.float32)
    if not np.allclose(found, wanted.ravel(), atol=1e-5):
        sys.exit(f"{peer.name} gives {found}, and not {wanted.ravel()}")


# ---------------------------------------------------------------- the load
def asked(load: Worker, port: int, request: Path, clients: int, seconds: float) -> dict[str, float]:
    told = {"port": port, "request": str(request), "clients": clients, "warm": WARM, "seconds": seconds}
    found = load.turn(json.dumps(told))
    return {**found, "rate": found["answers"] / found["seconds"]}


@contextlib.contextmanager
def served(peers: Sequence[Peer], folder: Path) -> Iterator[dict[str, Running]]:
    """All servers at once, each answering rightly."""
    weights, logits, names = prepared(folder)
    called: dict[str, Names] = {"tiny": ("x", "x"), "digits": names}
    given = {"tiny": np.array([[1.5, -2.0, 3.25]], np.float32), "digits": image()}
    wanted = {"tiny": given["tiny"], "digits": logits}
    with contextlib.ExitStack() as stack:
        found = {}
        for peer in peers:
            requests = {model: peer.request(model, given[model], called[model]) for model in MODELS}
            one = found[peer.name] = stack.enter_context(running(peer, folder / peer.name, requests, weights))
            for model, request in requests.items():
                (folder / f"{peer.name}.{model}").write_bytes(request)
                check(answer(one.port, request), wanted[model], peer)
            with one.awake():
                pass
        yield found


def compare(peers: Sequence[Peer], clients: Sequence[int], rounds: int, seconds: float) -> list[dict[str, Any]]:
    turns = [(model, count) for model in MODELS for count in clients]
    found: dict[tuple[str, int], list[dict[str, dict[str, float]]]] = {turn: [] for turn in turns}
    with (
        tempfile.TemporaryDirectory() as place,
        served(peers, Path(place)) as servers,
        Worker([sys.executable, Path(__file__).with_name("servers_load.py")], CLIENT_CORE) as load,
    ):
        for order in orders(peers, rounds):
            for model, count in turns:
                came = {}
                for peer in order:
                    with servers[peer.name].awake() as port:
                        came[peer.name] = asked(load, port, Path(place) / f"{peer.name}.{model}", count, seconds)
                found[model, count].append(came)
    return [row(model, count, peer.name, came) for (model, count), came in found.items() for peer in peers]


# ---------------------------------------------------------------- the report
def row(model: str, clients: int, name: str, rounds: Sequence[Round]) -> dict[str, Any]:
    def ratio(of: str, to: str, what: str) -> float | None:
        return ratio_of(rounds, of, to, what) if {of, to} <= rounds[0].keys() else None

    return {
        "model": model,
        "clients": clients,
        "server": name,
        "requests_per_second": middle(rounds, name, "rate"),
        "p50_ms": 1000 * middle(rounds, name, "p50"),
        "p99_ms": 1000 * middle(rounds, name, "p99"),
        "not_200": sum(came[name]["other"] for came in rounds),
        "ours_is_times_as_quick": ratio("aiaas", name, "rate"),
        "of_the_yardstick": ratio(name, "uvicorn", "rate"),
        "p99_ratio": ratio("aiaas", name, "p99"),
        "target": TARGETS[model].get(name) if clients == 64 else None,
    }


def shown(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'model':8}{'clients':>7}  {'server':10}{'req/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'of uvicorn':>12}"
        f"{'aiaas/it':>10}{'p99 aiaas/it':>14}  at least"
    ]
    for found in rows:
        ratios = [found["of_the_yardstick"], found["ours_is_times_as_quick"], found["p99_ratio"]]
        told = [f"{ratio:.2f}" if ratio is not None else "-" for ratio in ratios]
        target = f"{found['target']:.0f}" if found["target"] else ""
        if found["target"] and ratios[1] is not None and ratios[1] < found["target"]:
            target += "  MISSED"
        lost = f"  {found['not_200']:.0f} not answered with 200" if found["not_200"] else ""
        lines.append(
            f"{found['model']:8}{found['clients']:>7}  {found['server']:10}{found['requests_per_second']:>8.0f}"
            f"{found['p50_ms']:>9.2f}{found['p99_ms']:>9.2f}{told[0]:>12}{told[1]:>10}{told[2]:>14}  {target}{lost}"
        )
    return "\n".join(lines)


def main() -> None:
    names = [peer.name for peer in PEERS]
    made = parser(__doc__, "servers")
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--seconds", type=float, default=SECONDS, help="of a turn")
    made.add_argument("--peers", nargs="+", choices=names, default=names)
    made.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    options = made.parse_args()
    peers = [peer for peer in PEERS if peer.name in options.peers]
    for peer in peers:
        if not peer.python.exists():
            sys.exit(f"there is no .peers/{peer.environment}; make it with scripts/peers.sh {peer.environment}")
    two_cores()
    rows = compare(peers, options.clients, options.rounds, options.seconds)
    print(shown(rows))
    written(options.json, {"rounds": options.rounds, "servers": rows})


if __name__ == "__main__":
    main()
