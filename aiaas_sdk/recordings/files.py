"""The file: a line of JSON for each call; the first line names the format.

    {"aiaas_recording": 1}
    {"address": "digits", "verb": "open", "answer": {"name": "digits", "verbs": ["predict"], ...}}
    {"address": "digits", "verb": "predict", "inputs": {"x": {"datatype": "FP32", "shape": [1, 1], "data": [[1]]}}, ...
    {"address": "llm", "verb": "stream", "prompt": "Once upon", "deltas": [" a", " time"], "answer": {"choices": ...}}

A call has what it was asked ("inputs", tensors by name; "prompt", "tools" and "schema"; "texts"; "options"), "answer"
or "error", and where something is known "learnt". A stream has "deltas" before these; its answer is the whole, or null
where its reader left it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from aiaas_sdk.errors import AiaasError, ConfigError, ModelNotFoundError, ProtocolError
from aiaas_sdk.recordings import lines
from aiaas_sdk.recordings.calls import Recorded
from aiaas_sdk.recordings.tidying import ordered, telling

__all__ = ["read", "write"]

MARK, VERSION = "aiaas_recording", 1


def read(path: Path) -> list[Recorded]:
    """The calls of a file, in its order.

    Raises:
        ModelNotFoundError: there is no such file. ProtocolError: it isn't a recording; it names the line.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ModelNotFoundError(f"the recording {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ProtocolError(f"{path} is no recording: it isn't UTF-8") from None
    written = text.split("\n")  # not splitlines(), which would split texts at U+2028
    _check_mark(written[0], path)
    numbered = [(number, line) for number, line in enumerate(written, 1) if number > 1 and line.strip()]
    return [lines.decode(line, number, f"{path} line {number}") for number, line in numbered]


def _check_mark(line: str, path: Path) -> None:
    try:
        version = json.loads(line)[MARK]
    except (ValueError, TypeError, KeyError, RecursionError):
        mark = json.dumps({MARK: VERSION})
        raise ProtocolError(f"{path} line 1 doesn't say that it is a recording", hint=f"It would be {mark}") from None
    if version != VERSION:
        raise ProtocolError(
            f"{path} line 1: this is a recording of version {version!r}, and this release reads {VERSION}",
            hint="Record it again, or take another release of aiaas-sdk",
        )


def write(path: Path, calls: Sequence[Recorded]) -> None:
    """Put the calls into the file, whole or not at all; where there are none, there is no file afterwards.

    Raises:
        ConfigError: it can't be written.
    """
    kept = ordered(telling(calls), _old(path))
    text = "\n".join([json.dumps({MARK: VERSION}), *map(lines.encode, kept), ""])
    data = text.encode("utf-8", "backslashreplace")  # a lone surrogate, as JSON escapes it
    try:
        if not kept:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != data:
            _replace(path, data)
    except OSError as error:
        raise ConfigError(f"the recording {path} can't be written: {error.strerror}") from None


def _old(path: Path) -> list[Recorded]:
    try:
        return read(path)
    except AiaasError:  # none there, or none that can be read: it is replaced
        return []


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with new.open("xb") as file:
            file.write(data)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
