"""A version of a bundle, read and checked: nothing in it has run, and nothing was trusted unseen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiaas_sdk.bundle import weights
from aiaas_sdk.bundle.files import MANIFEST, SIGNATURE, digest_of, read_file, read_listed
from aiaas_sdk.bundle.manifest import MAX_BYTES, Manifest, parse
from aiaas_sdk.bundle.signing import Trust, signer
from aiaas_sdk.bundle.store import Located
from aiaas_sdk.errors import BundleError, IntegrityError, UnsafeBundleError

__all__ = ["WEIGHTS", "Bundle", "peek", "read"]

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked version. `program` is there only if a trusted key signed it; `digest` names the manifest.

    `beside` is what else the manifest lists: tokenizer and chat template. `numbers` is how many the weights are, `size`
    the bytes of all files, `signed_by` whose signature is there, trusted or not.
    """

    manifest: Manifest
    weights: bytearray
    program: bytearray | None
    digest: str
    beside: Mapping[str, bytearray] = field(default_factory=dict)
    numbers: int = 0
    size: int = 0
    signed_by: str | None = None


def peek(located: Located) -> Manifest:
    """The manifest alone; no weights are read."""
    return _manifest(located)[0]


def _manifest(located: Located) -> tuple[Manifest, bytes]:
    data = bytes(read_file(located.folder, MANIFEST, MAX_BYTES))
    manifest = parse(data, str(located.folder / MANIFEST))
    if manifest.version != located.version:
        raise IntegrityError(f"{located.folder} says that it is version {manifest.version}")
    return manifest, data


def read(located: Located, trust: Trust, *, program: bool = True) -> Bundle:
    """Everything of one version.

    Args:
        program: hand out the program, if there is one; False where the caller brings the class.

    Raises:
        IntegrityError: a digest or the signature doesn't match. UnsafeBundleError: it could run code that
            nobody trusted vouched for. BundleError: it is damaged.
    """
    manifest, data = _manifest(located)
    wanted = manifest.program is not None and program
    signed_by = _signed_by(located, data)
    if wanted and signed_by not in trust.keys:
        raise _untrusted(located, signed_by)
    files = read_listed(located.folder, manifest.files, manifest.program)
    if WEIGHTS not in files or (manifest.program and manifest.program not in files):
        raise BundleError(f"{located.folder}: the manifest lists no {WEIGHTS}, or not its program")
    tensors = weights.check(files[WEIGHTS], str(located.folder / WEIGHTS))
    beside = {name: content for name, content in files.items() if name not in (WEIGHTS, manifest.program)}
    absent = [name for name in (manifest.language.files() if manifest.language else ()) if name not in beside]
    if absent:
        raise BundleError(f"{located.folder}: the manifest's language names {absent[0][:80]!r}, which isn't beside it")
    code = files[manifest.program] if wanted and manifest.program else None
    return Bundle(
        manifest,
        files[WEIGHTS],
        code,
        digest_of(data),
        beside,
        numbers=sum(math.prod(shape) for _, shape in tensors.values()),
        size=sum(map(len, files.values())),
        signed_by=signed_by,
    )


def _signed_by(located: Located, manifest: bytes) -> str | None:
    if not (located.folder / SIGNATURE).exists() and not (located.folder / SIGNATURE).is_symlink():
        return None
    return signer(manifest, bytes(read_file(located.folder, SIGNATURE, 4096)), str(located.folder))


def _untrusted(located: Located, key: str | None) -> UnsafeBundleError:
    if key is None:
        return UnsafeBundleError(
            f"{located.folder} holds a program, which is code, and nobody signed it",
            hint="Ask for a signed bundle, or hand its class to load(architecture=...)",
        )
    return UnsafeBundleError(
        f"{located.folder} holds a program, which is code, signed by {key}, whom you don't trust",
        hint=f"If you know the signer: load(..., verify=[{key!r}])",
    )
