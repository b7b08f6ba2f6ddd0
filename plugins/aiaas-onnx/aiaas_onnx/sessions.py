"""Sessions of onnxruntime, and its errors in our words."""

from __future__ import annotations

import ctypes
import os
import weakref

from aiaas_onnx.devices import CPU, Provider, threads
from aiaas_onnx.places import Place
from aiaas_onnx.reading import Loaded
from aiaas_onnx.runtime import onnxruntime
from aiaas_sdk.errors import BundleError, ConfigError

__all__ = ["begin"]

SILENT = 4
"""Of onnxruntime's log levels: it would tell on stderr what it raises, too."""

_begun: weakref.WeakSet[onnxruntime.InferenceSession] = weakref.WeakSet()


def _keep() -> None:
    """In a child process a session has lost its threads, and would wait for them for ever when it is deleted."""
    for session in list(_begun):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)


def begin(loaded: Loaded, place: Place, chosen: Provider, concurrency: int) -> onnxruntime.InferenceSession:
    """A session of the model, for so many calls at once.

    Raises:
        BundleError: onnxruntime can't run the model. ConfigError: it can't use the GPU.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads(concurrency)
    if loaded.beside:
        contents = list(loaded.beside.values())
        options.add_external_initializers_from_files_in_memory(list(loaded.beside), contents, list(map(len, contents)))
    providers = [chosen] if chosen[0] == CPU else [chosen, (CPU, {})]
    try:
        found = onnxruntime.InferenceSession(loaded.model, options, providers=providers)
    except Exception as error:  # its classes have no base of their own
        raise BundleError(
            f"{place.path} can't be run by onnxruntime {onnxruntime.__version__}: {_told(error)}"
        ) from error
    if found.get_providers()[0] != chosen[0]:
        raise ConfigError(
            "onnxruntime has CUDA and can't start it: its libraries or the driver don't fit", hint='Give device="cpu"'
        )
    _begun.add(found)
    return found


def _told(error: Exception) -> str:
    """The first line, without the mark that onnxruntime's errors begin with."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("[ONNXRuntimeError] : ")[:300]
