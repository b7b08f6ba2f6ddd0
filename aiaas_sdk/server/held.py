"""A version of a model, held open for one call."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import BrokenExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aiaas_sdk.errors import AiaasError, DeadlineExceededError
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.options import UNSET, Unset
from aiaas_sdk.server.opened import Opened

if TYPE_CHECKING:
    from aiaas_sdk.server.versioned import Versioned

__all__ = ["Held"]

_LEAST = 0.001  # seconds: a limit of nothing would be none


class Held:
    """See `Hosted.held`.

    Attributes:
        seconds: that are left for the call; None for no limit.
    """

    __slots__ = ("_hosted", "_once", "_opened", "_version", "seconds")

    def __init__(self, hosted: Versioned, version: str | None, seconds: float | None, once: bool) -> None:
        self._hosted, self._version, self.seconds, self._once = hosted, version, seconds, once

    @property
    def model(self) -> AsyncModel[Any, Any]:
        return self._opened.once if self._once else self._opened.model

    @property
    def timeout(self) -> float | Unset:
        """The seconds as a verb takes them; without a limit, the model's own holds."""
        return UNSET if self.seconds is None else self.seconds

    @property
    def info(self) -> ModelInfo:
        return self._opened.info

    async def __aenter__(self) -> Self:
        found = self._hosted.at_hand(self._version)
        if found is None:
            found = await self._opened_in_time()
        else:
            found.users += 1
        self._opened: Opened = found
        return self

    async def _opened_in_time(self) -> Opened:
        if self.seconds is None:
            return await self._hosted.entered(self._version)
        end = time.monotonic() + self.seconds
        try:
            async with asyncio.timeout(self.seconds):
                found = await self._hosted.entered(self._version)
        except TimeoutError as error:
            if isinstance(error, AiaasError):  # its own
                raise
            raise DeadlineExceededError("the model was still being opened when the caller's time was over") from None
        self.seconds = max(end - time.monotonic(), _LEAST)
        return found

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.failed(error)
        self._opened.leave()

    def failed(self, error: BaseException) -> None:
        """Look at what a call ended with: some failures no model outlives. Where the block raises it, this is done."""
        if _deadly(error):
            self._hosted.died(self._opened, error)


def _deadly(error: BaseException | None) -> bool:
    """Whether the model that raised it is of no further use: out of memory, its GPU or its workers in ruins."""
    for _ in range(8):
        if error is None:
            return False
        if isinstance(error, MemoryError | BrokenExecutor):
            return True
        if isinstance(error, RuntimeError) and "CUDA" in str(error):  # torch's own errors are RuntimeErrors
            return True
        error = error.__cause__
    return False
