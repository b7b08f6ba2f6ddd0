"""The doors: from an address and options to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from aiaas_sdk import seam
from aiaas_sdk.address import Address, parse
from aiaas_sdk.deferring import Deferred
from aiaas_sdk.engine import Engine
from aiaas_sdk.errors import (
    AddressError,
    BackendNotInstalledError,
    BundleError,
    ModelNotFoundError,
    PluginLoadError,
    UnsupportedOperationError,
)
from aiaas_sdk.finding import Found, Member, Where, find
from aiaas_sdk.flow import AsyncSender, Sender
from aiaas_sdk.model import AsyncModel, Model
from aiaas_sdk.policies import around_request
from aiaas_sdk.records.options import ENGINE_OPTIONS, Options
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.records.secret import hide
from aiaas_sdk.registry import at_hand, backend_class

if TYPE_CHECKING:
    import torch

    from aiaas_sdk.schema import Schema

__all__ = ["create", "load", "load_async", "save"]

In = TypeVar("In")
Out = TypeVar("Out")


@overload
def load(address: Where, *, input: type[In], output: type[Out], **options: Unpack[Options]) -> Model[In, Out]: ...
@overload
def load(address: Where, *, input: type[In], **options: Unpack[Options]) -> Model[In, Prediction]: ...
@overload
def load(address: Where, *, output: type[Out], **options: Unpack[Options]) -> Model[Any, Any]: ...
@overload
def load(address: Where, **options: Unpack[Options]) -> Model[Any, Any]: ...
def load(
    address: Where, *, input: type[Any] | None = None, output: type[Any] | None = None, **options: Unpack[Options]
) -> Model[Any, Any]:
    """A model from its address. No network and no weights are touched until it is opened.

    Args:
        address: `scheme:target[@version]`, a path of a bundle, or a name that aiaas.toml or the environment
            knows. A list of addresses is a route: the first that can serve answers.
        input, output: pydantic models: `predict` and `map` then take and give records of them. With `output`
            alone arrays go in, and one record a row comes out.
        options: see `Options`; what isn't given comes from the settings.

    Raises:
        AddressError, ConfigError: the address or an option is wrong.
        ModelNotFoundError: there is no such bundle.
        BackendNotInstalledError, PluginLoadError: nothing usable serves the scheme.
        UnsupportedOperationError: the backend has no use for an option.
    """
    engine, own = _engine(address, options)
    again = partial(_again, load, address, input, output)
    return Model(engine, own, around_request, again, _schema(input, output))


@overload
def load_async(
    address: Where, *, input: type[In], output: type[Out], **options: Unpack[Options]
) -> AsyncModel[In, Out]: ...
@overload
def load_async(address: Where, *, input: type[In], **options: Unpack[Options]) -> AsyncModel[In, Prediction]: ...
@overload
def load_async(address: Where, *, output: type[Out], **options: Unpack[Options]) -> AsyncModel[Any, Any]: ...
@overload
def load_async(address: Where, **options: Unpack[Options]) -> AsyncModel[Any, Any]: ...
def load_async(
    address: Where, *, input: type[Any] | None = None, output: type[Any] | None = None, **options: Unpack[Options]
) -> AsyncModel[Any, Any]:
    """The awaited twin of `load`: `async with load_async(address) as model`, or use it at once.

    A plugin that isn't imported yet is imported when the model is opened, in a thread and within the deadline; what
    is wrong with its address or options is told then.
    """
    engine, own = _engine(address, options, _serving_soon)
    again = partial(_again, load_async, address, input, output)
    return AsyncModel(engine, own, around_request, again, _schema(input, output))


def _again(
    door: Callable[..., Any],
    address: Where,
    input: type[Any] | None,
    output: type[Any] | None,
    options: Any,
    newer: Where | None = None,
) -> Any:
    return door(address if newer is None else newer, input=input, output=output, **options)


def _schema(input: type[Any] | None, output: type[Any] | None) -> Schema | None:
    if input is None and output is None:
        return None
    from aiaas_sdk.schema import Schema

    return Schema(input, output)


def _engine(address: Where, options: Any, make: seam.Make | None = None) -> tuple[Engine, Mapping[str, Any]]:
    """What a model and its views share, and the options of its calls."""
    serving, own = seam.serving(make or _serving, address, options)
    return seam.known(Engine(serving, _sender, _async_sender), address), own


def _serving(address: Where, options: Any) -> tuple[Any, Mapping[str, Any]]:
    found = find(address, options)
    return _made(found), found.options


def _serving_soon(address: Where, options: Any) -> tuple[Any, Mapping[str, Any]]:
    """As `_serving`, without an import that may take its time."""
    found = find(address, options)
    if all(at_hand(member.address.scheme) for member in found.members):
        return _made(found), found.options
    named = Address("route", found.text, None, found.text) if found.route else found.members[0].address
    return Deferred(named.scheme, named, partial(_made, found)), found.options


def _made(found: Found) -> Any:
    return _routed(found) if found.route else _backend(found.members[0])


def _backend(member: Member) -> Any:
    """The backend of one address, checked as far as that goes without network and weights."""
    cls = backend_class(member.address.scheme, str(member.address))
    taken = cls.options_taken | {"concurrency"}
    for name in sorted(ENGINE_OPTIONS & member.asked - taken):
        raise UnsupportedOperationError(
            f"{member.address} (backend {cls.scheme}) has no use for the option {name!r}",
            hint=f"It takes {', '.join(sorted(taken))} and what concerns calls",
        )
    backend = cls(member.address, {name: value for name, value in member.options.items() if name in taken})
    _check_network(backend.options.get("network"))
    backend.prepare()
    return backend


def _check_network(network: Any) -> None:
    if network is not None:
        from aiaas_sdk.transport import check

        check(network)


def _routed(found: Found) -> Any:
    """A route of the members that can be loaded; an address or option that is wrong is told all the same."""
    members, failures = [], []
    for member in found.members:
        try:
            # an option may concern some members only (`device`, say)
            members.append(_backend(replace(member, asked=frozenset())))
        except (BackendNotInstalledError, PluginLoadError, BundleError, ModelNotFoundError) as error:
            failures.append(error)
    if not members:
        if len(failures) > 1:
            told = "; ".join(error.message for error in failures[:-1])
            failures[-1].hint = f"Nothing of the route can be loaded; before it, {told}"
        raise failures[-1]
    backend = backend_class("route", found.text)(Address("route", found.text, None, found.text), {}, members)
    backend.prepare()
    return backend


def _sender() -> Sender:
    from aiaas_sdk.transport import HttpSender

    return HttpSender()


def _async_sender() -> AsyncSender:
    from aiaas_sdk.transport import AsyncHttpSender

    return AsyncHttpSender()


# ---------------------------------------------------------------- bundles
def save(
    module: torch.nn.Module,
    path: str | PathLike[str],
    *,
    example: Any,
    name: str | None = None,
    version: int | None = None,
    labels: Sequence[str] | None = None,
    architecture: str | None = None,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Write a module as the next version of the bundle at `path`, and give its address: `torch:<path>@<version>`.

    The signature is found by running the module: input names are those of forward's parameters, the first axis
    is free (-1) where the module takes any number of rows, and so are other axes of which it takes any size. What
    was written is loaded again and compared with the module before it is there.

    A module of a registered class is saved as its name and arguments; any other as an exported program, signed
    with your own key, which is made at the first save.

    Args:
        module: in any mode and on any device; it isn't changed. A program is saved from the CPU.
        path: the bundle's folder, also as torch:PATH; its last part is the name.
        example: an array, or a mapping from parameter of forward to array: one row is enough.
        name: another name than the folder's.
        version: a number that isn't there yet; None takes the next one.
        labels: the class names, in the order of the scores.
        architecture: the registered name of the module's class; None finds it by the class.
        config: the arguments of the class; None takes the module's attribute `config`, or none.
        metadata: anything plain that `info().metadata` should show.

    Raises:
        InputError: the module doesn't run on the example. BundleError: it can't be saved, or the disk refused.
        AddressError: the path is an address that isn't a folder's.
    """
    saving, folder = _saving(), _folder(path)
    located = saving(
        module,
        folder,
        example=example,
        name=name,
        version=version,
        labels=labels,
        architecture=architecture,
        config=config,
        metadata=metadata,
    )
    return f"torch:{folder}@{located.version}"


