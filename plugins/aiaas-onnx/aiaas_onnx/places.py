"""Where the ONNX file of an address is: a file, a folder that holds one, or a version of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aiaas_sdk import bundle
from aiaas_sdk.address import Address
from aiaas_sdk.errors import AddressError, BundleError, ModelNotFoundError

__all__ = ["SUFFIX", "Place", "find"]

SUFFIX = ".onnx"


@dataclass(frozen=True, slots=True)
class Place:
    """One ONNX file, resolved once.

    Attributes:
        folder, file: where it lies.
        name: the model's.
        version, versions: of a folder with versions.
        manifest: of a bundle; it says which files there are, and their digests. located: where that lies.
    """

    folder: Path
    file: str
    name: str
    version: str | None = None
    versions: tuple[str, ...] = ()
    manifest: bundle.Manifest | None = None
    located: bundle.Located | None = None

    @property
    def path(self) -> Path:
        return self.folder / self.file


def find(address: Address) -> Place:
    """The file of an address; nothing of it is read but a bundle's manifest.

    Raises:
        AddressError: the address names no path, or a version of what has none.
        ModelNotFoundError: it isn't there. BundleError: the folder holds no ONNX model, or several.
    """
    path = Path(address.target)
    if not address.target:
        raise AddressError(f"{address} names no file", hint="Write onnx:FILE.onnx, onnx:FOLDER or onnx:FOLDER@VERSION")
    if bundle.versions(path):
        return _version(path, address.version)
    if address.version is not None and path.exists():
        raise AddressError(f"{address} names a version, and {path} is no folder of versions")
    if path.is_dir():
        return Place(path, _only(sorted(entry.name for entry in path.iterdir()), path), path.resolve().name)
    if not path.is_file():
        raise ModelNotFoundError(f"there is no {path}", hint="Give an .onnx file, or a folder with one")
    if path.suffix.lower() != SUFFIX:
        raise BundleError(f"{path} is no {SUFFIX} file", hint="A bundle of PyTorch is torch:PATH; export it first")
    real = path.resolve()  # the caller named this path; whatever else it needs must be a plain file beside it
    return Place(real.parent, real.name, path.stem)


def _version(path: Path, version: str | None) -> Place:
    found = bundle.locate(path, version)
    manifest = bundle.peek(found) if (found.folder / bundle.MANIFEST).exists() else None
    names = sorted(entry.name for entry in found.folder.iterdir()) if manifest is None else sorted(manifest.files)
    name = found.name if manifest is None else manifest.name
    return Place(
        found.folder,
        _only(names, found.folder),
        name,
        found.version,
        found.versions,
        manifest,
        None if manifest is None else found,
    )


def _only(names: list[str], folder: Path) -> str:
    models = [name for name in names if name.lower().endswith(SUFFIX)]
    if len(models) == 1:
        return models[0]
    if models:
        raise BundleError(f"{folder} holds {len(models)} ONNX models: {', '.join(models[:5])}", hint="Name one of them")
    raise BundleError(
        f"{folder} holds no {SUFFIX} file", hint="A bundle of PyTorch is torch:PATH; `aiaas export` makes ONNX of one"
    )
