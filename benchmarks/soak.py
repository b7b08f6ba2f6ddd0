"""The calls of tests/soak, many more of them: how they end, and what the process holds after each tenth of them.

PYTHONPATH=. python benchmarks/soak.py --picture docs/soak.svg      # writes benchmarks/results/soak.json too
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from chart import Line, Panel, drawn

from tests.soak.test_soak import Held, Log, Server, unfit, weathered

ROOT = Path(__file__).parent.parent
MARKS = 10


def soaked(calls: int) -> dict[str, Any]:
    server, log = Server(), Log(calls)
    try:
        marks = [calls * (n + 1) // MARKS for n in range(MARKS)]
        held = asyncio.run(weathered(server, log, marks))
        met = server.met()
    finally:
        server.close()
    misfits = [text for number in range(calls) if (text := unfit(number, log.failed[number], met.get(number, [])))]
    return {
        "calls": calls,
        "answers": sum(log.answers),
        "wrong": len(log.wrong),
        "misfits": misfits,
        "errors": dict(Counter(failed.error for failed in log.failed if failed).most_common()),
        "requests": sum(map(len, met.values())),
        "faults": sum(name != "answer" for names in met.values() for name in names),
        "marks": marks,
        "held": [found._asdict() for found in held],
    }


def shown(found: dict[str, Any]) -> str:
    lines = [
        f"{found['calls']} calls, {found['requests']} requests, {found['faults']} of them met a fault",
        f"right answers {found['answers']}, wrong ones {found['wrong']}, ends that don't fit {len(found['misfits'])}",
        "errors: " + ", ".join(f"{name} {count}" for name, count in found["errors"].items()),
        f"{'':>18}{'files':>8}{'threads':>9}{'tasks':>7}{'MiB':>8}{'blocks':>9}",
    ]
    names = ["before", *(f"{mark} calls" for mark in found["marks"]), "closed"]
    for name, held in zip(names, (Held(**held) for held in found["held"]), strict=True):
        lines.append(f"{name:>18}{held.files:>8}{held.threads:>9}{held.tasks:>7}{held.memory:>8.1f}{held.blocks:>9}")
    return "\n".join(lines)


def picture(found: dict[str, Any]) -> str:
    held, step = found["held"][:-1], found["calls"] / MARKS / 1000
    lines = [
        Panel("Memory of the process, MiB", [Line("memory", "#0072b2", [row["memory"] for row in held], step=step)]),
        Panel("Open files", [Line("open files", "#d55e00", [row["files"] for row in held], step=step)]),
    ]
    return drawn(lines, "thousand calls", found["calls"] / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "soak.json")
    parser.add_argument("--picture", type=Path, help="where the curves are drawn, as SVG")
    options = parser.parse_args()
    found = soaked(options.calls)
    print(shown(found))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.picture:
        options.picture.write_text(picture(found))


if __name__ == "__main__":
    main()
