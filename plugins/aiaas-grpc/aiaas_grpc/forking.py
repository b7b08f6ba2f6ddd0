"""gRPC in a child process that was forked. Whatever imports grpc here imports it from this module.

gRPC's own threads don't live on in a forked child, where a call would hang for ever, past any deadline. With
GRPC_ENABLE_FORK_SUPPORT=1 gRPC starts them anew there, and a fork waits for the calls that run (grpc/grpc
`doc/fork_support.md`). The variable is read when grpc is first imported, so it is set here unless it was set, or grpc
was imported, before.
"""

from __future__ import annotations

import os
import sys

from aiaas_sdk.errors import UnsupportedOperationError

__all__ = ["check_process", "grpc"]

_VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"
if "grpc" not in sys.modules:
    os.environ.setdefault(_VARIABLE, "1")
_supported = os.environ.get(_VARIABLE, "").lower() in ("1", "true", "yes", "y")

import grpc  # noqa: E402  # it reads the variable

_used_in: int | None = None


def check_process() -> None:
    """Called before a channel is made: whether one can be made in this process.

    Raises:
        UnsupportedOperationError: the process was forked from one that used gRPC without its support for that.
    """
    global _used_in
    _used_in = _used_in or os.getpid()
    if _used_in != os.getpid() and not _supported:
        raise UnsupportedOperationError(
            "gRPC can't be used in this process, which was forked from one that used it",
            hint=f'Set {_VARIABLE}=1 before the program starts, or start processes with "spawn"',
        )
