"""The models that a server has, by name and version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from aiaas_sdk.address import parse
from aiaas_sdk.api import load_async
from aiaas_sdk.bundle import repository
from aiaas_sdk.errors import (
    AiaasError,
    ConfigError,
    ConnectError,
    DeadlineExceededError,
    ModelNotFoundError,
    UnavailableError,
)
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.records.model import ModelInfo

__all__ = ["Hosted", "Hosting"]

logger = logging.getLogger("aiaas_sdk.server")
ABSENT = (ConnectError, DeadlineExceededError, UnavailableError)
"""Failures to open that may pass: a server before remote models starts all the same."""


@dataclass(slots=True)
class Hosted:
    """One name: its address, its model, and the other versions that somebody has asked for."""

    name: str
    address: str
    model: AsyncModel[Any, Any]
    pinned: dict[str, AsyncModel[Any, Any]] = field(default_factory=dict)
    guard: asyncio.Lock = field(default_factory=asyncio.Lock)


class Hosting:
    """What a server serves.

    Args:
        targets: a folder (a bundle, or a repository of bundles), an address, a name of the settings, or
            NAME=ADDRESS.

    Raises:
        ConfigError: two models have one name, or there is none.
        AiaasError: whatever `load` says of an address.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        self._hosted: dict[str, Hosted] = {}
        for target in targets:
            for name, address in _named(target).items():
                if name in self._hosted:
                    raise ConfigError(f"two models have the name {name!r}", hint="Give one another: NAME=ADDRESS")
                self._hosted[name] = Hosted(name, address, load_async(address))
        if not self._hosted:
            raise ConfigError("there is no model to serve", hint="Give a folder of bundles, an address or NAME=ADDRESS")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._hosted)

    async def open(self) -> None:
        """Open every model. One whose peer can't be reached yet is tried again when it is asked for."""
        for hosted in self._hosted.values():
            try:
                await hosted.model.info()
            except ABSENT as error:
                logger.warning("%s isn't there yet: %s", hosted.name, error)

    async def close(self) -> None:
        for hosted in self._hosted.values():
            for model in (hosted.model, *hosted.pinned.values()):
                await model.aclose()

    async def find(self, name: str, version: str | None = None) -> tuple[AsyncModel[Any, Any], ModelInfo]:
        """A model and what it is.

        Raises:
            ModelNotFoundError: nobody has the name, or it hasn't the version.
        """
        hosted = self._hosted.get(name)
        if hosted is None:
            raise ModelNotFoundError(f"there is no model {name[:80]!r} here")
        info = await hosted.model.info()
        if version in (None, info.version):
            return hosted.model, info
        assert version is not None
        if version not in _versions(info, hosted.address):
            raise ModelNotFoundError(f"{name} has no version {version[:40]!r}")
        model = await self._pinned(hosted, version)
        return model, await model.info()

    async def _pinned(self, hosted: Hosted, version: str) -> AsyncModel[Any, Any]:
        async with hosted.guard:
            if version not in hosted.pinned:
                hosted.pinned[version] = load_async(f"{hosted.address}@{version}")
            return hosted.pinned[version]

    async def ready(self, name: str | None = None, version: str | None = None) -> bool:
        """Whether one model, or every one, can serve now."""
        try:
            for each in [name] if name is not None else self._hosted:
                model, _ = await self.find(each, version)
                if not await model.ready():
                    return False
        except ModelNotFoundError:
            if name is not None:
                raise
            return False
        except AiaasError:
            return False
        return True

    async def index(self) -> list[Mapping[str, Any]]:
        """Each version of each model, as the model repository extension lists them."""
        found: list[Mapping[str, Any]] = []
        for hosted in self._hosted.values():
            try:
                info = await hosted.model.info()
            except AiaasError as error:
                found.append({"name": hosted.name, "state": "UNAVAILABLE", "reason": type(error).__name__})
                continue
            for version in _versions(info, hosted.address) or (None,):
                entry = {"name": hosted.name, "version": version, "state": "READY"}
                found.append({key: value for key, value in entry.items() if value is not None})
        return found


def _versions(info: ModelInfo, address: str) -> tuple[str, ...]:
    """The versions that are served: all, or the one that the operator pinned."""
    if parse(address).version is not None:
        return (info.version,) if info.version else ()
    return info.versions


def _named(target: str) -> dict[str, str]:
    """Name and address of each model behind a target."""
    name, mark, address = target.partition("=")
    if mark and not _is_address(name):
        if not name or "/" in name:
            raise ConfigError(f"{target!r}: {name!r} can't be a name", hint="Write NAME=ADDRESS, without / in NAME")
        return {name: address}
    if Path(target).is_dir():
        bundles = repository(Path(target))
        if not bundles:
            raise ModelNotFoundError(
                f"{target} holds no bundle", hint="A repository has NAME/VERSION/model.json; aiaas.save writes it"
            )
        return {name: f"torch:{path}" for name, path in bundles.items()}
    found = parse(target)
    last = PurePosixPath(found.target.partition("?")[0].rstrip("/")).name
    return {found.model or last or found.scheme: target}


def _is_address(text: str) -> bool:
    """What stands before the first = belongs to the address itself, as in echo:?x=FP32[-1]."""
    return ":" in text or "/" in text or "?" in text
