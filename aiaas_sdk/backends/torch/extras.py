"""Packages that only language models need, and what is said where one isn't installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiaas_sdk.errors import BackendNotInstalledError

__all__ = ["brought_by"]


@contextmanager
def brought_by(extra: str) -> Iterator[None]:
    """For the imports of a `with` block: BackendNotInstalledError names the extra where a package isn't there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise BackendNotInstalledError(
            f"this model needs the package {error.name}", hint=f'Install it: pip install "aiaas-sdk[{extra}]"'
        ) from None
