"""For each check of the conformance suite a backend that breaks its promise, and fails that check alone."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

from aiaas_sdk.errors import DeadlineExceededError, InputError, ModelError, UnsupportedOperationError
from aiaas_sdk.flow import Flow, Sleep
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Embedded, Spoken
from aiaas_sdk.records.explanation import Explained, Question
from aiaas_sdk.records.language import Delta
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import DATATYPES, Tensor
from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.catalogue import CHECKS
from aiaas_sdk.testing.conformance.reporting import outcome
from tests.testing.wrong import TOO_MUCH, N, Right, X, in_a_worker, installed, off, subject

COSTLY = ("deadlines", "closing", "forking")
"""Groups that take their time: each is run for its own wrong backends alone."""
WRONG: dict[str, type[Right]] = {}


def breaks(check: str) -> Callable[[type[Right]], type[Right]]:
    """The class is wrong for this check."""

    def made(cls: type[Right]) -> type[Right]:
        assert check not in WRONG
        WRONG[check] = cls
        return cls

    return made


def says(check: str, **words: Any) -> None:
    """A backend that says this of itself is wrong for the check."""
    WRONG[check] = type("Saying", (Right,), {"said": lambda self: Right.said(self) | (words if self.main else {})})


def answers(check: str, wrong: Callable[[Right, str, Tensor], Tensor | None]) -> None:
    """A backend is wrong for the check that gives these outputs; None is the right one."""
    WRONG[check] = type("Answering", (Right,), {"answer": lambda self, name, t: wrong(self, name, t) or t})


def calls(check: str, verb: str, name: str, value: Any) -> None:
    """A backend that notes this of a call is wrong for the check."""

    def at_once(self: Right, call: Call, *arguments: Any) -> Any:
        answer = Right.at_once(self, call, *arguments)
        if call.verb == verb:
            setattr(call, name, value)
        return answer

    WRONG[check] = type("Noting", (Right,), {"at_once": at_once})


def rows(self: Right, tensor: Tensor) -> int:
    return len(tensor.array) if self.main else -1


# ---------------------------------------------------------------- describing
class Lookalike(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


class Stuck(ModelInfo):
    def __reduce__(self) -> Any:
        raise TypeError("it stays here")


says("info_has_a_name", name=" ")
says("info_has_known_datatypes", outputs=(X, Lookalike("n", "INT64", (-1, 2))))
says("info_has_possible_shapes", outputs=(X, replace(N, shape=[-1, 2])))
says("info_names_each_tensor_once", outputs=(X, N, X))
says("info_has_both_sides", outputs=())
says("info_knows_its_version", version="2")
says("info_has_fitting_labels", labels=("cat", "dog", "bird", "fish"))
says("info_says_where_it_runs", device=0)
says("info_has_plain_metadata", metadata={"tags": {1, 2}})
says("info_knows_its_verbs", verbs=set(Right.verbs()))


@breaks("info_is_the_same_again")
class SecondTimeElsewhere(Right):
    opened = 0

    def said(self) -> dict[str, Any]:
        if self.main:
            type(self).opened += 1
        return {**super().said(), "platform": "elsewhere" if self.opened == 2 and self.main else ""}


@breaks("info_can_be_pickled")
class SaysWhatStays(Right):
    def open(self) -> ModelInfo:
        super().open()
        return Stuck(**self.said())


@breaks("an_open_model_is_ready")
class ReadyInANumber(Right):
    def readiness(self, call: Call) -> Flow[bool]:
        yield from ()
        return 1  # type: ignore[return-value]


@breaks("loading_reaches_nobody")
class ConnectsAtOnce(Right):
    def prepare(self) -> None:
        super().prepare()
        with socket.socket() as there:
            there.connect_ex(("127.0.0.1", 9))


# ---------------------------------------------------------------- honesty
for verb in ("predict", "generate", "stream", "embed"):
    says(f"{verb}_is_honest", verbs=Right.verbs() - {verb})
says("fit_is_honest", verbs=Right.verbs() | {"fit"})


# ---------------------------------------------------------------- explaining
class Explains(Right):
    """Explains by itself: an output is the input of its name, so that what decides is the target's own element."""

    def lacks(self, method: str) -> str | None:
        return None if self.main else super().lacks(method)

    def explain(self, question: Question) -> Explained:
        x = question.inputs["x"].array
        targets = question.targets or tuple(x.argmax(axis=1).tolist())
        found = np.zeros(x.shape, np.float32)
        found[range(len(x)), targets] = x[range(len(x)), targets]
        nothing = np.zeros(question.inputs["n"].array.shape, np.float32)
        return Explained({"x": Tensor("FP32", found), "n": Tensor("FP32", nothing)}, "shap", targets, 0.0)


def explains(check: str, count: int, wrong: Callable[[Explained], Explained]) -> None:
    """A backend is wrong for the check that explains so many rows like this."""

    def explain(self: Explains, question: Question) -> Explained:
        found = Explains.explain(self, question)
        return wrong(found) if question.rows == count else found

    WRONG[check] = type("Explaining", (Explains,), {"explain": explain})