def _saving() -> Callable[..., Any]:
    try:
        from aiaas_sdk.backends.torch.saving import save as saving
    except ModuleNotFoundError as error:
        raise BackendNotInstalledError(
            f"saving needs the package {error.name}", hint='Install it: pip install "aiaas-sdk[torch]"'
        ) from None
    return saving


def _folder(path: str | PathLike[str]) -> Path:
    where = parse(path)
    if where.scheme == "name":
        return Path(path)
    if where.scheme != "torch" or where.version is not None:
        hint = "Give the path of its folder; the number of the version is version=N"
        raise AddressError(f"save writes a bundle, and {where} isn't the folder of one", hint=hint)
    return Path(where.target)


def create(  # type: ignore[misc]  # its `architecture` is a name, that of the options a class; a name wins
    address: str,
    *,
    architecture: str,
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, tuple[str, Sequence[int]]] | None = None,
    labels: Sequence[str] | None = None,
    tokenizer: str | None = None,
    seed: int | None = None,
    **options: Unpack[Options],
) -> Model[Any, Any]:
    """An untrained model of a registered architecture, saved as version 1.

    Args:
        address: `torch:PATH`, where no model is yet.
        architecture: a registered name, such as "cnn" or "mlp".
        config: arguments of its class; they go before what `inputs` and `labels` say.
        inputs: name -> (datatype, shape), with -1 for the rows and for other sizes that may differ; not needed where
            the class's own defaults do.
        labels: the class names.
        tokenizer: of a language model: the path of a tokenizer.json, or "bytes" for a token for each byte. Its size
            is the vocabulary unless `config` says another one.
        seed: makes the first weights the same each time.

    Raises:
        BundleError: there is a model already. ConfigError: the architecture doesn't take these arguments.
    """
    hide(options)
    where = parse(address)
    if where.scheme != "torch" or where.version is not None:
        raise AddressError(f"create writes a new bundle, and {address} isn't one", hint="Give torch:PATH")
    from aiaas_sdk.bundle import versions

    if found := versions(Path(where.target)):
        raise BundleError(f"{where.target} has version {found[-1]} already", hint="Load it, or choose another path")
    saving = _saving()  # says which extra is missing
    from aiaas_sdk.backends.torch.creating import untrained

    made = untrained(architecture, config=config, inputs=inputs, labels=labels, seed=seed, tokenizer=tokenizer)
    located = saving(
        made.module,
        Path(where.target),
        example=made.example,
        name=None,
        version=None,
        labels=labels,
        architecture=architecture,
        config=None,
        metadata=None,
        language=made.language,
        beside=made.beside,
        input_name=made.input_name,
    )
    return load(f"torch:{where.target}@{located.version}", **options)
