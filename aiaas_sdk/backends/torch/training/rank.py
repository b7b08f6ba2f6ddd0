"""One of the processes of a run: `main` is what it does, from its first import to its end.

Nothing heavy is imported before the number of threads is settled, and before the run is reached: who trains may be gone
by then.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from aiaas_sdk.backends.torch.training.channel import LEAVE, Speaking

__all__ = ["main"]

LASTING = 60.0
"""Seconds after which a process that has failed ends by itself, if nobody tells it to."""


def main(folder: str) -> NoReturn:
    """Train, told by a folder what, and by torchrun's variables as which of how many."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who trains
    line = json.loads(Path(folder, "run.json").read_text())
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(line["threads"])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    started = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    _write_to(Path(folder, f"{started}-{rank}.log"))
    try:
        speaking = Speaking(line["port"], line["token"], rank, started, partial(_end, folder))
    except OSError:  # who trains is gone
        os._exit(0)
    try:
        speaking.say(ended=_train(Path(folder), line, rank, world, speaking))
    except BaseException as error:
        speaking.say(failed=_facts(error))
        time.sleep(LASTING)  # while the others are told; whoever trains ends this process
        os._exit(1)
    # without the interpreter's end: libraries that clean up could crash it, and all would be started anew
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end(folder: str, word: bytes) -> NoReturn:
    """Now, whatever this process is in the midst of. Who trains removes the folder, if he is still there."""
    if word != LEAVE:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _write_to(path: Path) -> None:
    """What is written to stdout and stderr, by C code too: the run's own stays for who trains."""
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _train(folder: Path, line: Mapping[str, Any], rank: int, world: int, speaking: Speaking) -> str | None:
    import torch

    from aiaas_sdk.backends.torch.training import running
    from aiaas_sdk.backends.torch.training.checkpoints import Shelf
    from aiaas_sdk.backends.torch.training.ranks import SILENCE, Together
    from aiaas_sdk.backends.torch.training.supply import Part
    from aiaas_sdk.backends.torch.training.travelling import unpack

    torch.set_num_threads(line["threads"])
    if rank == 0:
        logging.getLogger("aiaas_sdk").addHandler(_Logs(speaking))
    luggage = unpack(folder, _own_device(rank) if line["device"] == "cuda" else None)
    device = luggage.parent.device
    _local()
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=SILENCE)
    together = Together(Part(rank, world), device, luggage.memory, speaking.stopped.is_set)
    told = partial(_tell, speaking) if rank == 0 else _nothing
    return running.run(
        luggage.parent,
        luggage.fit,
        luggage.data,
        luggage.facts,
        Shelf(luggage.shelf),
        told,
        together.stopped,
        together,
    )


def _own_device(rank: int) -> Any:
    """Each has a GPU to itself."""
    import torch

    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def _local() -> None:
    """The processes talk on this machine alone; else gloo would listen where the machine's name leads."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    if sys.platform != "win32":
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback


def _tell(speaking: Speaking, event: Any) -> None:
    speaking.say(event={"time": time.time(), **event})


def _nothing(event: Any) -> None:
    """Only the first process tells."""


class _Logs(logging.Handler):
    """What is logged here is logged where the run is."""

    def __init__(self, speaking: Speaking) -> None:
        super().__init__(logging.WARNING)
        self._speaking = speaking

    def emit(self, record: logging.LogRecord) -> None:
        self._speaking.say(log=[record.levelno, record.getMessage()])


def _facts(error: BaseException) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": getattr(error, "message", None) or str(error),
        "hint": getattr(error, "hint", None),
        "trace": "".join(traceback.format_exception(error)),
    }
