"""`model.json`: what a version of a bundle is, read strictly."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from aiaas_sdk.errors import BundleError, UnsafeBundleError
from aiaas_sdk.records.model import TensorSpec

__all__ = ["BYTES", "FORMAT", "MAX_BYTES", "Architecture", "Language", "Manifest", "Tensor", "document_of", "parse"]

FORMAT = 1
BYTES = "bytes"
"""The tokenizer that needs no file: a token for each byte."""
MAX_BYTES = 1 << 20
MAX_DEPTH = 32
ARCHITECTURE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Tensor(BaseModel):
    """One input or output of the signature."""

    model_config = _STRICT

    name: str = Field(min_length=1, max_length=256)
    datatype: str
    shape: list[int] = Field(max_length=32)

    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.datatype, tuple(self.shape))


class Architecture(BaseModel):
    """A registered name and the plain arguments that its class is called with. Never an import path."""

    model_config = _STRICT

    name: str
    config: dict[str, Any] = {}


class Language(BaseModel):
    """How a model reads and writes text. `tokenizer` and `template` name files beside the manifest, or `BYTES`."""

    model_config = _STRICT

    task: Literal["generate", "embed"]
    tokenizer: str
    template: str | None = None
    context: int = Field(ge=1, le=1 << 24)
    begin: int | None = Field(default=None, ge=0, le=1 << 24)
    end: list[Annotated[int, Field(ge=0, le=1 << 24)]] = Field(default=[], max_length=64)
    sampling: dict[str, Any] = {}

    def files(self) -> list[str]:
        """The files that it names."""
        return [name for name in (self.tokenizer, self.template) if name not in (None, BYTES)]


class Manifest(BaseModel):
    """The facts of one version. `files` maps each file beside the manifest to its digest."""

    model_config = _STRICT

    format: Literal[1] = 1
    name: str = Field(min_length=1, max_length=256)
    version: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    labels: list[str] | None = None
    architecture: Architecture | None = None
    program: str | None = None
    platform: str = ""
    dtype: str = ""
    created: str = ""
    metadata: dict[str, Any] = {}
    lineage: dict[str, Any] = {}
    language: Language | None = None
    files: dict[str, str]

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, str]) -> dict[str, str]:
        for name, digest in files.items():
            if not FILE_NAME.fullmatch(name) or not DIGEST.fullmatch(digest):
                raise ValueError("files maps one plain file name to sha256: and 64 hex digits")
        return files

    @model_validator(mode="after")
    def _speaks_by_architecture(self) -> Self:
        if self.language and self.architecture is None:
            raise ValueError("language is there without an architecture")
        return self


def parse(data: bytes, where: str) -> Manifest:
    """A manifest from its bytes.

    Raises:
        BundleError: it isn't one, or another version of the package wrote it.
        UnsafeBundleError: its architecture or a file name reaches outside the bundle.
    """
    document = document_of(data, where)
    if isinstance(document.get("format"), int) and document["format"] > FORMAT:
        raise BundleError(
            f"{where} has format {document['format']}, this version reads {FORMAT}", hint="Upgrade aiaas-sdk"
        )
    _check_names(document, where)
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{where} isn't a manifest: {place}: {first['msg']}") from None


def document_of(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object that is small, flat, and has each key once. BundleError: it isn't."""
    if len(data) > MAX_BYTES:
        raise BundleError(f"{where} is larger than {MAX_BYTES} bytes")
    if _depth(data) > MAX_DEPTH:
        raise BundleError(f"{where} is nested deeper than {MAX_DEPTH}")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} isn't JSON that can be trusted: {str(error)[:100]}") from None
    if not isinstance(document, dict):
        raise BundleError(f"{where} isn't a JSON object")
    return document


def _depth(data: bytes) -> int:
    """The deepest nesting, strings' brackets counted too: an upper bound is enough here."""
    depth = deepest = 0
    for byte in data:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} isn't JSON")


def _check_names(document: dict[str, Any], where: str) -> None:
    architecture = document.get("architecture")
    name = architecture.get("name") if isinstance(architecture, dict) else None
    if isinstance(name, str) and not ARCHITECTURE_NAME.fullmatch(name):
        raise UnsafeBundleError(
            f"{where} names the architecture {name[:80]!r}, which is no registered name",
            hint="A bundle can't name code to import; register the class or hand it to load(architecture=...)",
        )
    files = document.get("files")
    for file in [*(files if isinstance(files, dict) else ()), document.get("program") or "x"]:
        if not isinstance(file, str) or not FILE_NAME.fullmatch(file):
            raise UnsafeBundleError(f"{where} names the file {str(file)[:80]!r}, which is no plain file name")
