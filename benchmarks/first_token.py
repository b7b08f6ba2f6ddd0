"""Time to the first token of a stream: the same bundle in this process, and through `aiaas serve` with our client.

Two models. A tiny untrained one shows what the way there and back costs: the model itself takes a millisecond.
SmolLM2-135M shows what that is of a real answer. The server is a process of its own, on the same machine; the two
take turns, stream by stream, and a stream is left after its first delta. A figure is the median; "over" is the median
of the turns' differences. Wall time: what a reader waits.

    python benchmarks/first_token.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processes import ROOT, free_port

PROMPT = "Tell me in a few words why the sea is salt, and lakes most often aren't."
ROUNDS = {"tiny": 100, "smollm2": 20}
"""Turns of each model."""
PAUSE = 0.15
"""Seconds before each stream: the one before was left, and its last step ends meanwhile."""
TINY = {"width": 64, "layers": 2, "heads": 4, "context": 256}


# ---------------------------------------------------------------- the models
def made(folder: Path) -> dict[str, str]:
    """The addresses of both, in a folder that can be served."""
    import aiaas_sdk as aiaas
    from aiaas_sdk.backends.torch.importing import import_model

    tiny = f"torch:{folder / 'tiny'}"
    aiaas.create(tiny, architecture="transformer", config=TINY, tokenizer="bytes", seed=1).close()
    command = [str(ROOT / "scripts" / "models.sh"), "smollm2"]
    environment = {**os.environ, "PYTHON": sys.executable}
    fetched = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    import_model(next(Path(fetched.stdout.strip()).glob("*.gguf")), folder / "smollm2")
    return {"tiny": tiny, "smollm2": f"torch:{folder / 'smollm2'}"}


# ---------------------------------------------------------------- the server
@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Where `aiaas serve` answers for the folder."""
    import aiaas_sdk as aiaas

    port = free_port()
    command = [sys.executable, "-m", "aiaas_sdk.cli", "serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        model = aiaas.load(f"openai+http://127.0.0.1:{port}/v1#tiny")
        model.wait_ready(timeout=60)
        model.close()
        yield f"openai+http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


# ---------------------------------------------------------------- the turns
def first(model: Any) -> float:
    """Seconds until the first delta."""
    begun = time.perf_counter()
    with model.stream(PROMPT, max_tokens=16, temperature=0.0) as stream:
        next(stream)
        return time.perf_counter() - begun


def turns(here: Any, there: Any, rounds: int) -> list[tuple[float, float]]:
    """Both sides' seconds, turn by turn; the first two turns are for warming up."""
    pairs = []
    for _ in range(rounds + 2):
        pair = []
        for model in (here, there):
            time.sleep(PAUSE)
            pair.append(first(model))
        pairs.append((pair[0], pair[1]))
    return pairs[2:]


def main() -> None:
    import aiaas_sdk as aiaas

    with tempfile.TemporaryDirectory() as name:
        os.environ["AIAAS_HOME"] = str(Path(name) / "home")  # both are signed with a key of this run's
        folder = Path(name) / "models"
        addresses = made(folder)
        print(f"{'time to the first token, ms':30}{'here':>8}{'served':>8}{'over':>8}{'ratio':>8}")
        with served(folder) as url:
            for model, address in addresses.items():
                with aiaas.load(address, device="cpu") as here, aiaas.load(f"{url}#{model}", timeout=120) as there:
                    pairs = turns(here, there, ROUNDS[model])
                mine, its = (1000 * statistics.median(pair[side] for pair in pairs) for side in (0, 1))
                over = 1000 * statistics.median(b - a for a, b in pairs)
                ratio = statistics.median(b / a for a, b in pairs)
                print(f"{model:30}{mine:>8.2f}{its:>8.2f}{over:>+8.2f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