def with_x(change: Callable[[Any], Any]) -> Callable[[Explained], Explained]:
    def wrong(found: Explained) -> Explained:
        x = Tensor("FP32", np.asarray(change(found.attributions["x"].array), np.float32))
        return replace(found, attributions={**found.attributions, "x": x})

    return wrong


explains("attributions_have_the_shapes_of_inputs", 4, with_x(lambda x: x[:, :2]))
explains("attributions_are_floats", 5, with_x(lambda x: x + np.inf))
explains("attributions_add_up", 6, with_x(lambda x: 2 * x))
explains("a_target_is_kept", 8, lambda found: replace(found, targets=(0,) * 8))


@breaks("explain_is_honest")
class WillNotExplain(Explains):
    def explain(self, question: Question) -> Explained:
        if question.rows == 3:
            raise UnsupportedOperationError("explain isn't available")
        return super().explain(question)


@breaks("the_same_question_has_the_same_explanation")
class ExplainsAnew(Explains):
    asked = 0

    def explain(self, question: Question) -> Explained:
        self.asked += question.rows == 7
        found = super().explain(question)
        return with_x(lambda x: x + self.asked)(found) if self.main and question.rows == 7 else found


@breaks("explanations_can_be_pickled")
class ExplainsWithWhatStays(Explains):
    def explain(self, question: Question) -> Explained:
        found = super().explain(question)
        return replace(found, method=Staying("shap")) if question.rows == 2 else found


class Staying(str):
    def __reduce__(self) -> Any:
        raise TypeError("it stays here")


# ---------------------------------------------------------------- rows
for number in (1, 7, 9, 17, 33, 64):
    answers(f"{number}_rows_are_right", lambda self, name, t, n=number: off(t) if rows(self, t) == n else None)


def cut(tensor: Tensor) -> Tensor:
    return Tensor(tensor.datatype, tensor.array[:-1])


def _by_the_next(self: Right, name: str, tensor: Tensor) -> Tensor | None:
    return off(tensor) if rows(self, tensor) == 11 and tensor.array[0, 0] > tensor.array[1, 0] else None


def _by_the_others(self: Right, name: str, tensor: Tensor) -> Tensor | None:
    if rows(self, tensor) != 13:
        return None
    array = tensor.array.copy()
    array[0] += array[1:].sum(axis=0).astype(array.dtype)
    return Tensor(tensor.datatype, array)


def _without_rows(self: Right, name: str, tensor: Tensor) -> Tensor | None:
    return Tensor("FP64", np.zeros((0, *tensor.shape[1:]))) if rows(self, tensor) == 0 else None


answers("a_thousand_rows_are_taken", lambda self, name, t: cut(t) if rows(self, t) == 1000 else None)
answers("no_rows_give_no_rows", _without_rows)
answers("rows_keep_their_order", _by_the_next)
answers("rows_do_not_mix", _by_the_others)
answers(
    "as_many_rows_come_as_went", lambda self, name, t: cut(t) if rows(self, t) == 6 and t.array.base is None else None
)
answers("map_gives_rows_in_order", lambda self, name, t: off(t) if rows(self, t) == 5 else None)
answers("map_awaited_gives_rows_in_order", lambda self, name, t: off(t) if rows(self, t) == 6 else None)


# ---------------------------------------------------------------- values
def value(kind: str, found: Callable[[Any], Any]) -> None:
    def wrong(self: Right, name: str, tensor: Tensor) -> Tensor | None:
        is_x = self.main and name == "x" and isinstance(tensor.array, np.ndarray) and len(tensor.array) == 10
        return off(tensor) if is_x and found(tensor.array) else None

    answers(f"{kind}_numbers_are_right", wrong)


value("zero", lambda x: (x == 0).all())
value("one", lambda x: (x == 1).all())
value("negative", lambda x: (x < 0).all())
value("large", lambda x: (abs(x) > 1e20).any())
value("small", lambda x: abs(x).max() < 1e-20 and x.any())
value("fractional", lambda x: (8 * x % 1).any() and abs(x).max() > 0.1)
value("drawn", lambda x: not (8 * x % 1).any() and 1 < abs(x).max() <= 8 and x.min() < 0 < x.max())


@breaks("the_same_question_has_the_same_answer")
class Wavering(Right):
    asked = 0

    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if rows(self, tensor) != 15:
            return tensor
        self.asked += 1
        return off(tensor) if self.asked > 4 else tensor


# ---------------------------------------------------------------- datatypes
TINIEST = {"FP16": 2.0**-24, "BF16": 2.0**-133, "FP32": 2.0**-149, "FP64": 2.0**-1074}


def wide(tensor: Tensor) -> Any:
    """The numbers, BF16 too."""
    if tensor.datatype == "BF16":
        return (tensor.array.astype(np.uint32) << 16).view(np.float32)
    return tensor.array


def datatype(check: str, name: str, found: Callable[[Any], Any]) -> None:
    answers(check, lambda self, _, t: off(t) if self.target == name and found(wide(t)) else None)


def plain(array: Any) -> bool:
    if array.dtype.kind != "f":
        return True
    special = ~np.isfinite(array) | ((array == 0) & np.signbit(array)) | ((array != 0) & (abs(array) < 1e-6))
    return not special.any()


