"""What `import aiaas_sdk` costs over a bare interpreter: whole processes, compiled, alternately."""

from __future__ import annotations

import compileall
import statistics
import subprocess
import sys
import time
from pathlib import Path

import aiaas_sdk

ROUNDS = 25


def _seconds(code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begun


def main() -> None:
    compileall.compile_dir(Path(aiaas_sdk.__file__).parent, quiet=2)
    ways = {"bare": "pass", "aiaas_sdk": "import aiaas_sdk", "load": "import aiaas_sdk; aiaas_sdk.load"}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, code in ways.items():
            times[name].append(_seconds(code))
    bare = statistics.median(times["bare"])
    print(f"{'import (median of ' + str(ROUNDS) + ' processes)':44}{'ms':>8}{'over bare':>12}")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{ways[name]:44}{1e3 * median:>8.1f}{1e3 * (median - bare):>+12.1f}")


if __name__ == "__main__":
    main()
