"""`aiaas serve` with more than it can do, and while it changes.

1. Peak: as many clients as the queue has places, each with one request under way: answers a second, and the p99 of
   their times.
2. Overload: four times as many requests a second as that, for a minute, whatever becomes of them. Goodput is the
   answers with 200 within the clients' deadline, a second; it should stay at 90 % of the peak, and the accepted
   requests should keep their p99.
3. Update: a new version of the model is written while clients ask. Every request is answered with 200.
4. End: SIGTERM while clients ask. Every request that was sent is answered; after that nobody listens.

The model is the digits CNN with 32 images a request. The server has one core, the load the other. Needs Linux.

    python benchmarks/overload.py --picture docs/overload.svg          # writes benchmarks/results/overload.json
    python benchmarks/overload.py --seconds 10 --json /tmp/overload.json
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from chart import Line, Panel, drawn
from processes import CLIENT_CORE, ROOT, SERVER_CORE, Worker, free_port, pinned, two_cores
from report import add_picture, draw, parser, written
from servers_peers import answer, binary_request

QUEUE, ROWS, TIMES = 32, 32, 4
DEADLINE = 2.0
PEAK_SECONDS, CHANGE_SECONDS, CHANGE_CLIENTS = 10.0, 8.0, 8
TARGETS = {"goodput": 0.9, "p99": 1.25}
"""At least so much of the peak's goodput; at most so many times its p99."""


# ---------------------------------------------------------------- the server
class Server:
    """The process, with a folder of one model."""

    def __init__(self, folder: Path) -> None:
        self.models, self.port = folder / "models", free_port()
        self.names = names_of(self.publish())
        command = [str(Path(sys.executable).with_name("aiaas")), "serve", str(self.models), "--port", str(self.port)]
        options = ["--queue", str(QUEUE), "--watch", "0.5", "--no-page"]
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            preexec_fn=pinned(SERVER_CORE),
        )

    def publish(self) -> str:
        """Write the next version of the model, and give its address."""
        import torch

        import aiaas_sdk as aiaas
        from aiaas_sdk.architectures.cnn import CNN

        torch.manual_seed(0)
        return aiaas.save(CNN().eval(), self.models / "digits", example=np.zeros((1, 1, 28, 28), np.float32))

    def await_answer(self, request: bytes) -> None:
        came, end = b"", time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                came = answer(self.port, request)
                if came.startswith(b"HTTP/1.1 200"):
                    return
            time.sleep(0.1)
        sys.exit(f"the server doesn't answer: {came[:500]!r}\n{self.log.read_text()[-3000:]}")

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


def names_of(address: str) -> tuple[str, str]:
    """Those of its input and output."""
    import aiaas_sdk as aiaas

    with aiaas.load(address) as model:
        info = model.info()
    return info.inputs[0].name, info.outputs[0].name


class Load(Worker):
    """The process that asks: a turn is begun, and its rows are read when it is over."""

    def __init__(self, port: int, request: Path) -> None:
        self._told = {"port": port, "request": str(request), "deadline": DEADLINE}
        super().__init__([sys.executable, Path(__file__).with_name("overload_load.py")], CLIENT_CORE)

    def begin(self, seconds: float, **how: float) -> None:
        self.tell(json.dumps({**self._told, "seconds": seconds, **how}))


# ---------------------------------------------------------------- what is measured
def measured(seconds: float) -> dict[str, Any]:
    with started() as (server, load):
        before = turn(server, load, PEAK_SECONDS, clients=QUEUE)
        peak = summed(before, skip=2)
        over = turn(server, load, seconds, rate=TIMES * peak["goodput"])
        after = turn(server, load, PEAK_SECONDS, clients=QUEUE)
        again, overload = summed(after, skip=2), summed(over, skip=2)
        peaks = {"goodput": statistics.mean((peak["goodput"], again["goodput"])), "p99": max(peak["p99"], again["p99"])}
        found = {
            "peak": peaks,
            "overload": {**overload, "rate": TIMES * peak["goodput"]},
            "goodput_of_peak": overload["goodput"] / peaks["goodput"],
            "work_of_peak": over["a_cpu_second"] / statistics.mean((before["a_cpu_second"], after["a_cpu_second"])),
            "p99_of_peak": overload["p99"] / peaks["p99"],
            "seconds": [{name: value for name, value in row.items() if name != "times"} for row in over["rows"]],
            "p99_seconds": [quantile(row["times"], 0.99) for row in over["rows"]],
        }
        return {**found, "update": update(server, load), "end": end(server, load)}


def turn(server: Server, load: Load, seconds: float, **how: float) -> dict[str, Any]:
    """A turn of load; with it, the answers for each second of CPU of the server's."""
    begun = server.cpu()
    load.begin(seconds, **how)
    found = load.answer()
    good = sum(row.get("good", 0) for row in found["rows"])
    return {**found, "a_cpu_second": good / (server.cpu() - begun)}


