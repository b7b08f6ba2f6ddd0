"""Listening to a stream on its way through."""

from __future__ import annotations

from typing import Any

from aiaas_sdk.flow import Emit, Flow
from aiaas_sdk.records.language import Delta

__all__ = ["Heard"]


class Heard:
    """What one stream has given.

    Attributes:
        deltas: in order.
        left: its reader was given the last of them and didn't want more.
    """

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.left = False

    def through(self, flow: Flow[Any]) -> Flow[Any]:
        """The flow as it is, with what it emits kept."""
        step, outcome = flow.send, None
        while True:
            try:
                effect = step(outcome)
            except StopIteration as stop:
                return stop.value
            if type(effect) is Emit:
                self.deltas.append(effect.item)
            try:
                outcome, step = (yield effect), flow.send
            except GeneratorExit:
                self.left = type(effect) is Emit
                flow.close()
                raise
            except BaseException as error:
                outcome, step = error, flow.throw
