"""Worker processes under PyTorch's elastic launcher, which is what torchrun runs.

It starts them, looks after them, and where one dies ends the others and starts all anew. It runs in a thread of this
process. The meeting point of the processes is a c10d store on 127.0.0.1 and a free port; the launcher's own listens on
every address of the machine, and lets in whoever comes.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # they are in its documentation
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

__all__ = ["RESTARTS", "Processes"]

RESTARTS = 3
"""How often a run's processes are started anew, in all."""
HERE, BACKEND = "127.0.0.1", "aiaas-here"
LOOK = 0.1
"""Seconds between two looks at the processes."""
GRACE = 5
"""Seconds that a process has to end before it is killed."""
LAUNCHER, EVENTS = "torch.distributed", "torchelastic-events-null"
"""The loggers of the launcher: these and below, and this one."""
SIGNALS = "TORCHELASTIC_SIGNALS_TO_HANDLE"
TAIL = 2000
"""Characters of a worker's last words."""
# The main program of whoever trains isn't imported: it would train again. What it can import the workers can.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from aiaas_sdk.backends.torch.training.rank import main; main(sys.argv[1])"
)


class Processes:
    """The processes of a run, started.

    Args:
        folder: what they read their work from.
        count: how many.
        name: of the run.
    """

    def __init__(self, folder: Path, count: int, name: str) -> None:
        self._folder = folder
        self._failure: BaseException | None = None
        self._config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=name,
            rdzv_backend=BACKEND,
            rdzv_endpoint=HERE,
            local_addr=HERE,
            max_restarts=RESTARTS,
            monitor_interval=LOOK,
            shutdown_timeout=GRACE,
            logs_specs=DefaultLogsSpecs(str(folder / "launcher")),
        )
        self._thread = threading.Thread(target=self._run, name=f"aiaas-workers-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with _quiet():
                elastic_launch(self._config, sys.executable)("-c", START, str(self._folder), json.dumps(sys.path))
        except BaseException as error:
            self._failure = error

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    @property
    def failure(self) -> BaseException | None:
        """Why they ended, where they weren't meant to."""
        return self._failure

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def what_happened(self) -> str:
        """How the first of them died, in words."""
        failure = self._failure
        if failure is None:
            return "the workers ended, none of them with a result"
        if not isinstance(failure, ChildFailedError):
            return f"the workers can't be run ({type(failure).__name__}: {failure})"
        rank, first = failure.get_first_failure()
        return f"worker {rank} {_death(first)}"

    def last_words(self) -> str:
        """What the newest of them wrote before it died, if it is something."""
        files = sorted(self._folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        texts = [path.read_text(errors="replace").strip() for path in files]
        return next((text[-TAIL:] for text in reversed(texts) if text), "")


def _death(failure: ProcessFailure) -> str:
    if failure.exitcode < 0:
        return f"was killed by {failure.signal_name()}"
    return f"ended with the status {failure.exitcode}"


# ---------------------------------------------------------------- the meeting point
class _Here(RendezvousHandler):
    """The rendezvous of one machine: nobody else comes, and each start has a store of its own."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        self._name, self._closed = parameters.run_id, False
        self._store: TCPStore | None = None

    def get_backend(self) -> str:
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        listening = socket.create_server((HERE, 0))
        port = listening.getsockname()[1]
        self._store = TCPStore(
            HERE,
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
            timeout=timedelta(minutes=5),
        )
        return RendezvousInfo(PrefixStore("agent", self._store), 0, 1, RendezvousStoreInfo(HERE, port))

    def is_closed(self) -> bool:
        return self._closed

    def set_closed(self) -> None:
        self._closed = True

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._name

    def shutdown(self) -> bool:
        self._store = None
        return True


rendezvous_handler_registry.register(BACKEND, _Here)


# ---------------------------------------------------------------- manners
@contextmanager
def _quiet() -> Iterator[None]:
    """What the launcher says of its own doings is dropped, while it does them for this run; a run tells what matters.

    It also leaves a variable in the environment.
    """
    mine = threading.get_ident()
    known = os.environ.get(SIGNALS)
    names = [name for name in logging.root.manager.loggerDict if name.startswith(LAUNCHER)]
    loggers = [logging.getLogger(name) for name in (*names, EVENTS)]

    def others(record: logging.LogRecord) -> bool:
        return record.thread != mine

    for logger in loggers:
        logger.addFilter(others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(others)
        if known is None:
            os.environ.pop(SIGNALS, None)
