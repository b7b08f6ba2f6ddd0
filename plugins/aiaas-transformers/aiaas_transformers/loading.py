"""transformers itself, imported here alone: models and tokenizers from this machine, without code and pickles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from aiaas_sdk.errors import AiaasError, BackendNotInstalledError, BundleError, ConfigError
from aiaas_transformers import places

__all__ = ["device_of", "model_of", "settle", "tokenizer_of", "transformers"]

_AUTO = {
    places.EMBED: "AutoModel",
    places.CLASSIFY: "AutoModelForSequenceClassification",
    places.GENERATE: "AutoModelForCausalLM",
}

_process = os.getpid()


def settle() -> None:
    """In a forked child the threads of PyTorch are gone, and it would wait for them for ever: one does all there."""
    global _process
    if _process != os.getpid():
        torch.set_num_threads(1)
        _process = os.getpid()


def device_of(wanted: str | None) -> torch.device:
    """CUDA where there is one, unless another device is asked for. ConfigError where it isn't there."""
    device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f"device is {device}, and this machine has no such GPU", hint='Give device="cpu"')
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is mps, and this machine has none", hint='Give device="cpu"')
    return device


def model_of(place: places.Place, device: torch.device, dtype: str | None) -> Any:
    """The module, in eval mode. Its dtype is the file's own unless another is given; of a GGUF file float32.

    Raises:
        BundleError: it can't be read. BackendNotInstalledError: reading it needs another package.
    """
    auto = _AUTO[place.task]
    if place.task == places.GENERATE and place.config.get("is_encoder_decoder"):
        auto = "AutoModelForSeq2SeqLM"
    given: Any = getattr(torch, dtype) if dtype else "auto" if place.gguf is None else torch.float32
    with _reading(place):
        model, told = getattr(transformers, auto).from_pretrained(
            place.folder.resolve(),
            dtype=given,
            use_safetensors=None if place.gguf else True,
            output_loading_info=True,
            **_source(place),
        )
    # transformers would draw what is missing at random, and note it in its log
    missing = sorted(key for key in told["missing_keys"] if not _unused(key, place.task))
    if missing:
        raise BundleError(f"{place.path} lacks {len(missing)} of its weights, {missing[0]!r} among them")
    return model.to(device).eval().requires_grad_(False)


def _unused(key: str, task: str) -> bool:
    """An encoder's pooler is often left out: its vectors aren't what it gives."""
    return task == places.EMBED and "pooler" in key.split(".")


def tokenizer_of(place: places.Place) -> Any:
    """The tokenizer, one of the library `tokenizers`; raises as `model_of`."""
    with _reading(place):
        found = transformers.AutoTokenizer.from_pretrained(place.folder.resolve(), use_fast=True, **_source(place))
    if not found.is_fast:
        raise BundleError(f"{place.path} has a tokenizer that isn't in tokenizer.json", hint="Save its fast form there")
    return found


def _source(place: places.Place) -> dict[str, Any]:
    found: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    return found if place.gguf is None else {**found, "gguf_file": place.gguf}


@contextmanager
def _reading(place: places.Place) -> Iterator[None]:
    """Its errors in our words, and nothing of its bars and notes on the terminal."""
    log: Any = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    except AiaasError:
        raise
    except ImportError as error:
        raise BackendNotInstalledError(
            f"reading {place.path} needs a package that isn't there: {_first_line(error)}",
            hint='For GGUF files: pip install "aiaas-transformers[gguf]"' if place.gguf else None,
        ) from error
    except Exception as error:
        raise BundleError(
            f"transformers {transformers.__version__} can't read {place.path}: {type(error).__name__}: "
            f"{_first_line(error)}",
            hint=_hint(error),
        ) from error
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _hint(error: Exception) -> str | None:
    if "trust_remote_code" in str(error):
        return "Its architecture is code in its folder, and no code of a model is run here"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
