"""What a model says of itself."""

from __future__ import annotations

import json
import pickle
import sys
import threading
from functools import cache
from typing import Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import DATATYPES
from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check

VERBS = frozenset(("predict", "generate", "stream", "embed", "explain", "fit"))


def specs_of(info: ModelInfo) -> tuple[TensorSpec, ...]:
    return (*info.inputs, *info.outputs)


@check()
def info_has_a_name(bench: Bench) -> None:
    """The model has a name."""
    name = bench.info.name
    agree(type(name) is str and bool(name.strip()), f"info().name is {name!r}")


@check()
def info_is_the_same_again(bench: Bench) -> None:
    """A model that is opened anew says the same of itself."""
    again = bench.fresh().info()
    differing = [name for name in ModelInfo.__dataclass_fields__ if getattr(again, name) != getattr(bench.info, name)]
    agree(not differing, f"opened anew, it says something else as {', '.join(differing)}")


@check()
def info_knows_its_verbs(bench: Bench) -> None:
    """`verbs` is a frozenset of verbs that there are, and isn't empty."""
    verbs = bench.info.verbs
    agree(isinstance(verbs, frozenset), f"info().verbs is {kind_of(verbs)}; it is a frozenset")
    agree(bool(verbs), "info().verbs is empty; give it verbs=self.verbs()")
    agree(verbs <= VERBS, f"info().verbs holds {', '.join(sorted(map(str, verbs - VERBS)))}, which is no verb")


@check()
def info_has_known_datatypes(bench: Bench) -> None:
    """Inputs and outputs are TensorSpecs of the Open Inference Protocol's datatypes."""
    for spec in specs_of(bench.info):
        agree(isinstance(spec, TensorSpec), f"{spec!r} is no TensorSpec")
        agree(spec.datatype in DATATYPES, f"{spec.name!r} has the datatype {spec.datatype!r}; known: {list(DATATYPES)}")


@check()
def info_has_possible_shapes(bench: Bench) -> None:
    """Shapes are tuples of sizes, with -1 for any."""
    for spec in specs_of(bench.info):
        possible = type(spec.shape) is tuple and all(type(size) is int and size >= -1 for size in spec.shape)
        agree(possible, f"{spec.name!r} has the shape {spec.shape!r}; give a tuple of whole numbers from -1 on")


@check()
def info_names_each_tensor_once(bench: Bench) -> None:
    """No two inputs have one name, and no two outputs."""
    for kind, specs in (("inputs", bench.info.inputs), ("outputs", bench.info.outputs)):
        names = [spec.name for spec in specs]
        agree(len(set(names)) == len(names) and all(names), f"the {kind} are called {names}")


@check()
def info_has_both_sides(bench: Bench) -> None:
    """A model that announces inputs announces outputs, and the reverse."""
    told = f"{len(bench.info.inputs)} inputs and {len(bench.info.outputs)} outputs are announced"
    agree(bool(bench.info.inputs) == bool(bench.info.outputs), told)


@check()
def info_knows_its_version(bench: Bench) -> None:
    """The version is text or None, and one of `versions`."""
    info = bench.info
    agree(info.version is None or type(info.version) is str, f"info().version is {info.version!r}")
    agree(type(info.versions) is tuple, f"info().versions is {info.versions!r}; it is a tuple")
    there = info.version is None or not info.versions or info.version in info.versions
    agree(there, f"info().version is {info.version!r}, and info().versions are {info.versions!r}")


@check()
def info_has_fitting_labels(bench: Bench) -> None:
    """Labels are a tuple of texts, as many as some output's last axis is long."""
    labels = bench.info.labels
    if labels is None:
        return
    agree(type(labels) is tuple and all(type(one) is str for one in labels), "info().labels is no tuple of texts")
    lengths = [spec.shape[-1] for spec in bench.info.outputs if spec.shape]
    fits = not bench.info.outputs or bool({len(labels), -1} & set(lengths))
    agree(fits, f"there are {len(labels)} labels, and the last axes of the outputs are {lengths}")


@check()
def info_says_where_it_runs(bench: Bench) -> None:
    """`platform` is text, and `device` text or None."""
    info = bench.info
    agree(type(info.platform) is str, f"info().platform is {info.platform!r}")
    agree(info.device is None or type(info.device) is str, f"info().device is {info.device!r}")


@check()
def info_has_plain_metadata(bench: Bench) -> None:
    """`metadata` is a mapping that JSON can hold."""
    try:
        json.dumps(dict(bench.info.metadata))
    except (TypeError, ValueError) as error:
        agree(False, f"info().metadata can't be written as JSON: {error}")


@check()
def info_can_be_pickled(bench: Bench) -> None:
    """What the model says of itself can be sent to another process."""
    try:
        again = pickle.loads(pickle.dumps(bench.info))
    except Exception as error:
        agree(False, f"info() can't be pickled: {error}")
    else:
        agree(again == bench.info, "info() comes out of pickle as something else")


@check()
def an_open_model_is_ready(bench: Bench) -> None:
    """`ready()` is True for a model that serves."""
    bench.model.info()
    came = bench.model.ready()
    agree(came is True, f"ready() gives {came!r}")


_connected: list[Any] = []
_watched: list[int] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and threading.get_ident() in _watched:
        _connected.append(args[1])


@cache
def _see() -> None:
    """Once in a process: an audit hook can't be taken off again."""
    sys.addaudithook(_watch)


@check()
def loading_reaches_nobody(bench: Bench) -> None:
    """`load` connects to nobody: that is for opening."""
    _see()
    _connected.clear()
    _watched.append(threading.get_ident())
    try:
        bench.fresh()
    finally:
        _watched.clear()
    agree(not _connected, f"load() connected to {_connected[:1]}; ask the peer in opening()")
