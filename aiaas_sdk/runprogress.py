"""How far a training run is."""

from __future__ import annotations

import sys
from typing import Any

from aiaas_sdk.records.training import Event

__all__ = ["RunProgress"]


class RunProgress:
    """A line on stderr, kept up to date, and one that stays for each epoch; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._open = False

    def tell(self, event: Event) -> None:
        """What the run told."""
        if not self._on:
            return
        if event["type"] in ("step", "epoch"):
            sys.stderr.write(f"\r{_line(event)}\x1b[K" + ("\n" if event["type"] == "epoch" else ""))
            self._open = event["type"] == "step"
        elif event["type"] == "ended":
            sys.stderr.write(("\n" if self._open else "") + f"{event['status']}{_why(event)}\n")
        sys.stderr.flush()


def _line(event: Event) -> str:
    of = f" of {event['steps']}" if event["steps"] is not None else ""
    metrics = "".join(f", {name} {value:.4g}" for name, value in event["metrics"].items())
    left = f", {_clock(event['eta'])} left" if event["eta"] else ""
    place = f"epoch {event['epoch']} of {event['epochs']}, step {event['step']}{of}"
    return f"{place}{metrics}, {event['rate']:.0f} rows/s{left}"


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _why(event: Event) -> str:
    error: Any = event.get("error")
    return f": {error['message']}" if error else ""
