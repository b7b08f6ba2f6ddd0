"""The served models by name: from targets to models, opened once, other versions on demand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import AiaasError, ConfigError, ModelNotFoundError, UnsupportedOperationError
from aiaas_sdk.finding import check_options
from aiaas_sdk.server.hosted import Hosted
from aiaas_sdk.server.ledger import Ledger
from aiaas_sdk.server.memory import Memory
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.serving import Serving
from aiaas_sdk.server.targets import Targets, checked, named, newcomers, repository_of, shown, taken
from aiaas_sdk.server.visits import visited
from aiaas_sdk.server.watching import watch

__all__ = ["Hosted", "Hosting", "Targets"]

logger = logging.getLogger("aiaas_sdk.server")

_AT_ONCE = 4
"""Models that are opened at once at the start."""


class Hosting:
    """The served models by name.

    Args:
        targets: a folder of bundles, or one bundle; an address; `name=address`.
        serving: the server's options.
        options: those of `load`; each model is given those that its backend takes.

    Attributes:
        models: by name; a folder's new ones come in while the server runs.
        memory: what those that are here take of it.
        ledger: what is counted of all of them.

    Raises:
        ConfigError: two models have one name, or there is none.
        AddressError, ModelNotFoundError, ...: as `load` says; nothing is opened.
    """

    def __init__(
        self, targets: Targets, serving: Serving | None = None, *, options: Mapping[str, Any] | None = None
    ) -> None:
        if isinstance(targets, str | PathLike):
            raise ConfigError("targets is one text", hint=f"Give a list: [{os.fspath(targets)!r}]")
        self._serving = serving or Serving()
        self._options = dict(options or {})
        check_options(self._options)
        self.models: dict[str, Hosted] = {}
        self.memory = Memory(self._serving.memory)
        self.ledger = Ledger()
        self._repositories: list[Path] = []
        self._refused: dict[str, str] = {}
        used: set[str] = set()
        for one in targets:
            if not isinstance(one, str | PathLike):
                raise ConfigError(f"a target is {kind_of(one)}", hint="Give addresses, or folders of bundles")
            target = os.fspath(one)
            for name, address in named(target):
                mine = taken(address, self._options)
                used |= mine.keys()
                self._add(Hosted(name, address, mine, self._serving, self.memory))
            if (folder := repository_of(target)) is not None:
                self._repositories.append(folder)
        if not self.models:
            raise ConfigError("there is nothing to serve", hint="Give a folder of bundles, or addresses")
        if unused := sorted(self._options.keys() - used):
            raise UnsupportedOperationError(f"none of the served models has a use for the option {unused[0]!r}")

    def _add(self, hosted: Hosted) -> None:
        if hosted.name in self.models:
            raise ConfigError(
                f"two models have the name {hosted.name!r}: {self.models[hosted.name].address} and {hosted.address}",
                hint=f"Give one another name: other-{hosted.name}={hosted.address}",
            )
        hosted.check()
        self._let_in(hosted)

    def _let_in(self, hosted: Hosted) -> None:
        hosted.statistics.ledger = self.ledger
        self.models[hosted.name] = hosted

    def named(self, name: str) -> Hosted:
        """The model of a name.

        Raises:
            ModelNotFoundError: there is none.
        """
        visited(name)  # for the metrics and the access log
        hosted = self.models.get(name)
        if hosted is None or not caller().may_use(name):
            raise ModelNotFoundError(f"there is no model {shown(name)}")
        return hosted

    @property
    def allowed(self) -> dict[str, Hosted]:
        """The models that who asks may use: the others aren't there for him."""
        asks = caller()
        return {name: hosted for name, hosted in self.models.items() if asks.may_use(name)}

    @property
    def waited_for(self) -> tuple[str, ...]:
        """The models that aren't open yet, can't be opened, or have died."""
        return tuple(name for name, hosted in self.models.items() if hosted.waited_for)

    async def open(self) -> None:
        """Open the models that are here, some at once. An endpoint may come later, and isn't waited for.

        Raises:
            AiaasError: one can't be opened.
        """
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(hosted: Hosted) -> None:
            async with gate:
                await hosted.opened()

        tasks = [asyncio.ensure_future(one(hosted)) for hosted in self.models.values() if not hosted.remote]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens in the background what isn't open yet, looks for what is new, and closes all at the end."""
        tasks = [asyncio.ensure_future(hosted.keep_opening()) for hosted in self.models.values()]
        if self._serving.watch is not None:
            tasks.append(asyncio.ensure_future(watch(self.look, self._serving.watch)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    # ------------------------------------------------------------ updates
    async def look(self) -> None:
        """Look for new models in the folders of bundles, and for new versions of all; serve them."""
        await self._look_for_new()
        await asyncio.gather(*(hosted.look() for hosted in self.models.values()))

    async def _look_for_new(self) -> None:
        for folder in self._repositories:
            for name, address in await asyncio.to_thread(newcomers, folder, frozenset(self.models)):
                self._take_in(name, address)

    def _take_in(self, name: str, address: str) -> None:
        if name in self.models:  # another look was quicker
            return
        try:
            mine = taken(address, self._options)
            self._let_in(Hosted(checked(name), address, mine, self._serving, self.memory, late=True))
        except AiaasError as error:
            if self._refused.get(name) != str(error):
                self._refused[name] = str(error)
                logger.error("the new model %r can't be served: %s", name, error)
        else:
            logger.info("there is a new model %r", name)

    async def found(self, name: str) -> Hosted:
        """The model of a name; one that isn't known is looked for in the folders of bundles, and isn't opened yet.

        Raises:
            ModelNotFoundError: there is none, or none that whoever asks now may use.
        """
        if name not in self.models:
            await self._look_for_new()
        return self.named(name)

    async def close(self) -> None:
        for hosted in self.models.values():
            await hosted.close()
