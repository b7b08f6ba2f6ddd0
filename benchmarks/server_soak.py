"""The mixed load of tests/soak/test_served.py on a server, for minutes: what its process holds after each tenth.

PYTHONPATH=. python benchmarks/server_soak.py --minutes 5 --picture docs/server-soak.svg
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from held import curves, table
from report import add_picture, draw, parser, written

from tests.soak.clients import Load
from tests.soak.test_served import CLIENTS, Served

MARKS = 10


def soaked(minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        served = Served(Path(folder))
        try:
            load = Load(served.port)
            asyncio.run(load.run(1, 0.5))
            held = [served.settled(served.held(), 0.5)]
            for _ in range(MARKS):
                asyncio.run(load.run(CLIENTS, 60 * minutes / MARKS))
                held.append(served.settled(held[0]))
        finally:
            served.close()
    return {"minutes": minutes, "ends": dict(load.ends), "wrong": len(load.wrong), "held": held}


def shown(found: dict[str, Any]) -> str:
    ends = ", ".join(f"{name} {count}" for name, count in sorted(found["ends"].items()))
    names = [f"{place}/{MARKS}" for place in range(MARKS + 1)]
    return "\n".join([f"{ends}; wrong answers {found['wrong']}", *table(names, found["held"])])


def picture(found: dict[str, Any]) -> str:
    return curves(found["held"], "server", "minutes", found["minutes"])


def main() -> None:
    made = parser(__doc__, "server-soak")
    made.add_argument("--minutes", type=float, default=5.0)
    add_picture(made)
    options = made.parse_args()
    found = soaked(options.minutes)
    print(shown(found))
    written(options.json, found)
    draw(options.picture, lambda: picture(found))


if __name__ == "__main__":
    main()
