"""From a `torch.nn.Module` to the next version of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aiaas_sdk import bundle
from aiaas_sdk.architectures import class_of, name_of
from aiaas_sdk.articles import kind_of
from aiaas_sdk.backends.torch import programs, weights
from aiaas_sdk.backends.torch.layout import with_channels_last
from aiaas_sdk.backends.torch.probing import Probed, named_inputs, named_outputs, probe, resized
from aiaas_sdk.backends.torch.rebuilding import rebuild
from aiaas_sdk.errors import BundleError, ConfigError, InputError
from aiaas_sdk.records.model import TensorSpec

__all__ = ["Facts", "save", "write"]

SIZES = (1, 2, 17)
"""Sizes of every free axis at which what was saved is compared with the module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the manifest says besides the number of the version."""

    name: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    dtype: str
    labels: Sequence[str] | None = None
    architecture: bundle.Architecture | None = None
    language: bundle.Language | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)


def save(
    module: torch.nn.Module,
    path: Path,
    *,
    example: Any,
    name: str | None,
    version: int | None,
    labels: Sequence[str] | None,
    architecture: str | None,
    config: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    lineage: Mapping[str, Any] | None = None,
    language: bundle.Language | None = None,
    beside: Mapping[str, bytes] | None = None,
    input_name: str | None = None,
) -> bundle.Located:
    """Write the module as a version, as `aiaas_sdk.save` documents it.

    Args:
        beside: the files that `language` names.
        input_name: what an only input is called; None for the name of forward's parameter.
    """
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"save takes a torch.nn.Module, not {kind_of(module)}")
    with _evaluating(module), torch.no_grad():
        example = named_inputs(module, example)
        if input_name is not None:
            example = dict(zip((input_name,), example.values(), strict=True))
        run = partial(_run, module, labels)
        probed = probe(run, _on(example, torch.device("cpu")))
        state = {key: value.detach() for key, value in module.state_dict().items()}
        files: dict[str, bytes] = {bundle.WEIGHTS: weights.to_bytes(state)}
        chosen = architecture or name_of(type(module))
        described = None
        if chosen is None:
            if config is not None:
                raise ConfigError("config is given without an architecture", hint="Give architecture=NAME too")
            files[programs.PROGRAM] = _program(module, probed, run)
        else:
            described = bundle.Architecture(name=chosen, config=_config(module, config))
            _check_rebuilt(described, files[bundle.WEIGHTS], weights.dtype_of(state), probed, run, labels)
        _check_labels(labels, probed)
    facts = Facts(
        name=name or bundle.own_name(path),
        inputs=probed.input_specs(),
        outputs=probed.output_specs(),
        dtype=weights.dtype_of(state),
        labels=labels,
        architecture=described,
        language=language,
        metadata=metadata or {},
        lineage=lineage or {},
    )
    return write(path, {**files, **(beside or {})}, facts, version)


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """In eval mode for a while; each part's own mode comes back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _on(example: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in example.items()}


def _run(
    module: torch.nn.Module, labels: Sequence[str] | None, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    given = _on(inputs, device)
    answer = programs.call(module, list(given), list(given.values()))
    return _on(named_outputs(answer, labels), torch.device("cpu"))


def _check_labels(labels: Sequence[str] | None, probed: Probed) -> None:
    if labels is None:
        return
    if len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
        raise ConfigError("labels are texts that differ from one another", hint="Numbers become texts by map(str, ...)")
    if not any(shape and shape[-1] == len(labels) for _, shape in probed.shapes.values()):
        sizes = ", ".join(f"{name} {list(shape)}" for name, (_, shape) in probed.shapes.items())
        raise ConfigError(f"{len(labels)} labels, and no output's last axis has that size: {sizes}")


# ---------------------------------------------------------------- the two forms
def _config(module: torch.nn.Module, config: Mapping[str, Any] | None) -> dict[str, Any]:
    if config is not None:
        return dict(config)
    own = getattr(module, "config", None)
    return dict(own) if isinstance(own, Mapping) else {}


def _check_rebuilt(
    described: bundle.Architecture,
    data: bytes,
    dtype: str,
    probed: Probed,
    run: Callable[..., dict[str, torch.Tensor]],
    labels: Sequence[str] | None,
) -> None:
    """What load will make gives the same answers."""
    state = weights.from_bytes(bytearray(data))
    try:
        again = rebuild(
            class_of(described.name), described.config, state, "" if "+" in dtype else dtype, described.name
        )
    except BundleError as error:
        hint = "Give config= with the arguments of the class, or keep them in the module's attribute `config`"
        raise BundleError(error.message, hint=error.hint or hint) from error.__cause__
    _compare(partial(_run, again, labels), run, probed, described.name)


def _program(module: torch.nn.Module, probed: Probed, run: Callable[..., dict[str, torch.Tensor]]) -> bytes:
    state = {key: value.detach().cpu() for key, value in module.state_dict().items()}
    devices = {value.device.type for value in module.state_dict().values()}
    if devices - {"cpu"}:
        raise InputError(
            f"the module is on {', '.join(sorted(devices))}", hint="Save it from the CPU: module.cpu(); load moves it"
        )
    data = programs.to_bytes(programs.export(module, probed))
    forward = programs.flat(with_channels_last(programs.restore(data, state, type(module).__name__)))

    def again(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(zip(probed.outputs, forward(*inputs.values()), strict=True))

    _compare(again, run, probed, type(module).__name__)
    return data


def _compare(
    again: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]],
    run: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]],
    probed: Probed,
    what: str,
) -> None:
    """The saved form against the module, at several sizes of the free axes; a size that the module refuses is left."""
    for size in SIZES:
        inputs = resized(probed.example, dict.fromkeys(probed.free, size)) if probed.free else probed.example
        try:
            wanted = run(inputs)
        except Exception:
            continue
        try:
            given = again(inputs)
        except Exception as error:
            raise BundleError(
                f"{what}: what was saved fails at size {size} of its free axes ({type(error).__name__}: {error})"
            ) from error
        for name, tensor in wanted.items():
            if not torch.allclose(given[name].double(), tensor.double(), rtol=1e-4, atol=1e-5, equal_nan=True):
                raise BundleError(
                    f"{what}: what was saved answers {name!r} otherwise than the module",
                    hint="Does forward depend on something that isn't an input, a parameter or a buffer",
                )


# ---------------------------------------------------------------- files
def write(path: Path, data: Mapping[str, bytes], facts: Facts, version: int | None = None) -> bundle.Located:
    """The files and their manifest, signed, as the next version, or that of the number."""
    return bundle.write(path, partial(_files, data, facts), version)


def _files(data: Mapping[str, bytes], facts: Facts, version: str) -> dict[str, bytes]:
    manifest = bundle.Manifest(
        name=facts.name,
        version=version,
        inputs=[_entry(spec) for spec in facts.inputs],
        outputs=[_entry(spec) for spec in facts.outputs],
        labels=None if facts.labels is None else list(facts.labels),
        architecture=facts.architecture,
        program=programs.PROGRAM if programs.PROGRAM in data else None,
        platform="pytorch_exported" if programs.PROGRAM in data else "pytorch_module",
        dtype=facts.dtype,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        metadata=dict(facts.metadata),
        lineage={"torch": torch.__version__, **facts.lineage},
        language=facts.language,
        files={name: bundle.digest_of(content) for name, content in data.items()},
    )
    text = manifest.model_dump_json(indent=1).encode()
    return {**data, bundle.MANIFEST: text, bundle.SIGNATURE: bundle.own_key().sign(text)}


def _entry(spec: TensorSpec) -> bundle.Tensor:
    return bundle.Tensor(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))
