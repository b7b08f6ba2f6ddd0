"""What stands at an address, and what it can do, told by its configuration alone. Imports no transformers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiaas_sdk.address import Address
from aiaas_sdk.articles import with_article
from aiaas_sdk.errors import (
    AddressError,
    BundleError,
    ModelNotFoundError,
    UnsafeBundleError,
    UnsupportedOperationError,
)

__all__ = ["CLASSIFY", "EMBED", "GENERATE", "Place", "facts_of", "find"]

GENERATE, EMBED, CLASSIFY = "generate", "embed", "classify"
LARGEST = 1 << 26
"""Bytes of a file with settings."""
IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
"""Settings that may name code on the hub."""


@dataclass(frozen=True, slots=True)
class Place:
    """A model on this machine.

    Attributes:
        folder: that it lies in.
        gguf: the file's name, where it is one.
        task: GENERATE, EMBED or CLASSIFY.
        config: config.json, parsed; empty for a GGUF file.
    """

    folder: Path
    gguf: str | None
    task: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder if self.gguf is None else self.folder / self.gguf

    @property
    def name(self) -> str:
        return self.folder.resolve().name if self.gguf is None else Path(self.gguf).stem


def find(address: Address) -> Place:
    """The model at an address; no weights are read.

    Raises:
        AddressError: it names no path, or a version. ModelNotFoundError: nothing is there.
        BundleError: it holds no model. UnsafeBundleError: running it could run code of others.
        UnsupportedOperationError: it is for something else than texts.
    """
    path = Path(address.target)
    if not address.target or address.version is not None:
        raise AddressError(f"{address} names no folder and no file", hint="Write hf:FOLDER or hf:FILE.gguf")
    if os.path.isfile(path):  # unlike Path's, it says no to what can't be a path
        if path.suffix.lower() != ".gguf":
            raise BundleError(f"{path} is no .gguf file", hint="Of a Hugging Face model, name the folder")
        return Place(path.parent, path.name, GENERATE)
    if not os.path.isdir(path):
        raise ModelNotFoundError(
            f"there is no {path}", hint="hf: reads folders on this machine; download the model first"
        )
    config = facts_of(path / "config.json")
    if not config:
        raise BundleError(f"{path} holds no config.json", hint="A folder as the Hugging Face hub has it holds one")
    _check_no_code(config, path)
    return Place(path, None, _task(config, path), config)


def facts_of(path: Path) -> Mapping[str, Any]:
    """A file of settings; empty where it isn't there."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise BundleError(f"{path} is no plain file")
    try:
        if path.stat().st_size > LARGEST:
            raise BundleError(f"{path} is larger than {LARGEST} bytes")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise BundleError(f"{path} isn't JSON") from None
    if not isinstance(found, dict):
        raise BundleError(f"{path} isn't a JSON object")
    return found


# ---------------------------------------------------------------- no code of others
def _check_no_code(config: Mapping[str, Any], folder: Path) -> None:
    """Code in the folder itself isn't run by transformers unless it is told to; what else could bring some is here."""
    if (folder / "adapter_config.json").exists():
        raise UnsupportedOperationError(
            f"{folder} holds an adapter, which names another model by itself", hint="Merge it into its model first"
        )
    for key, value in _entries(config):
        if any(key.lstrip("_").startswith(name) for name in IMPLEMENTATIONS) and "/" in str(value):
            raise UnsafeBundleError(f"{folder} wants code from the hub: its config.json has {key} {str(value)[:80]!r}")
    weights = [*folder.glob("*.safetensors")]
    if strange := [path for path in weights if not path.is_file()]:
        raise BundleError(f"{strange[0]} is no plain file")
    if not weights:
        raise BundleError(
            f"{folder} holds no *.safetensors",
            hint="Pickled weights (.bin, .pt) are code and aren't read; convert them first",
        )


def _entries(config: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(config, list):
        for value in config:
            yield from _entries(value)


# ---------------------------------------------------------------- what it is for
def _task(config: Mapping[str, Any], folder: Path) -> str:
    if (folder / "modules.json").exists():  # sentence-transformers
        return EMBED
    names = config.get("architectures") or ["none"]
    name = str(names[0])
    if name.endswith("ForSequenceClassification"):
        return CLASSIFY
    if name.endswith(("ForCausalLM", "LMHeadModel")) or (
        config.get("is_encoder_decoder") and name.endswith("ForConditionalGeneration")
    ):
        return GENERATE
    if name.endswith(("Model", "ForMaskedLM")):
        return EMBED
    raise UnsupportedOperationError(
        f"{folder} holds {with_article(name[:80])}, which neither speaks, nor embeds, nor classifies texts",
        hint="ForCausalLM, ForConditionalGeneration, ForSequenceClassification and encoders do",
    )
