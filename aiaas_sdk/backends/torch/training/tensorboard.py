"""Event files for TensorBoard, where that is installed."""

from __future__ import annotations

import warnings
from typing import Any

from aiaas_sdk.errors import BackendNotInstalledError
from aiaas_sdk.records.training import Event

__all__ = ["Board"]


class Board:
    """Writes what a run tells of its epochs, by the number of the step.

    Raises:
        BackendNotInstalledError: the package tensorboard isn't there.
    """

    def __init__(self, folder: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what it imports
                from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise BackendNotInstalledError(
                "the setting tensorboard needs the package tensorboard", hint="Install it: pip install tensorboard"
            ) from None
        self._writer: Any = SummaryWriter(folder)

    def tell(self, event: Event) -> None:
        """What the run told."""
        if event["type"] != "epoch":
            return
        for name, value in {**event["metrics"], "learning_rate": event["learning_rate"]}.items():
            self._writer.add_scalar(name, value, event["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
