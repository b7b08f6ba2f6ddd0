"""Record the calls of models into a file, and replay them from it.

    with recording("calls.jsonl", "record"):
        with aiaas.load("digits") as model:
            model.predict(images)              # asks the model, and notes question and answer

    with recording("calls.jsonl"):
        with aiaas.load("digits") as model:
            model.predict(images)              # answered from the file: no model, no network, no backend

In pytest the fixture `aiaas_recording` does this. Outside of a `with`, `replay:calls.jsonl` is a model's address.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

from aiaas_sdk import seam
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.recordings.files import read
from aiaas_sdk.recordings.playback import Playback
from aiaas_sdk.testing.playing import Player
from aiaas_sdk.testing.recorder import Recorder

__all__ = ["MODES", "Mode", "recording"]

Mode: TypeAlias = Literal["record", "replay", "live"]
MODES: tuple[Mode, ...] = ("record", "replay", "live")


@contextmanager
def recording(path: str | PathLike[str], mode: Mode = "replay") -> Iterator[None]:
    """Record or replay every call of a model in this process for the length of a `with`.

    Models that were loaded before it count too. The innermost of several decides.

    Args:
        path: the file. Recording writes it at the end, and leaves it as it is where the block raised.
        mode: "record" asks the models and notes their answers, "replay" answers from the file, "live" does nothing.

    Raises:
        ModelNotFoundError, ProtocolError: the file to replay isn't there, or isn't a recording.
        UnsupportedOperationError: (from a call) it isn't in the recording.
    """
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}", hint=f"Give one of {', '.join(MODES)}")
    file = Path(os.path.abspath(path))  # wherever the block goes to
    if mode == "live":
        yield
        return
    if mode == "replay":
        with seam.stepping_in(Player(Playback(read(file), str(path)))):
            yield
        return
    recorder = Recorder()
    with seam.stepping_in(recorder):
        yield
    recorder.save(file)
