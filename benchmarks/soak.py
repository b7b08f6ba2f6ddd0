"""The calls of tests/soak, many more of them: how they end, and what the process holds after each tenth of them.

PYTHONPATH=. python benchmarks/soak.py --picture docs/soak.svg      # writes benchmarks/results/soak.json too
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from held import curves, table
from report import add_picture, draw, parser, written

from tests.soak.test_soak import Log, Server, unfit, weathered

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
    ]
    names = ["before", *(f"{mark} calls" for mark in found["marks"]), "closed"]
    return "\n".join(lines + table(names, found["held"]))


def picture(found: dict[str, Any]) -> str:
    return curves(found["held"][:-1], "process", "thousand calls", found["calls"] / 1000)


def main() -> None:
    made = parser(__doc__, "soak")
    made.add_argument("--calls", type=int, default=100_000)
    add_picture(made)
    options = made.parse_args()
    found = soaked(options.calls)
    print(shown(found))
    written(options.json, found)
    draw(options.picture, lambda: picture(found))


if __name__ == "__main__":
    main()
