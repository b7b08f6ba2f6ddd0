"""A model in its versions: which of them its address means by now, how others take its place, and what is open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aiaas_sdk.api import load_async
from aiaas_sdk.errors import AiaasError, DeadlineExceededError, ModelNotFoundError, ModelNotReadyError
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.options import ENGINE_OPTIONS
from aiaas_sdk.server.held import Held
from aiaas_sdk.server.memory import Memory
from aiaas_sdk.server.opened import Opened
from aiaas_sdk.server.serving import Serving
from aiaas_sdk.server.shelf import FIRST_PAUSE, LONGEST_PAUSE, Key, Shelf, Source
from aiaas_sdk.server.targets import pinned, resolved, shown
from aiaas_sdk.server.versions import Seen, folder_of, look, size_of, stamp_of

__all__ = ["Versioned"]

logger = logging.getLogger("aiaas_sdk.server")


class Versioned:
    """One model: the version that its address means, and others that were asked for.

    Attributes:
        name: under which it is served.
        address: where it is.
        remote: it is behind another endpoint, which may come and go.
        late: it came while the server ran, whose readiness doesn't wait for it.
        timeout: seconds that the operator allows a call; None where there is no limit.
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
        self.name, self.late = name, late
        self._text, self._given, self._serving = address, dict(options), serving
        self.address, self._members, self._options = resolved(address, options)
        self.remote = self.address.origin is not None or self.address.scheme == "route"
        self.timeout: float | None = self._options.get("timeout")
        self._path = folder_of(self.address)
        self._seen = Seen() if self._path is None else look(self._path, self.address.version)
        self._current: Key = self._seen.meant
        self._info: ModelInfo | None = None
        self._unloaded = False
        self._endpoint = load_async(address, **options) if self.remote else None
        self._shelf = Shelf(name, self._source(), memory or Memory(serving.memory))
        self._looking = asyncio.Lock()
        self._mending: asyncio.Task[None] | None = None
        self._reported: dict[Key, str] = {}

    def _source(self) -> Source:
        path, warm = self._path, self._serving.warm_up and not self.remote
        if path is None:
            return Source(self._made, warm=warm, lasting=not self.remote)
        return Source(self._made, partial(_size, path), partial(_stamp, path), warm)

    def _made(self, key: Key) -> AsyncModel[Any, Any]:
        """The unopened model of a version."""
        if key is not None:
            return load_async(pinned(self.address, key), **self._options)
        if self._endpoint is not None:  # its connections and its breaker outlast a try
            return self._endpoint.with_options()
        return load_async(self._text, **self._given)

    def check(self) -> None:
        """Raise what can be told of its address and options without opening it."""
        if not self.remote:
            load_async(self._text, **self._given)

    # ------------------------------------------------------------ what it is
    @property
    def info(self) -> ModelInfo | None:
        """What it says of itself; None until it is open, and while it is unloaded."""
        return None if self._unloaded else self._info

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that may be asked for: all that are there, or the one that the operator pinned."""
        info = self.info
        if info is None:
            return ()
        if self.address.version and info.version:
            return (info.version,)
        if self._path is None:
            return info.versions
        there = {version for version in self._seen.versions if version not in self._shelf.failures}
        return tuple(sorted(there | {info.version or ""}, key=int))

    @property
    def loaded(self) -> frozenset[str | None]:
        """The versions that are open."""
        return frozenset(opened.info.version for opened in self._shelf.opened.values())

    @property
    def failure(self) -> AiaasError | None:
        """Why the version that its address means isn't open; None before the first try, and where it is."""
        if (found := self._shelf.failures.get(self._current)) is not None:
            return found.error
        return self._seen.failure if self._info is None else None

    @property
    def failures(self) -> Mapping[str, AiaasError]:
        """Why versions couldn't be opened, or died."""
        return {key: found.error for key, found in self._shelf.failures.items() if key is not None}

    @property
    def trains(self) -> bool:
        """Whether clients may have a copy of it trained: it has a folder for new versions, and the server does jobs."""
        return self._serving.jobs is not None and self._path is not None and not self.address.version

    def to_train(self, version: str) -> tuple[str, dict[str, Any]]:
        """The address of a version, and the options that it is opened with, for another process."""
        names = ENGINE_OPTIONS - {"concurrency"}
        mine = {name: value for name, value in self._options.items() if name in names}
        return pinned(self.address, version), mine

    # ------------------------------------------------------------ opening
    @property
    def waited_for(self) -> bool:
        """It should serve, and can't yet, or not any more."""
        if self._unloaded or (self._info is None and self.late):
            return False
        return self._info is None or (not self.remote and self._current in self._shelf.failures)

    async def opened(self) -> ModelInfo:
        """Open the version that its address means, unless that was done.

        Raises:
            AiaasError: it can't be opened; the next call tries again.
        """
        if self._info is None:
            opened = await self._shelf.entered(self._current, anyway=True)
            self._info = self._info or opened.info
            if self._unloaded:
                opened.retire()
            opened.leave()
        return self._info

    async def keep_opening(self) -> None:
        """Open it; a model behind an endpoint is tried again, with growing pauses, until that answers."""
        pause = FIRST_PAUSE
        while True:
            try:
                info = await self.opened()
            except AiaasError as error:
                self._report(self._current, error)
                if not (self.remote or error.retryable or isinstance(error, DeadlineExceededError)):
                    return
            else:
                logger.info("model %r is ready: version %s", self.name, info.version)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _report(self, key: Key, error: AiaasError) -> None:
        """Log why a version can't be opened, once for each reason."""
        if self._reported.get(key) != str(error):
            self._reported[key] = str(error)
            which = "" if key is None else f", version {key},"
            logger.error("model %r%s can't be opened: %s", self.name, which, error, exc_info=error.__cause__)

    # ------------------------------------------------------------ updates
    async def look(self) -> None:
        """Look for new versions and moved aliases in its folder, and serve what its address means by now.

        The new version is opened and warmed first; then all new calls are its own, and the old one is closed after its
        last. A version that can't be opened leaves the old one serving: `failures` says why, and it is tried again when
        its files have changed, or later, where that may help. Where the newest version was taken away, the newest of
        the others is served; where all are gone, what is open goes on.
        """
        async with self._looking:
            if self._path is None:
                return
            before, self._seen = self._seen, await asyncio.to_thread(look, self._path, self.address.version)
            if self._seen.failure is not None and before.failure is None:
                logger.error("model %r: %s; what is open goes on", self.name, self._seen.failure)
            if self._seen.failure is None:
                self._shelf.forget(self._seen.versions)
                self._reported = {key: told for key, told in self._reported.items() if key in self._seen.versions}
            if failed := self._shelf.failures.keys() - {None}:
                self._shelf.forgive({key: await asyncio.to_thread(_stamp, self._path, key) for key in failed})
            try:
                await self._follow()
            except AiaasError as error:
                self._report(self._seen.meant, error)

    async def _follow(self) -> None:
        meant = self._seen.meant
        if meant is None or self._unloaded or (meant == self._current and self._info is not None):
            return
        if self._info is None:
            self._current = meant
        opened = await self._shelf.entered(meant)
        try:
            self._switch(meant, opened.info)
        finally:
            opened.leave()

    def _switch(self, key: Key, info: ModelInfo) -> None:
        """From now on every call without a version is this one's. There is no await in here."""
        before, self._current, self._info = self._current, key, info
        if before != key:
            self._shelf.retire(before)
            logger.info("model %r serves version %s now, and no longer %s", self.name, key, before)
        else:
            logger.info("model %r is ready: version %s", self.name, info.version)
        if self._unloaded:
            self._shelf.retire(key)

    async def load(self) -> None:
        """Serve it (again), in the version that its address means by now.

        Raises:
            AiaasError: that can't be opened. What served before goes on.
        """
        async with self._looking:
            self._unloaded = False
            if self._path is not None:
                self._seen = await asyncio.to_thread(look, self._path, self.address.version)
            self._shelf.failures.clear()
            self._reported.clear()
            key = self._seen.meant if self._path is not None else None
            if key is None and self._path is not None:
                raise self._seen.failure or ModelNotFoundError(f"model {self.name!r} is gone from its folder")
            opened = await self._shelf.entered(key)
            try:
                self._switch(key, opened.info)
            finally:
                opened.leave()

    async def unload(self) -> None:
        """Take no further calls, and close it after those that run, which aren't waited for. `load` undoes it."""
        self._unloaded = True
        for key in self._shelf.opened:
            self._shelf.retire(key)
        logger.info("model %r was unloaded", self.name)

    # ------------------------------------------------------------ serving
    def held(self, version: str | None = None, seconds: float | None = None, *, once: bool = False) -> Held:
        """A version for one call: `async with hosted.held(version, seconds) as held`.

        It stays open until the block is left, whatever is served then. `held.model` is the model; of the seconds for
        which the caller waits, `held.seconds` are left once it is open.

        Args:
            version: its number or an alias; None for the one that the address means.
            seconds: for which the caller waits; None for no limit.
            once: the caller retries by himself: his three tries times three of ours would be nine.

        Raises (when it is entered):
            ModelNotFoundError: there is no such version, or the model was unloaded.
            DeadlineExceededError: it isn't open by then.
            AiaasError: it can't be opened.
        """
        return Held(self, version, seconds, once and self.remote)

    async def info_of(self, version: str | None) -> ModelInfo:
        """What a version says of itself. It is opened for that only if it never was.

        Raises:
            AiaasError: as `held` does.
        """
        key = await self._key(version)
        if (found := self._shelf.infos.get(key)) is not None:
            return found
        async with self.held(version) as held:
            return held.info

    def at_hand(self, version: str | None) -> Opened | None:
        """What is served, for a caller who wants that and counts himself in; None where more must be done."""
        return None if version is not None or self._unloaded else self._shelf.at_hand(self._current)

    async def entered(self, version: str | None) -> Opened:
        """A version, opened if need be, into which the caller is counted."""
        key = await self._key(version)
        opened = await self._shelf.entered(key)
        if self._unloaded:  # meanwhile: it goes with this call
            opened.retire()
        if key == self._current and self._info is None:
            self._info = opened.info
        if key != self._current:
            self._shelf.spare(self._current)
        return opened

    async def _key(self, version: str | None) -> Key:
        """The version that a client's word means."""
        if self._unloaded:
            raise ModelNotFoundError(f"model {self.name!r} is unloaded")
        if version is None:
            return self._current
        if self._path is None:
            await self.opened()
        wanted = self._seen.aliases.get(version, version)
        if self._is_current(wanted):
            return self._current
        info = self._info
        there = self._seen.versions if self._path is not None else () if info is None else info.versions
        if wanted not in there and self._path is not None:  # it may have come a moment ago
            self._seen = await asyncio.to_thread(look, self._path, self.address.version)
            there = self._seen.versions
        if self.address.version or wanted not in there:
            known = ", ".join(self.versions) or "none that it tells"
            raise ModelNotFoundError(f"model {self.name!r} has no version {shown(version)}; its versions: {known}")
        return wanted

    def _is_current(self, version: str) -> bool:
        return version == (self._current or (self._info.version if self._info is not None else None))

    async def ready(self, version: str | None) -> bool:
        """Whether it can serve now. A model that isn't open yet isn't ready; nothing waits for it.

        One that was closed, to give room to others, is ready: its next caller has it opened.
        """
        if self._unloaded:
            raise ModelNotFoundError(f"model {self.name!r} is unloaded")
        if self._info is None:
            return False
        key = await self._key(version)
        if key in self._shelf.failures and not self.remote:
            return False
        if (key == self._current or key in self._shelf.infos) and self._shelf.at_hand(key) is None:
            return True
        async with self.held(version) as held:
            return await held.model.ready()

    # ------------------------------------------------------------ a model that dies
    def died(self, opened: Opened, error: BaseException) -> None:
        """Close what no further call should meet, and open it anew; until then callers are told 503."""
        if self.remote or opened.retired:
            return
        key = next((key for key, one in self._shelf.opened.items() if one is opened), None)
        why = ModelNotReadyError(f"model {self.name!r} failed and is being loaded again", retryable=True)
        failure = self._shelf.fail(key, why)
        opened.retire()
        logger.error("model %r, version %s, died and is opened anew: %s", self.name, opened.info.version, error)
        if key == self._current and (self._mending is None or self._mending.done()):
            self._mending = asyncio.ensure_future(self._mend(key, failure.pause))

    async def _mend(self, key: Key, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            if key != self._current or self._unloaded:
                return
            try:
                opened = await self._shelf.entered(key, anyway=True)
            except AiaasError as error:
                self._report(key, error)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                opened.leave()
                logger.info("model %r is ready again", self.name)
                return

    async def close(self) -> None:
        if self._mending is not None:
            self._mending.cancel()
        await self._shelf.close()
        if self._endpoint is not None:
            await self._endpoint.aclose()


def _size(path: Path, key: Key) -> int:
    return 0 if key is None else size_of(path, key)


def _stamp(path: Path, key: Key) -> object:
    return None if key is None else stamp_of(path, key)
