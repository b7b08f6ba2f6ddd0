"""SOURCE and TARGET of `aiaas import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiaas_sdk.errors import AddressError, BackendNotInstalledError

__all__ = ["imported"]


def imported(source: Path, target: str, name: str | None) -> dict[str, Any]:
    """Import, and tell what there is now: the address, and the facts of the manifest that one looks at first."""
    path = Path(_path(target))
    located = _import_model()(source, path, name=name)
    from aiaas_sdk.bundle import peek

    manifest = peek(located)
    language = manifest.language
    return {
        "address": f"torch:{path}@{located.version}",
        "task": None if language is None else language.task,
        "dtype": manifest.dtype,
        "context": None if language is None else language.context,
        "chat": language is not None and language.template is not None,
        "bytes": sum(file.stat().st_size for file in located.folder.iterdir()),
    }


def _path(target: str) -> str:
    """A folder, or `torch:` and one."""
    from aiaas_sdk.address import parse

    address = parse(target)
    if address.scheme != "torch" or address.version is not None:
        raise AddressError(f"import writes a bundle into a folder, and {target} is none", hint=_hint(target))
    return address.target


def _hint(target: str) -> str:
    """A bare word is a name of the settings, whatever one meant."""
    return "Give a folder, such as models/small" + (
        f"; {target} here is torch:{target}" if target.isidentifier() else ""
    )


def _import_model() -> Any:
    try:
        from aiaas_sdk.backends.torch.importing import import_model
    except ModuleNotFoundError as error:
        raise BackendNotInstalledError(
            f"importing needs the package {error.name}", hint='Install it: pip install "aiaas-sdk[torch,language]"'
        ) from None
    return import_model