@contextlib.contextmanager
def started() -> Iterator[tuple[Server, Load]]:
    with tempfile.TemporaryDirectory() as place:
        request = Path(place) / "request"
        images = np.random.default_rng(0).random((ROWS, 1, 28, 28), np.float32)
        waits = f"Aiaas-Timeout-Ms: {int(1000 * DEADLINE)}"
        server = Server(Path(place))
        request.write_bytes(binary_request("digits", images, server.names, waits))
        try:
            server.await_answer(request.read_bytes())
            with Load(server.port, request) as load:
                yield server, load
        finally:
            server.end()


def update(server: Server, load: Load) -> dict[str, Any]:
    load.begin(CHANGE_SECONDS, clients=CHANGE_CLIENTS)
    time.sleep(CHANGE_SECONDS / 4)
    server.publish()
    return counted(load.answer())


def end(server: Server, load: Load) -> dict[str, Any]:
    load.begin(CHANGE_SECONDS, clients=CHANGE_CLIENTS)
    time.sleep(CHANGE_SECONDS / 4)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    status = server.process.wait(60)
    return {**counted(load.answer()), "status": status, "ended_after": time.monotonic() - begun}


def counted(found: dict[str, Any]) -> dict[str, Any]:
    names = ("sent", "good", "late", "refused", "other", "lost")
    totals = {name: sum(row.get(name, 0) for row in found["rows"]) for name in names}
    return {**totals, "versions": found["versions"]}


def summed(found: dict[str, Any], skip: int) -> dict[str, Any]:
    """Of whole seconds, without the first ones."""
    rows = found["rows"][skip:]
    times = [took for row in rows for took in row["times"]]
    return {
        **counted({**found, "rows": rows}),
        "goodput": statistics.mean(row.get("good", 0) for row in rows),
        "p50": quantile(times, 0.5),
        "p99": quantile(times, 0.99),
    }


def quantile(times: list[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(part * len(times)))] if times else 0.0


# ---------------------------------------------------------------- the report
def shown(found: dict[str, Any]) -> str:
    peak, over, update, end = (found[name] for name in ("peak", "overload", "update", "end"))
    verdict = "" if found["goodput_of_peak"] >= TARGETS["goodput"] else "   MISSED"
    slower = "" if found["p99_of_peak"] <= TARGETS["p99"] else "   MISSED"
    return "\n".join(
        [
            f"peak      {peak['goodput']:8.0f} answers/s, p99 {1000 * peak['p99']:.0f} ms",
            f"overload  {over['goodput']:8.0f} answers/s of {over['rate']:.0f} requests/s, "
            f"p99 {1000 * over['p99']:.0f} ms, refused {over['refused']}, late {over['late']}, "
            f"otherwise {over['other']}, lost {over['lost']}",
            f"  goodput of the peak {found['goodput_of_peak']:.2f}, at least {TARGETS['goodput']}{verdict}",
            f"  answers for a second of its CPU, of the peak's {found['work_of_peak']:.2f}",
            f"  p99 of the peak's   {found['p99_of_peak']:.2f}, at most {TARGETS['p99']}{slower}",
            f"update    {update['sent']} sent, {update['good']} answered, refused {update['refused']}, "
            f"otherwise {update['other']}, lost {update['lost']}; by version {dict(update['versions'])}",
            f"SIGTERM   {end['sent']} sent, {end['good']} answered, refused {end['refused']}, "
            f"otherwise {end['other']}, lost {end['lost']}; status {end['status']} after {end['ended_after']:.1f} s",
        ]
    )


def picture(found: dict[str, Any]) -> str:
    rows, peak = found["seconds"], found["peak"]
    span = len(rows)

    def curve(name: str, what: str, colour: str) -> Line:
        return Line(name, colour, [row.get(what, 0) for row in rows], first=0.5)

    good = curve("answered in time", "good", "#0072b2")
    flat = Line("peak", "#555555", [peak["goodput"]] * 2, step=span, dash="5 4")
    limit = Line("peak", "#555555", [1000 * peak["p99"]] * 2, step=span, dash="5 4")
    times = Line("p99 of accepted ones", "#009e73", [1000 * value for value in found["p99_seconds"]], first=0.5)
    panels = [
        Panel(
            "Requests a second",
            [curve("sent", "sent", "#d55e00"), curve("refused", "refused", "#e69f00"), flat, good],
        ),
        Panel("Answers a second", [flat, good]),
        Panel("p99 of the accepted requests, ms", [limit, times]),
    ]
    return drawn(panels, "seconds", span)


def main() -> None:
    made = parser(__doc__, "overload")
    made.add_argument("--seconds", type=float, default=60.0, help="of overload")
    add_picture(made)
    options = made.parse_args()
    two_cores()
    found = measured(options.seconds)
    print(shown(found))
    written(options.json, found)
    draw(options.picture, lambda: picture(found))


if __name__ == "__main__":
    main()
