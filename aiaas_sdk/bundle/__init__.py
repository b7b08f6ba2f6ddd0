"""The model on disk: manifest, weights, digests, signature, versions and aliases. Imports no torch."""

from aiaas_sdk.bundle.files import MANIFEST, SIGNATURE, digest_of
from aiaas_sdk.bundle.manifest import BYTES, Architecture, Language, Manifest, Tensor
from aiaas_sdk.bundle.reading import WEIGHTS, Bundle, Checked, checked, peek, read
from aiaas_sdk.bundle.signing import SigningKey, Trust, own_key
from aiaas_sdk.bundle.store import Located, aliases, locate, own_name, repository, set_alias, versions, write

__all__ = [
    "BYTES",
    "MANIFEST",
    "SIGNATURE",
    "WEIGHTS",
    "Architecture",
    "Bundle",
    "Checked",
    "Language",
    "Located",
    "Manifest",
    "SigningKey",
    "Tensor",
    "Trust",
    "aliases",
    "checked",
    "digest_of",
    "locate",
    "own_key",
    "own_name",
    "peek",
    "read",
    "repository",
    "set_alias",
    "versions",
    "write",
]
