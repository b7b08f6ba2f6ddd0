"""The served models: from targets to models by name, opened once, other versions on demand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from aiaas_sdk.address import Address, parse
from aiaas_sdk.api import load_async
from aiaas_sdk.bundle import repository
from aiaas_sdk.errors import (
    AddressError,
    AiaasError,
    ConfigError,
    DeadlineExceededError,
    ModelNotFoundError,
    ModelNotReadyError,
    UnsupportedOperationError,
)
from aiaas_sdk.finding import check_options, find
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.options import ENGINE_OPTIONS
from aiaas_sdk.registry import backend_class
from aiaas_sdk.server.errors import PAUSE, RefusedError, refusal

__all__ = ["QUEUE", "Hosted", "Hosting", "Targets"]

Targets: TypeAlias = "Sequence[str | PathLike[str]]"
logger = logging.getLogger("aiaas_sdk.server")

QUEUE = 256
"""Calls of one model that may wait or run at once; a further one is told 503 at once."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries to open a model behind an endpoint
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]*)=(.+)", re.DOTALL)
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")


class Hosted:
    """One served model: the version that its address means, and others that were asked for.

    Attributes:
        name: under which it is served.
        address: where it is.
        remote: it is behind another endpoint, which may come and go.
        timeout: seconds that the operator allows a call; None where there is no limit.
        failure: why the last try to open it failed; None before it and where it succeeded.
    """

    def __init__(self, name: str, address: str, options: Mapping[str, Any], queue: int = QUEUE) -> None:
        self.name = name
        self._text, self._queue = address, queue
        self.address, self._members, self._options = _resolved(address, options)
        self.remote = self.address.origin is not None or self.address.scheme == "route"
        self.timeout: float | None = self._options.get("timeout")
        self.failure: AiaasError | None = None
        self._model = load_async(address, **options)
        self._info: ModelInfo | None = None
        self._versions: dict[str, AsyncModel[Any, Any]] = {}
        self._once: dict[AsyncModel[Any, Any], AsyncModel[Any, Any]] = {}
        self._loading = asyncio.Lock()
        self._running = 0

    # ------------------------------------------------------------ what it is
    @property
    def info(self) -> ModelInfo | None:
        """What it says of itself; None until it is open."""
        return self._info

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that may be asked for: all that are there, or the one that the operator pinned."""
        info = self._info
        if info is None:
            return ()
        return (info.version,) if self.address.version and info.version else info.versions

    @property
    def loaded(self) -> frozenset[str | None]:
        """The versions that are open."""
        return frozenset() if self._info is None else frozenset((self._info.version, *self._versions))

    @property
    def hidden(self) -> tuple[str, ...]:
        """The operator's words for it, which no client should read: its address, and its path or URL."""
        words = {self._text}
        for address in (self.address, *self._members):
            words |= {str(address), f"{address.scheme}:{address.target}", address.target}
            words.add((address.origin or "").partition("://")[2])
        # a short word could be anybody's
        return tuple(word for word in words if ":" in word or "/" in word or os.sep in word)

    # ------------------------------------------------------------ saying no
    def told(self, error: AiaasError) -> RefusedError:
        """What a client is told of an error of this model."""
        return refusal(error, name=self.name, hidden=self.hidden, remote=self.remote)

    def not_ready(self) -> RefusedError:
        """What a client is told who asks before it can serve: 503, whatever has failed."""
        told = self.told(self.failure or ModelNotReadyError(f"model {self.name!r} isn't ready yet"))
        told.status = 503
        return told

    # ------------------------------------------------------------ opening
    async def opened(self) -> ModelInfo:
        """Open it unless it is open.

        Raises:
            AiaasError: it can't be opened; the next call tries again.
        """
        if self._info is None:
            try:
                self._info = await self._model.info()
            except AiaasError as error:
                self.failure = error
                raise
            self.failure = None
        return self._info

    async def keep_opening(self) -> None:
        """Open it; a model behind an endpoint is tried again, with growing pauses, until that answers."""
        pause = _FIRST_PAUSE
        while True:
            try:
                info = await self.opened()
            except AiaasError as error:
                logger.error("model %r can't be opened: %s", self.name, error)
                if not (self.remote or error.retryable or isinstance(error, DeadlineExceededError)):
                    return
            except Exception:
                logger.exception("model %r can't be opened", self.name)
                return
            else:
                logger.info("model %r is ready: version %s", self.name, info.version)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def version(self, version: str | None) -> AsyncModel[Any, Any]:
        """The model of a version, opened; None is the one that the address means.

        Raises:
            ModelNotFoundError: there is no such version.
        """
        info = await self.opened()
        if version in (None, info.version):
            return self._model
        if version not in self.versions:
            known = ", ".join(self.versions) or "none that it tells"
            raise ModelNotFoundError(f"model {self.name!r} has no version {_shown(version)}; its versions: {known}")
        return self._versions.get(version or "") or await self._load(str(version))

    async def within(self, version: str | None, seconds: float | None) -> tuple[AsyncModel[Any, Any], float | None]:
        """As `version`, for a caller who waits so long; with it, the seconds that are left for his call.

        Raises:
            DeadlineExceededError: it isn't open by then.
        """
        if seconds is None or (version is None and self._info is not None):
            return await self.version(version), seconds
        end = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                model = await self.version(version)
        except TimeoutError as error:
            if isinstance(error, AiaasError):  # its own
                raise
            raise DeadlineExceededError("the model was still being opened when the caller's time was over") from None
        return model, max(end - time.monotonic(), 0.001)

    async def _load(self, version: str) -> AsyncModel[Any, Any]:
        async with self._loading:
            if (found := self._versions.get(version)) is not None:
                return found
            model = load_async(_pinned(self.address, version), **self._options)
            try:
                await model.info()
            except BaseException:
                await model.aclose()
                raise
            self._versions[version] = model
            return model

    # ------------------------------------------------------------ serving
    async def ready(self, version: str | None) -> bool:
        """Whether it can serve now. A model that isn't open yet isn't ready; nothing waits for it."""
        if self._info is None:
            return False
        return await (await self.version(version)).ready()

    def once(self, model: AsyncModel[Any, Any]) -> AsyncModel[Any, Any]:
        """The model for a caller who retries by himself: his three tries times three of ours would be nine."""
        if not self.remote:
            return model
        if model not in self._once:
            self._once[model] = model.with_options(retry=None)
        return self._once[model]

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place among the calls that wait or run.

        Raises:
            RefusedError: 503, all are taken.
        """
        if self._running >= self._queue:
            raise RefusedError(503, f"model {self.name!r} is overloaded; try again later", retry_after=PAUSE)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def close(self) -> None:
        for model in (self._model, *self._versions.values(), *self._once.values()):
            await model.aclose()


class Hosting:
    """The served models by name.

    Args:
        targets: a folder of bundles, or one bundle; an address; `name=address`.
        queue: calls of one model that may wait or run at once.
        options: those of `load`; each model is given those that its backend takes.

    Raises:
        ConfigError: two models have one name, or there is none.
        AddressError, ModelNotFoundError, ...: as `load` says; nothing is opened.
    """

    def __init__(self, targets: Targets, *, queue: int = QUEUE, options: Mapping[str, Any] | None = None) -> None:
        if isinstance(targets, str | PathLike):
            raise ConfigError("targets is one text", hint=f"Give a list: [{os.fspath(targets)!r}]")
        if queue < 1:
            raise ConfigError(f"queue is {queue}", hint="Give a whole number from 1 on")
        options = dict(options or {})
        check_options(options)
        self.models: dict[str, Hosted] = {}
        used: set[str] = set()
        for target in targets:
            for name, address in _named(os.fspath(target)):
                mine = _taken(address, options)
                used |= mine.keys()
                self._add(Hosted(name, address, mine, queue))
        if not self.models:
            raise ConfigError("there is nothing to serve", hint="Give a folder of bundles, or addresses")
        if unused := sorted(options.keys() - used):
            raise UnsupportedOperationError(f"none of the served models has a use for the option {unused[0]!r}")

    def _add(self, hosted: Hosted) -> None:
        if hosted.name in self.models:
            raise ConfigError(
                f"two models have the name {hosted.name!r}: {self.models[hosted.name].address} and {hosted.address}",
                hint=f"Give one another name: other-{hosted.name}={hosted.address}",
            )
        self.models[hosted.name] = hosted

    def named(self, name: str) -> Hosted:
        """The model of a name.

        Raises:
            ModelNotFoundError: there is none.
        """
        hosted = self.models.get(name)
        if hosted is None:
            raise ModelNotFoundError(f"there is no model {_shown(name)}")
        return hosted

    @property
    def waited_for(self) -> tuple[str, ...]:
        """The models that aren't open yet, or can't be opened."""
        return tuple(name for name, hosted in self.models.items() if hosted.info is None)

    async def open(self) -> None:
        """Open the models that are here. An endpoint may come later, and isn't waited for.

        Raises:
            AiaasError: one can't be opened.
        """
        for hosted in self.models.values():
            if not hosted.remote:
                await hosted.opened()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens in the background what isn't open yet, and closes all at the end."""
        tasks = [asyncio.ensure_future(hosted.keep_opening()) for hosted in self.models.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        for hosted in self.models.values():
            await hosted.close()


# ---------------------------------------------------------------- targets
def _named(target: str) -> Iterator[tuple[str, str]]:
    """The name and address of each model of a target."""
    path = Path(target)
    if target.strip() and path.is_dir():
        found = repository(path)
        if not found:
            raise ConfigError(f"{target} holds no model", hint="aiaas.save(module, path, example=...) writes one")
        yield from ((_checked(name), f"torch:{folder}") for name, folder in found.items())
    elif named := _NAMED.fullmatch(target):
        yield _checked(named[1]), named[2]
    else:
        yield _checked(_own_name(parse(target))), target


def _own_name(address: Address) -> str:
    """The model of an address, or the last part of its path, or else its scheme."""
    if address.model:
        return address.model
    if address.scheme == "torch":
        return Path(address.target).resolve().name
    last = address.target.rstrip("/").rpartition("/")[2]
    return last if re.fullmatch(r"(?!v\d+$)[\w.-]+", last) else address.scheme  # /v1 ends an address of OpenAI's kind


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or {"", ".", ".."} & set(name.split("/")):
        raise AddressError(f"{name[:80]!r} can't be the name of a served model", hint="Give one: NAME=ADDRESS")
    return name


def _resolved(address: str, options: Mapping[str, Any]) -> tuple[Address, tuple[Address, ...], dict[str, Any]]:
    """The address that a bare name stands for, the members of a route, and the options.

    These are the ones that the name's entry in the settings gives it, too.
    """
    found = find(address, options)
    if found.route:
        members = tuple(member.address for member in found.members)
        return Address("route", found.text, None, found.text), members, dict(options)
    member = found.members[0]
    return member.address, (), _concerning(member.address, member.options)


def _taken(address: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that mean something to the address's backend."""
    found = find(address, options)
    return dict(options) if found.route else _concerning(found.members[0].address, options)


def _concerning(address: Address, options: Mapping[str, Any]) -> dict[str, Any]:
    taken = backend_class(address.scheme, str(address)).options_taken | {"concurrency"}
    return {name: value for name, value in options.items() if name in taken or name not in ENGINE_OPTIONS}


def _pinned(address: Address, version: str) -> str:
    if address.scheme == "route":
        raise ModelNotFoundError(f"of a route only its own version is served, and {_shown(version)} is another")
    scheme = f"{address.scheme}+" if address.origin else f"{address.scheme}:"
    return f"{scheme}{address.target}@{version}"


def _shown(text: str | None) -> str:
    """A client's word in a message: one short line."""
    line = "".join(char if char.isprintable() else "?" for char in (text or "")[:80])
    return f"'{line}'"