def texts(array: Any, found: Callable[[bytes], Any]) -> bool:
    return any(found(text) for text in array.flat)


for name in DATATYPES:
    if name != "BYTES":
        datatype(f"{name}_is_carried", name, plain)
for name, tiniest in TINIEST.items():
    datatype(f"{name}_nan_is_carried", name, lambda array: np.isnan(array).any())
    datatype(f"{name}_infinity_is_carried", name, lambda array: np.isposinf(array).any())
    datatype(f"{name}_negative_infinity_is_carried", name, lambda array: np.isneginf(array).any())

    def unsigned(self: Right, _: str, tensor: Tensor, name: str = name) -> Tensor | None:
        if self.target != name or not ((wide(tensor) == 0) & np.signbit(wide(tensor))).any():
            return None
        array = tensor.array.copy()
        array[wide(tensor) == 0] = 0
        return Tensor(name, array)

    def flushed(self: Right, _: str, tensor: Tensor, name: str = name, tiniest: float = tiniest) -> Tensor | None:
        if self.target != name or not (wide(tensor) == tiniest).any():
            return None
        array = tensor.array.copy()
        array[wide(tensor) == tiniest] = 0
        return Tensor(name, array)

    answers(f"{name}_negative_zero_is_carried", unsigned)
    answers(f"{name}_subnormal_is_carried", flushed)

TEXTS: Mapping[str, Callable[[bytes], Any]] = {
    "empty": lambda text: text == b"",
    "unicode": lambda text: "東京".encode() in text,
    "zero_bytes": lambda text: b"\x00" in text,
    "long": lambda text: len(text) > 1000,
    "not_text": lambda text: b"\xff" in text,
}
for name, found in TEXTS.items():
    datatype(f"BYTES_{name}_is_carried", "BYTES", lambda array, found=found: texts(array, found))
datatype("BYTES_is_carried", "BYTES", lambda a: not any(texts(a, found) for found in TEXTS.values()))


# ---------------------------------------------------------------- layouts
def layout(check: str, found: Callable[[Any], Any], kind: bool) -> None:
    """Wrong for numpy arrays (or for torch tensors) that lie so."""

    def wrong(self: Right, name: str, tensor: Tensor) -> Tensor | None:
        array = tensor.array
        if not self.main or isinstance(array, np.ndarray) != kind or not found(array):
            return None
        return off(Tensor(tensor.datatype, array.copy() if kind else array.contiguous()))

    answers(check, wrong)


