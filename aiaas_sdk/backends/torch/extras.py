"""Packages that only language models need, and what is said where one isn't installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from aiaas_sdk.errors import BackendNotInstalledError

__all__ = ["needed"]


def needed(package: str, extra: str = "language") -> Any:
    """The package. BackendNotInstalledError names the extra that brings it."""
    try:
        return import_module(package)
    except ModuleNotFoundError:
        raise BackendNotInstalledError(
            f"this model needs the package {package}", hint=f'Install it: pip install "aiaas-sdk[{extra}]"'
        ) from None
