"""One served model, as every protocol meets it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from aiaas_sdk.errors import AiaasError, ModelError, ModelNotReadyError
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.near import near
from aiaas_sdk.records.options import UNSET, Unset
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.server.allowances import check_share, share_of
from aiaas_sdk.server.batcher import Batcher
from aiaas_sdk.server.errors import PAUSE, RefusedError, refusal
from aiaas_sdk.server.heads import Head
from aiaas_sdk.server.memory import Memory
from aiaas_sdk.server.serving import Serving
from aiaas_sdk.server.shelf import Key
from aiaas_sdk.server.statistics import Statistics
from aiaas_sdk.server.versioned import Versioned
from aiaas_sdk.server.yielding import yield_to_models
from aiaas_sdk.tensors import Tensor

__all__ = ["Hosted", "State"]


class State(NamedTuple):
    """A version as the repository index tells it.

    Attributes:
        version: None where it isn't known.
        state: "READY", "LOADING" or "UNAVAILABLE".
        reason: what there is to say, in words for clients.
    """

    version: str | None
    state: str
    reason: str | None = None


class Hosted(Versioned):
    """One served model, as every protocol meets it: a place in its queue, its answers, and what is told of it.

    Attributes:
        statistics: what is counted of it.
    """

    def __init__(
        self,
        name: str,
        address: str,
        options: Mapping[str, Any],
        serving: Serving,
        memory: Memory | None = None,
        *,
        late: bool = False,
    ) -> None:
        super().__init__(name, address, options, serving, memory, late=late)
        self.statistics = Statistics(name)
        self._batchers: WeakKeyDictionary[AsyncModel[Any, Any], Batcher | None] = WeakKeyDictionary()
        self._running = 0

    # ------------------------------------------------------------ what is told of it
    def states(self) -> Iterator[State]:
        """Each version with its state, as the repository index tells it, oldest first."""
        if self._unloaded:
            yield State(self._current, "UNAVAILABLE", "unloaded")
        elif self._info is None and self.failure is None:
            yield State(self._current, "LOADING")
        elif self._path is None and (self._info is None or not self.versions):
            yield self._state(self._current)
        else:
            known = {*self.versions, *(self.failures if not self.address.version else ()), self._current}
            for version in sorted(filter(None, known), key=_in_order):
                yield self._state(self._current if self._is_current(version) else version)

    def _state(self, key: Key) -> State:
        version = self._info.version if key is None and self._info is not None else key
        if (failure := self._shelf.failures.get(key)) is not None:
            return State(version, "UNAVAILABLE", self.told(failure.error).message)
        if self._shelf.at_hand(key) is None:
            return State(version, "UNAVAILABLE", "opened when asked for")
        gone = self._path is not None and version not in self._seen.versions
        return State(version, "READY", "its files are gone; it is served until it is unloaded" if gone else None)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The operator's words for it, which no client should read: its address, and its path or URL."""
        words = {self._text}
        for address in (self.address, *self._members):
            words |= {str(address), f"{address.scheme}:{address.target}", address.target}
            words.add((address.origin or "").partition("://")[2])
        # a short word could be anybody's
        return tuple(word for word in words if ":" in word or "/" in word or os.sep in word)

    def told(self, error: AiaasError) -> RefusedError:
        """What a client is told of an error of this model."""
        return refusal(error, name=self.name, hidden=self.hidden, remote=self.remote)

    def not_ready(self) -> RefusedError:
        """What a client is told who asks before it can serve: 503, whatever has failed."""
        told = self.told(self.failure or ModelNotReadyError(f"model {self.name!r} isn't ready yet"))
        told.status = 503
        return told

    # ------------------------------------------------------------ serving
    async def predict(
        self,
        model: AsyncModel[Any, Any],
        inputs: Mapping[str, Tensor],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | Unset | None = UNSET,
    ) -> Prediction:
        """The answer of a version of this model; every protocol asks here.

        Raises:
            RefusedError: 503, it can't be answered within its time.
            AiaasError: what the model says.
        """
        batcher = self._batcher(model)
        with self.statistics.measured("predict", model, shared=batcher is not None) as counted:
            try:
                if batcher is None:
                    answer = await model.predict(inputs, outputs=outputs, timeout=timeout)
                else:
                    seconds = self.timeout if isinstance(timeout, Unset) else timeout
                    answer = await batcher.predict(inputs, outputs, seconds)
            except MemoryError as error:
                raise ModelError(f"model {self.name!r} ran out of memory", hint="Send fewer rows") from error
            counted.told(answer)
            return answer

    def _batcher(self, model: AsyncModel[Any, Any]) -> Batcher | None:
        """The queue before an opened model; None where it is behind an endpoint."""
        try:
            return self._batchers[model]
        except KeyError:
            here, serving = near(model), self._serving
            self._batchers[model] = (
                None
                if here is None
                else Batcher(
                    here,
                    max_rows=serving.max_batch_rows,
                    max_delay=serving.max_batch_delay,
                    passed=partial(self.statistics.passed, here.info.version),
                )
            )
        return self._batchers[model]

    def check_room(self, head: Head) -> None:
        """Refuse a request whose body hasn't been read where `place` would refuse it now: that costs almost nothing.

        It takes no place. A body may come a kilobyte a second, and some hundreds of such would keep everybody out; so
        whoever finds the queue full when his body is there is refused only then.

        Args:
            head: the request's.

        Raises:
            RefusedError: as `place` says.
        """
        try:
            self._check_queue()
            check_share(self.name, self._serving.queue)
        except RefusedError as refused:
            refused.unread = head.costly
            raise

    def _full(self) -> bool:
        if self._running < self._serving.queue:
            return False
        yield_to_models()
        return True

    def _check_queue(self) -> None:
        if self._full():
            refused = RefusedError(503, f"model {self.name!r} is overloaded; try again later", retry_after=PAUSE)
            refused.full = self._full
            raise refused

    def place(self) -> _Place:
        """A place among the calls that wait or run: `with hosted.place():`.

        Raises (when it is entered):
            RefusedError: 503, all are taken; 429, so many as this caller may have.
        """
        return _Place(self)


class _Place:
    __slots__ = ("_hosted", "_share")

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._share: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        hosted = self._hosted
        hosted._check_queue()
        if (share := share_of(hosted.name, hosted._serving.queue)) is not None:
            share.__enter__()
            self._share = share
        hosted._running += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hosted._running -= 1
        if self._share is not None:
            self._share.__exit__(kind, error, trace)


def _in_order(version: str) -> tuple[int, str]:
    """Numbers as numbers; whatever else an endpoint calls its versions goes first."""
    return (int(version), "") if version.isdigit() else (-1, version)
