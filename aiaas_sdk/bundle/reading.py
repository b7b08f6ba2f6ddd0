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

__all__ = ["WEIGHTS", "Bundle", "Checked", "checked", "peek", "read"]

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Checked:
    """A version whose files are what its manifest says, whatever they are; `digest` names the manifest.

    `signed_by` is whose signature is there, trusted or not.
    """

    manifest: Manifest
    files: Mapping[str, bytearray]
    digest: str
    signed_by: str | None


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


def checked(located: Located, trust: Trust, *, program: bool = True) -> Checked:
    """The files of one version, of any kind: here, for all of them, it is decided whose signature it needs.

    Args:
        program: its program, if there is one, is going to run.

    Raises:
        IntegrityError, UnsafeBundleError, BundleError: as `read` says.
    """
    manifest, data = _manifest(located)
    signed_by = _signed_by(located, data)
    if not trust.includes(signed_by):
        if program and manifest.program is not None:
            raise _untrusted(located, signed_by)
        if trust.asked:
            raise _unaccepted(located, signed_by)
    files = read_listed(located.folder, manifest.files, manifest.program)
    return Checked(manifest, files, digest_of(data), signed_by)


def read(located: Located, trust: Trust, *, program: bool = True) -> Bundle:
    """Everything of one version.

    Args:
        program: hand out the program, if there is one; False where the caller brings the class.

    Raises:
        IntegrityError: a digest or the signature doesn't match, or the one that was asked for isn't there.
            UnsafeBundleError: it could run code that nobody trusted vouched for. BundleError: it is damaged.
    """
    found = checked(located, trust, program=program)
    manifest, files = found.manifest, found.files
    if WEIGHTS not in files or (manifest.program and manifest.program not in files):
        raise BundleError(f"{located.folder}: the manifest lists no {WEIGHTS}, or not its program")
    tensors = weights.check(files[WEIGHTS], str(located.folder / WEIGHTS))
    beside = {name: content for name, content in files.items() if name not in (WEIGHTS, manifest.program)}
    absent = [name for name in (manifest.language.files() if manifest.language else ()) if name not in beside]
    if absent:
        raise BundleError(f"{located.folder}: the manifest's language names {absent[0][:80]!r}, which isn't beside it")
    code = files[manifest.program] if program and manifest.program else None
    return Bundle(
        manifest,
        files[WEIGHTS],
        code,
        found.digest,
        beside,
        numbers=sum(math.prod(shape) for _, shape in tensors.values()),
        size=sum(map(len, files.values())),
        signed_by=found.signed_by,
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


def _unaccepted(located: Located, key: str | None) -> IntegrityError:
    if key is None:
        return IntegrityError(
            f"{located.folder} isn't signed, and verify asks for a signature",
            hint=f"Fetch it again with its {SIGNATURE}, or have it saved again, which signs it",
        )
    return IntegrityError(
        f"{located.folder} is signed by {key}, whom verify doesn't name",
        hint=f"If you know the signer, name the key, too: verify=[..., {key!r}]",
    )