def strides(array: Any) -> Any:
    """In elements."""
    return tuple(step // array.itemsize for step in array.strides)


layout("fortran_order_arrays_are_read_right", lambda a: a.flags.f_contiguous and not a.flags.c_contiguous, True)
layout("reversed_arrays_are_read_right", lambda a: min(a.strides) < 0, True)
layout("sliced_arrays_are_read_right", lambda a: strides(a) == (2 * a.shape[1], 1), True)
layout("inner_slice_arrays_are_read_right", lambda a: strides(a) == (2 * a.shape[1], 2), True)
layout("broadcast_arrays_are_read_right", lambda a: a.strides[0] == 0 and len(a), True)
layout("unaligned_arrays_are_read_right", lambda a: not a.flags.aligned, True)
layout("read_only_arrays_are_read_right", lambda a: not a.flags.writeable and a.strides[0], True)
layout("plain_torch_tensors_are_read_right", lambda t: t.is_contiguous() and not t.storage_offset(), False)
layout("transposed_torch_tensors_are_read_right", lambda t: t.stride()[0] == 1, False)
layout("sliced_torch_tensors_are_read_right", lambda t: t.stride()[0] == 2 * t.shape[1], False)
layout("expanded_torch_tensors_are_read_right", lambda t: t.stride()[0] == 0, False)
layout("offset_torch_tensors_are_read_right", lambda t: t.storage_offset(), False)


# ---------------------------------------------------------------- outputs
class Choosing(Right):
    """Sees what is asked for."""

    def chosen(self, found: dict[str, Tensor], outputs: Sequence[str], all_: dict[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        found = dict(super().predict(inputs, outputs))
        return self.chosen(found, outputs, dict(inputs)) if self.main else found


@breaks("all_outputs_come")
class LeavesOneOut(Choosing):
    def chosen(self, found: dict[str, Tensor], outputs: Sequence[str], all_: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"x": found["x"]} if len(all_["x"].array) == 14 else found


@breaks("nothing_unannounced_comes")
class GivesMore(Choosing):
    def chosen(self, found: dict[str, Tensor], outputs: Sequence[str], all_: dict[str, Tensor]) -> dict[str, Tensor]:
        return found if outputs else {**found, "more": found["x"]}


@breaks("chosen_outputs_come_alone")
class GivesAll(Choosing):
    def chosen(self, found: dict[str, Tensor], outputs: Sequence[str], all_: dict[str, Tensor]) -> dict[str, Tensor]:
        return all_


@breaks("outputs_may_be_asked_in_any_order")
class GoesByPlace(Choosing):
    def chosen(self, found: dict[str, Tensor], outputs: Sequence[str], all_: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(outputs, all_.values(), strict=True)) if len(outputs) == 2 else found


answers(
    "outputs_have_the_announced_datatypes",
    lambda self, name, t: (
        Tensor("INT32", t.array.astype(np.int32))
        if self.main and name == "n" and isinstance(t.array, np.ndarray)
        else None
    ),
)


@breaks("inputs_are_not_written_to")
class WorksInPlace(Right):
    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if rows(self, tensor) != 18:
            return tensor
        given = Tensor(tensor.datatype, tensor.array.copy())
        tensor.array[...] = 0
        return given


class Reusing(Right):
    """Gives the same memory again and again."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.memory: dict[str, Any] = {}

    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if rows(self, tensor) != 19:
            return tensor
        memory = self.memory.setdefault(name, np.empty_like(tensor.array))
        memory[...] = tensor.array
        return Tensor(tensor.datatype, memory)


WRONG["answers_stay_as_they_are"] = Reusing


@breaks("answers_outlive_the_model")
class Wiping(Right):
    given: Any = None

    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if rows(self, tensor) != 21 or name != "x":
            return tensor
        self.given = tensor.array.copy()
        return Tensor(tensor.datatype, self.given)

    def close(self) -> None:
        super().close()
        if self.given is not None:
            self.given[...] = 0


# ---------------------------------------------------------------- origins
calls("answers_name_their_model", "predict", "model", "another")
calls("answers_name_their_version", "predict", "version", 3)
calls("answers_name_their_backend", "predict", "backend", 7)
calls("answers_count_their_rows", "predict", "rows", 1)
calls("answers_tell_their_time", "predict", "compute", -1.0)
calls("answers_count_their_attempts", "predict", "attempts", -1)
calls("answers_can_be_pickled", "predict", "request_id", lambda: None)


# ---------------------------------------------------------------- failures
def fails(check: str, error: Callable[[], BaseException]) -> None:
    """A backend is wrong for the check that fails so."""

    def predict(self: Right, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Any:
        try:
            return Right.predict(self, inputs, outputs)
        except RuntimeError:
            raise error() from None

    WRONG[check] = type("Failing", (Right,), {"predict": predict})


class HandleError(ModelError):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.handle = lambda: None


@breaks("a_failure_is_one_of_ours")
class FailsInItsOwnWay(Right):
    def at_once(self, call: Call, *arguments: Any) -> Any:
        try:
            return super().at_once(call, *arguments)
        except ModelError:
            raise ZeroDivisionError("no such luck") from None


fails("a_failure_says_where", lambda: ModelError("the model failed", address="nowhere:"))
fails("a_failure_says_what", lambda: ModelError("failed"))
fails("a_failure_keeps_contents_to_itself", lambda: ModelError(f"can't take {TOO_MUCH}"))
fails("a_failure_can_be_pickled", lambda: HandleError("the model failed"))
fails("a_failure_is_the_same_awaited", lambda: (InputError if in_a_worker() else ModelError)("the model failed"))


@breaks("a_failure_leaves_the_model_usable")
class Shaken(Right):
    failures = 0

    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        try:
            found = dict(super().predict(inputs, outputs))
        except RuntimeError:
            self.failures += 1
            raise
        if rows(self, inputs["x"]) == 22:
            found["x"] = Tensor("FP32", found["x"].array + np.float32(self.failures))
        return found


@breaks("a_model_that_is_absent_is_told")
class OpensAnything(Right):
    def open(self) -> ModelInfo:
        return ModelInfo(**self.said()) if self.target == "absent" else super().open()

    @property
    def main(self) -> bool:
        return self.target in ("", "absent")


@breaks("a_peer_that_is_absent_is_told")
class BlamesTheModel(Right):
    def open(self) -> ModelInfo:
        if self.target == "away":
            raise ModelError("something failed")
        return super().open()


@breaks("a_device_that_is_absent_is_told")
class TakesAnyDevice(Right):
    options_taken = frozenset(("device",))


# ---------------------------------------------------------------- sharing
@breaks("threads_get_their_own_answers")
class RacesInThreads(Right):
    last: Any = None

    def at_once(self, call: Call, *arguments: Any) -> Any:
        if call.verb != "predict" or not self.main or isinstance(arguments[0]["x"].array, list):
            return super().at_once(call, *arguments)
        self.last = arguments
        if threading.current_thread().name.startswith("Thread-"):
            time.sleep(0.003)
        return super().at_once(call, *self.last)


@breaks("threads_may_open_it_together")
class BelongsToItsOpener(Right):
    opener: Any = None

    def open(self) -> ModelInfo:
        self.opener = threading.current_thread()
        return super().open()

    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if self.opener.name.startswith("Thread-") and threading.current_thread() is not self.opener:
            raise RuntimeError("this isn't my thread")
        return tensor


class Awaiting(Right):
    """Sees the calls that are awaited."""

    def awaited(self, call: Call, *arguments: Any) -> Flow[Any]:
        raise NotImplementedError

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if call.verb == "predict" and asyncio._get_running_loop() is not None:
            return self.awaited(call, *arguments)
        return super().start(call, *arguments)

    def rightly(self, call: Call, *arguments: Any) -> Flow[Any]:
        return Right.start(self, call, *arguments)


@breaks("tasks_get_their_own_answers")
class RacesInTasks(Awaiting):
    last: Any = None

    def awaited(self, call: Call, *arguments: Any) -> Flow[Any]:
        self.last = arguments
        if len(arguments[0]["x"].array) == 2:
            yield Sleep(0.001)
            arguments = self.last
        return (yield from self.rightly(call, *arguments))


@breaks("tasks_may_open_it_together")
class WarmsUp(Awaiting):
    warm = False
    waiting = 0

    def awaited(self, call: Call, *arguments: Any) -> Flow[Any]:
        if not self.warm:
            self.waiting += 1
            if self.waiting > 6:
                raise ModelError("it isn't warm yet")
            yield Sleep(0.005)
            self.warm = True
        return (yield from self.rightly(call, *arguments))


@breaks("models_of_one_address_are_apart")
class SharesAll(Right):
    closed: ClassVar[list[int]] = []

    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if rows(self, tensor) != 23:
            return tensor
        return Tensor(tensor.datatype, tensor.array + tensor.array.dtype.type(len(self.closed)))

    def close(self) -> None:
        super().close()
        self.closed.append(1)


def when(check: str, count: int, found: Callable[[], Any]) -> None:
    """A backend is wrong for the check that is wrong for so many rows, in such a place."""
    answers(check, lambda self, name, t: off(t) if rows(self, t) == count and found() else None)


when("views_outlive_their_model", 24, in_a_worker)
when("both_faces_work_side_by_side", 25, in_a_worker)
when("predictions_are_the_same_awaited", 26, in_a_worker)


# ---------------------------------------------------------------- loops
@breaks("a_model_serves_one_loop_after_another")
class CountsLoops(Awaiting):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.loops: list[Any] = []

    def awaited(self, call: Call, *arguments: Any) -> Flow[Any]:
        loop = asyncio.get_running_loop()
        if loop not in self.loops:
            self.loops.append(loop)
        if len(self.loops) > 2:
            raise ModelError("too many loops")
        return (yield from self.rightly(call, *arguments))


@breaks("a_model_serves_loops_of_several_threads")
class KnowsTheMainThread(Awaiting):
    def awaited(self, call: Call, *arguments: Any) -> Flow[Any]:
        if threading.current_thread() is not threading.main_thread():
            raise ModelError("only in the main thread")
        return (yield from self.rightly(call, *arguments))


@breaks("a_plain_model_works_within_a_loop")
class AvoidsLoops(Right):
    def at_once(self, call: Call, *arguments: Any) -> Any:
        if asyncio._get_running_loop() is not None:
            raise ModelError("a loop is running")
        return super().at_once(call, *arguments)


# ---------------------------------------------------------------- sameness
@breaks("info_is_the_same_awaited")
class SaysElseInAWorker(Right):
    def said(self) -> dict[str, Any]:
        return {**super().said(), "platform": "a worker" if in_a_worker() else ""}


@breaks("readiness_is_the_same_awaited")
class UnreadyInALoop(Right):
    def readiness(self, call: Call) -> Flow[bool]:
        yield from ()
        return asyncio._get_running_loop() is None


# ---------------------------------------------------------------- speaking
class Quiet(Right):
    """Doesn't stream, so that a wrong answer isn't compared with a stream."""

    stream = None  # type: ignore[assignment]


def speaks(check: str, wrong: Callable[[Spoken, Chat], Spoken], base: type[Right] = Quiet) -> None:
    """A backend that answers so is wrong for the check."""
    WRONG[check] = type("Speaking", (base,), {"generate": lambda self, chat: wrong(Right.generate(self, chat), chat)})


def refuses(check: str, found: Callable[[Chat], Any]) -> None:
    def generate(self: Right, chat: Chat) -> Spoken:
        if found(chat):
            raise UnsupportedOperationError("that isn't for me")
        return Right.generate(self, chat)

    WRONG[check] = type("Refusing", (Quiet,), {"generate": generate})


def but(spoken: Spoken, **words: Any) -> Spoken:
    return replace(spoken, choices=tuple(replace(choice, **words) for choice in spoken.choices))


def without(*names: str) -> Callable[[Spoken, Chat], Chat]:
    return lambda spoken, chat: replace(
        chat, sampling={name: value for name, value in chat.sampling.items() if name not in names}
    )


counted = iter(range(100_000))
speaks("generate_says_something", lambda s, chat: but(s, text="") if len(chat.messages) == 1 else s)
speaks(
    "generate_says_why_it_ended",
    lambda s, chat: s if s.choices[0].finish_reason == "length" else but(s, finish_reason=""),
)
refuses("generate_takes_messages", lambda chat: len(chat.messages) > 1)
refuses("generate_takes_unicode", lambda chat: not chat.messages[-1].text.isascii())
refuses("generate_takes_several_lines", lambda chat: "\n" in chat.messages[-1].text)
speaks(
    "generate_says_the_same_again",
    lambda s, chat: but(s, text=f"{next(counted)}") if chat.messages[-1].text.endswith("again") else s,
)
speaks("generate_keeps_to_max_tokens", lambda spoken, chat: but(spoken, finish_reason="stop"))
speaks(
    "generate_keeps_to_stop",
    lambda s, chat: Right.generate(None, without("stop")(s, chat)) if "stop" in chat.sampling else s,  # type: ignore[arg-type]
)
speaks("generate_keeps_to_seed", lambda s, chat: but(s, text=f"{next(counted)}") if "seed" in chat.sampling else s)
speaks("generate_gives_as_many_as_asked", lambda spoken, chat: replace(spoken, choices=spoken.choices[:1]))
speaks("generate_gives_logprobs", lambda spoken, chat: but(spoken, logprobs=None))
speaks("generate_counts_its_tokens", lambda spoken, chat: replace(spoken, input_tokens=-1))
calls("generations_name_their_model", "generate", "model", 5)
calls("generations_can_be_pickled", "generate", "request_id", lambda: None)
speaks("generations_are_the_same_awaited", lambda s, chat: but(s, text="other") if in_a_worker() else s)


# ---------------------------------------------------------------- streaming
class Streaming(Right):
    """Makes its deltas and its end otherwise."""

    generate = None  # type: ignore[assignment]

    def deltas(self, chat: Chat) -> list[Delta]:
        return [Delta(word) for word in re.findall(r"\s*\S+", Right.generate(self, chat).choices[0].text)]

    def whole(self, chat: Chat) -> Spoken:
        return Right.generate(self, chat)

    def stream(self, chat: Chat) -> Generator[Delta, None, Spoken]:
        yield from self.deltas(chat)
        return self.whole(chat)


@breaks("pieces_make_the_whole")
class ForgetsTheEnd(Streaming):
    def whole(self, chat: Chat) -> Spoken:
        return but(super().whole(chat), text="one")


@breaks("pieces_of_thought_make_the_whole")
class ThinksInSecret(Streaming):
    def deltas(self, chat: Chat) -> list[Delta]:
        return [Delta(reasoning="hm"), *super().deltas(chat)]


@breaks("no_piece_is_empty")
class HoldsItsBreath(Streaming):
    def deltas(self, chat: Chat) -> list[Delta]:
        return [*super().deltas(chat), Delta()]


@breaks("streams_say_why_they_ended")
class EndsWithoutAWord(Streaming):
    def whole(self, chat: Chat) -> Spoken:
        spoken = super().whole(chat)
        return spoken if spoken.choices[0].finish_reason == "length" else but(spoken, finish_reason="")


@breaks("streams_keep_to_max_tokens")
class AlwaysSaysStop(Streaming):
    def whole(self, chat: Chat) -> Spoken:
        return but(super().whole(chat), finish_reason="stop")


@breaks("streams_say_what_generate_says")
class SaysItLouder(Streaming):
    generate = Right.generate  # type: ignore[assignment]

    def deltas(self, chat: Chat) -> list[Delta]:
        return [Delta(delta.text.upper()) for delta in super().deltas(chat)]

    def whole(self, chat: Chat) -> Spoken:
        spoken = super().whole(chat)
        return but(spoken, text=spoken.choices[0].text.upper())


def left(check: str, count: int) -> None:
    """A backend is wrong for the check that falls silent once when it was left after so many pieces."""

    class FallsSilent(Streaming):
        silent = False

        def stream(self, chat: Chat) -> Generator[Delta, None, Spoken]:
            if self.silent:
                self.silent = False
                return but(self.whole(chat), text="")
            given = 0
            try:
                for delta in self.deltas(chat):
                    given += 1
                    yield delta
            except GeneratorExit:
                self.silent = given == count
                raise
            return self.whole(chat)

    WRONG[check] = FallsSilent


left("a_stream_may_be_left_early", 1)
left("a_stream_may_be_dropped", 2)
left("a_stream_left_awaited_leaves_the_model_usable", 3)


@breaks("streams_run_side_by_side")
class OneAtATime(Streaming):
    running = 0

    def stream(self, chat: Chat) -> Generator[Delta, None, Spoken]:
        self.running += 1
        try:
            if self.running > 1:
                yield Delta("busy")
                return but(self.whole(chat), text="busy")
            return (yield from super().stream(chat))
        finally:
            self.running -= 1


@breaks("streams_are_the_same_awaited")
class StreamsElseInAWorker(Streaming):
    def deltas(self, chat: Chat) -> list[Delta]:
        return [Delta("other")] if in_a_worker() else super().deltas(chat)

    def whole(self, chat: Chat) -> Spoken:
        return but(super().whole(chat), text="other") if in_a_worker() else super().whole(chat)


calls("streamed_answers_can_be_pickled", "stream", "request_id", lambda: None)


# ---------------------------------------------------------------- embedding
def embeds(check: str, wrong: Callable[[Any, Sequence[str]], Any]) -> None:
    """A backend that gives these vectors is wrong for the check."""

    def embed(self: Right, texts: Sequence[str], dimensions: int | None) -> Embedded:
        found = Right.embed(self, texts, dimensions)
        return Embedded(wrong(found.array.copy(), texts), found.input_tokens)

    WRONG[check] = type("Embedding", (Right,), {"embed": embed})


def _set(array: Any, place: Any, value: float) -> Any:
    array[place] = value
    return array


embeds("vectors_are_a_matrix", lambda array, texts: array[:, :0])
embeds("vectors_are_finite", lambda array, texts: _set(array, (slice(None), 0), np.nan))
embeds("one_text_has_one_vector", lambda a, texts: a + np.float32(1) if len(texts) == 1 else a)
embeds(
    "vectors_keep_the_order_of_texts",
    lambda a, texts: _set(a, 1, 9) if len(texts) == 3 and texts[0] < texts[-1] else a,
)
embeds("the_same_text_has_the_same_vector", lambda a, texts: _set(a, 1, 9) if len(set(texts)) < len(texts) else a)
embeds("different_texts_have_different_vectors", lambda array, texts: np.ones_like(array))
embeds("vectors_are_the_same_awaited", lambda array, texts: array + np.float32(in_a_worker()))
calls("embeddings_can_be_pickled", "embed", "request_id", lambda: None)


@breaks("dimensions_are_kept_or_refused")
class DropsDimensions(Right):
    def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        return super().embed(texts, None)


@breaks("embeddings_count_their_tokens")
class CountsBackwards(Right):
    def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        return replace(super().embed(texts, dimensions), input_tokens=-1)


# ---------------------------------------------------------------- deadlines
class Slow(Right):
    """Sees the calls of the slow model."""

    def slowly(self, call: Call, *arguments: Any) -> Flow[Any]:
        raise NotImplementedError

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        slow = call.verb == "predict" and self.target == "slow"
        return self.slowly(call, *arguments) if slow else super().start(call, *arguments)

    def rightly(self, call: Call, *arguments: Any) -> Flow[Any]:
        return Right.start(self, call, *arguments)


def looped() -> bool:
    return asyncio._get_running_loop() is not None


@breaks("deadlines_are_kept")
class BlocksItsCaller(Slow):
    def slowly(self, call: Call, *arguments: Any) -> Flow[Any]:
        if looped():
            return (yield from self.rightly(call, *arguments))
        return self.at_once(call, *arguments)


@breaks("deadlines_are_kept_awaited")
class BlocksTheLoopWithADeadline(Slow):
    def slowly(self, call: Call, *arguments: Any) -> Flow[Any]:
        if not looped() or call.deadline is None:
            return (yield from self.rightly(call, *arguments))
        return self.at_once(call, *arguments)


@breaks("a_missed_deadline_leaves_the_model_usable")
class SulksWhenLate(Slow):
    late = 0

    def slowly(self, call: Call, *arguments: Any) -> Flow[Any]:
        try:
            found = yield from self.rightly(call, *arguments)
        except DeadlineExceededError:
            self.late += not looped()
            raise
        return {**found, "x": off(found["x"])} if self.late else found


@breaks("the_event_loop_goes_on")
class BlocksTheLoopAtTheEnd(Slow):
    def slowly(self, call: Call, *arguments: Any) -> Flow[Any]:
        found = yield from self.rightly(call, *arguments)
        if looped() and call.deadline is None:
            time.sleep(0.4)
        return found


@breaks("waiting_can_be_given_up")
class HoldsOn(Slow):
    def slowly(self, call: Call, *arguments: Any) -> Flow[Any]:
        try:
            return (yield from self.rightly(call, *arguments))
        except GeneratorExit:
            time.sleep(0.4)
            raise


@breaks("a_call_given_up_leaves_the_model_usable")
class SulksWhenLeft(Slow):
    left = False

    def slowly(self, call: Call, *arguments: Any) -> Flow[Any]:
        try:
            found = yield from self.rightly(call, *arguments)
        except GeneratorExit:
            self.left = True
            raise
        return {**found, "x": off(found["x"])} if self.left else found


@breaks("a_model_may_be_closed_at_work")
class ClosesSlowly(Right):
    def close(self) -> None:
        super().close()
        if self.target == "slow":
            time.sleep(0.4)


# ---------------------------------------------------------------- closing
@breaks("an_unopened_model_can_be_closed")
class NeedsToBeOpened(Right):
    weights: Any = None

    def open(self) -> ModelInfo:
        self.weights = [1]
        return super().open()

    def close(self) -> None:
        super().close()
        if self.weights is None:
            raise ModelError("there are no weights to let go of")


@breaks("a_model_can_be_loaded_again")
class OnlyOnce(Right):
    spent: ClassVar[list[int]] = []
    asked = False

    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if rows(self, tensor) == 27:
            if self.spent:
                raise RuntimeError("the file is locked")
            self.asked = True
        return tensor

    def close(self) -> None:
        super().close()
        if self.asked:
            self.spent.append(1)


@breaks("a_model_can_be_closed_in_another_thread")
class ClosesInTheMainThread(Right):
    def close(self) -> None:
        super().close()
        if threading.current_thread() is not threading.main_thread():
            raise ModelError("this isn't my thread")


THE_END = threading.Event()


@breaks("closing_ends_its_threads")
class KeepsAThread(Right):
    def open(self) -> ModelInfo:
        threading.Thread(target=THE_END.wait, name="kept", daemon=True).start()
        return super().open()


KEPT: list[Any] = []


@breaks("closing_gives_files_back")
class KeepsAFile(Right):
    def open(self) -> ModelInfo:
        KEPT.append(os.open(os.devnull, os.O_RDONLY))
        return super().open()


@breaks("closing_leaves_no_warning")
class LeavesAFileToOthers(Right):
    def open(self) -> ModelInfo:
        if self.main:
            self.file = open(os.devnull)  # noqa: SIM115 (left open on purpose)
        return super().open()


@breaks("a_dropped_model_is_freed")
class IsKept(Right):
    def open(self) -> ModelInfo:
        KEPT.append(self)
        return super().open()


# ---------------------------------------------------------------- forking
class Forked(Right):
    made = opened = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made = os.getpid()

    def open(self) -> ModelInfo:
        self.opened = os.getpid()
        return super().open()


@breaks("a_child_can_open_the_model")
class OpensAtHome(Forked):
    def open(self) -> ModelInfo:
        if os.getpid() != self.made:
            raise RuntimeError("who am I?")
        return super().open()


@breaks("a_child_can_use_an_open_model")
class WorksAtHome(Forked):
    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if os.getpid() != self.opened and not in_a_worker():
            raise RuntimeError("who am I?")
        return tensor


@breaks("a_child_can_use_a_model_with_a_deadline")
class WorksAtHomeInAThread(Forked):
    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if os.getpid() != self.opened and in_a_worker():
            raise RuntimeError("who am I?")
        return tensor


@breaks("a_child_leaves_its_parent_alone")
class SharesAPipe(Forked):
    def open(self) -> ModelInfo:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        return super().open()

    def answer(self, name: str, tensor: Tensor) -> Tensor:
        if os.getpid() != self.opened:
            os.write(self.writing, b"x")
            return tensor
        try:
            return off(tensor) if os.read(self.reading, 1) else tensor
        except BlockingIOError:
            return tensor

    def close(self) -> None:
        super().close()
        if self.opened:
            os.close(self.reading)
            os.close(self.writing)


# ---------------------------------------------------------------- the test
def failed(cls: type[Right], folder: Path, group: str) -> dict[str, str]:
    """The checks that a backend fails, and what they say: all that are quick, and those of the group."""
    found = {}
    quiet = warnings.catch_warnings(record=True)  # what the wrong ones leave open, Python tells as well
    with quiet, installed(folder, cls), Bench(subject(slow="right:slow")) as bench:
        for check in CHECKS.values():
            if check.group == group or check.group not in COSTLY:
                came = outcome(check, bench)
                if came.verdict == "fail":
                    found[check.name] = came.words
    return found


def test_each_check_has_a_backend_that_fails_it() -> None:
    assert set(WRONG) == set(CHECKS)
    assert len(CHECKS) >= 100


@pytest.mark.slow
def test_a_backend_that_keeps_all_promises_fails_none(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    told = subject(slow="right:slow")
    with installed(tmp_path, Right), Bench(told) as bench:
        came = [outcome(check, bench) for check in CHECKS.values()]
    assert [(one.check, one.words) for one in came if one.verdict != "pass"] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("check", list(CHECKS))
def test_a_wrong_backend_fails_that_check_alone(check: str, tmp_path: Path) -> None:
    if "torch" in check:
        pytest.importorskip("torch")
    try:
        found = failed(WRONG[check], tmp_path, CHECKS[check].group)
    finally:
        THE_END.set()
        for kept in KEPT:
            if isinstance(kept, int):
                os.close(kept)
        KEPT.clear()
        THE_END.clear()
        gc.collect()  # what was left open warns here, where that is expected, and in no later test
    assert list(found) == [check], found
    assert found[check]


# ---------------------------------------------------------------- a busy machine
class OnABusyMachine(Slow):
    """Late twice at each, and then on time."""

    left: ClassVar[dict[str, int]] = {}

    def slowly(self, call: Call, *arguments: Any) -> Flow[Any]:
        try:
            found = yield from self.rightly(call, *arguments)
        except DeadlineExceededError:
            self.stumble(f"deadline {looped()}")
            raise
        except GeneratorExit:
            self.stumble("cancelled")
            raise
        if looped():
            self.stumble("answered")
        return found

    def close(self) -> None:
        super().close()
        if self.target == "slow" and self.known and not looped():
            self.stumble("closed")

    def stumble(self, where: str) -> None:
        self.left[where] = self.left.get(where, 2) - 1
        if self.left[where] >= 0:
            time.sleep(0.4)


@pytest.mark.slow
def test_being_late_now_and_then_is_no_fault(tmp_path: Path) -> None:
    OnABusyMachine.left.clear()
    with installed(tmp_path, OnABusyMachine), Bench(subject(slow="right:slow")) as bench:
        came = [outcome(check, bench) for check in CHECKS.values() if check.group == "deadlines"]
    assert [(one.check, one.words) for one in came if one.verdict != "pass"] == []
    assert len(came) >= 7
    assert {"deadline True", "deadline False", "cancelled", "answered", "closed"} == set(OnABusyMachine.left)
