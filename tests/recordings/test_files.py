"""The file of a recording: what is in it, and what is said of one that isn't right."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiaas_sdk import errors
from aiaas_sdk.errors import AiaasError, ModelNotFoundError, ProtocolError
from aiaas_sdk.recordings.calls import Asked, Outcome, Recorded
from aiaas_sdk.recordings.files import read, write
from aiaas_sdk.recordings.questions import asked
from aiaas_sdk.records.chat import Chat, Choice, Embedded, Spoken
from aiaas_sdk.records.language import Attachment, Delta, Message, ToolCall
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Tensor

X = Tensor("FP32", np.array([[1, 2]], np.float32))
Y = Tensor("FP32", np.array([[3]], np.float32))


def call(x: Tensor = X, y: Tensor = Y, **options: Any) -> Recorded:
    question = Asked("digits", "predict", {"x": x}, options=options)
    return Recorded(question, Outcome({"y": y}, None, {"backend": "oip"}))


def number(value: float) -> Tensor:
    return Tensor("FP32", np.array([value], np.float32))


def test_a_line_holds_one_call_the_question_first(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "calls.jsonl"
    write(path, [call(outputs=["y"])])
    assert path.read_text("utf-8") == (
        '{"aiaas_recording": 1}\n'
        '{"address": "digits", "verb": "predict", '
        '"inputs": {"x": {"datatype": "FP32", "shape": [1, 2], "data": [[1.0, 2.0]]}}, "options": {"outputs": ["y"]}, '
        '"answer": {"y": {"datatype": "FP32", "shape": [1, 1], "data": [[3.0]]}}, "learnt": {"backend": "oip"}}\n'
    )
    assert [p.name for p in path.parent.iterdir()] == ["calls.jsonl"]


def test_the_signature_comes_back(tmp_path: Path) -> None:
    info = ModelInfo(
        name="digits",
        version="3",
        versions=("1", "3"),
        inputs=(TensorSpec("x", "FP32", (-1, 3)),),
        outputs=(TensorSpec("y", "BF16", ()),),
        verbs=frozenset(("predict", "embed")),
        labels=("a", "b"),
        platform="p",
        device="cpu",
        metadata={"max_batch_size": 8, "nested": {"a": [1]}},
    )
    write(tmp_path / "c", [Recorded(Asked("d", "open"), Outcome(info))])
    assert read(tmp_path / "c")[0].outcome.answer == info


def test_metadata_that_json_lacks_is_left_out(tmp_path: Path) -> None:
    info = ModelInfo(name="d", metadata={"a": 1, "b": object(), "c": float("nan")})
    write(tmp_path / "c", [Recorded(Asked("d", "open"), Outcome(info))])
    assert read(tmp_path / "c")[0].outcome.answer.metadata == {"a": 1}


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_comes_back_as_its_class_with_its_attributes(tmp_path: Path, name: str) -> None:
    cls = getattr(errors, name)
    error = cls("it said grün \udc80", hint="wait", address="digits", status=418, retryable=True, retry_after=1.5)
    error.attempts, error.allowed = 2, 3
    if name == "StreamInterruptedError":
        error.partial = "half a sent"
    write(tmp_path / "c", [Recorded(Asked("d", "predict"), Outcome(error=error))])
    again = read(tmp_path / "c")[0].outcome.error
    assert type(again) is cls
    assert {key: getattr(again, key) for key in vars(error)} == vars(error)
    assert str(again) == str(error)


def test_an_error_of_a_plugin_is_the_nearest_of_ours(tmp_path: Path) -> None:
    class SoldOutError(errors.RateLimitedError):
        pass

    write(tmp_path / "c", [Recorded(Asked("d", "predict"), Outcome(error=SoldOutError("none left")))])
    assert type(read(tmp_path / "c")[0].outcome.error) is errors.RateLimitedError


def test_request_ids_are_replaced_so_that_the_file_stays_the_same(tmp_path: Path) -> None:
    error = AiaasError("request 12ab-3 failed", hint="say 12ab-3", request_id="12ab-3")
    write(tmp_path / "c", [Recorded(Asked("d", "predict"), Outcome(error=error, request_id=True))])
    assert "12ab" not in (tmp_path / "c").read_text()
    again = read(tmp_path / "c")[0].outcome.error
    assert (again.request_id, again.message, again.hint) == ("recorded", "request recorded failed", "say recorded")


# ---------------------------------------------------------------- what stays and in which order
def test_what_playing_repeats_anyway_is_written_once(tmp_path: Path) -> None:
    first, second = call(y=number(1)), call(y=number(2))
    write(tmp_path / "c", [first, first, second, second, second])
    answers = [recorded.outcome.answer["y"].array[0] for recorded in read(tmp_path / "c")]
    assert answers == [1, 1, 2]


def test_loads_are_written_where_one_failed(tmp_path: Path) -> None:
    fine, failed = (Recorded(Asked("d", "load"), Outcome(error=e)) for e in (None, AiaasError("no")))
    write(tmp_path / "c", [fine, call()])
    assert [r.asked.verb for r in read(tmp_path / "c")] == ["predict"]
    write(tmp_path / "c", [fine, failed])
    assert [r.asked.verb for r in read(tmp_path / "c")] == ["load", "load"]


def test_recording_again_keeps_the_order_and_adds_at_the_end(tmp_path: Path) -> None:
    one, two, new = call(number(1)), call(number(2)), call(number(3))
    write(tmp_path / "c", [one, two])
    before = (tmp_path / "c").read_bytes()
    write(tmp_path / "c", [two, one])
    assert (tmp_path / "c").read_bytes() == before
    write(tmp_path / "c", [new, two, one])
    assert (tmp_path / "c").read_bytes().startswith(before)


def test_nothing_recorded_is_no_file(tmp_path: Path) -> None:
    write(tmp_path / "c", [call()])
    write(tmp_path / "c", [])
    assert not (tmp_path / "c").exists()


def test_a_file_that_cant_be_read_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("<<<<<<< HEAD\n")
    write(tmp_path / "c", [call()])
    assert len(read(tmp_path / "c")) == 1


# ---------------------------------------------------------------- words
SEARCH = ToolCall("c1", "search", {"text": "grün\u2028", "limit": math.inf, "after": None, "a": 1})
SPOKEN = Spoken(
    (
        Choice("Hi \udc80", "stop", "hm", (SEARCH,), [{"token": "Hi", "logprob": -math.inf, "top_logprobs": []}]),
        Choice("", "length"),
    ),
    3,
    None,
)
CHAT = Chat((Message("system", "Be brief."), Message("user", ["see", Attachment(b"\x89PNG", "image/png", "a.png")])))


def spoken_of(verb: str, chat: Chat, outcome: Outcome) -> Recorded:
    return Recorded(asked("llm", verb, chat), outcome)


def test_a_conversation_reads_well(tmp_path: Path) -> None:
    chat = replace(CHAT, sampling={"temperature": 0.5, "stop": ("a", "b"), "max_tokens": 3})
    write(tmp_path / "c", [spoken_of("generate", chat, Outcome(Spoken((Choice("Hi", "stop"),), 5, 1)))])
    digest = hashlib.sha256(b"\x89PNG").hexdigest()
    assert (tmp_path / "c").read_text("utf-8").split("\n")[1] == (
        '{"address": "llm", "verb": "generate", "prompt": [{"role": "system", "content": "Be brief."}, '
        '{"role": "user", "content": ["see", {"attachment": "image/png", "name": "a.png", "size": 4, '
        f'"sha256": "{digest}", "base64": "iVBORw=="}}]}}], '
        '"options": {"max_tokens": 3, "stop": ["a", "b"], "temperature": 0.5}, '
        '"answer": {"choices": [{"text": "Hi", "finish_reason": "stop"}], "input_tokens": 5, "output_tokens": 1}}'
    )


def test_a_stream_reads_well(tmp_path: Path) -> None:
    chat = Chat((Message("user", "hello"),), "hello")
    deltas = (Delta("a "), Delta("", "hm"), Delta("b"))
    write(tmp_path / "c", [spoken_of("stream", chat, Outcome(Spoken((Choice("a b", "stop", "hm"),)), deltas=deltas))])
    assert (tmp_path / "c").read_text("utf-8").split("\n")[1] == (
        '{"address": "llm", "verb": "stream", "prompt": "hello", "deltas": ["a ", {"reasoning": "hm"}, "b"], '
        '"answer": {"choices": [{"text": "a b", "finish_reason": "stop", "reasoning": "hm"}]}}'
    )


def test_what_was_said_comes_back(tmp_path: Path) -> None:
    deltas = (Delta("Hi"), Delta(""), Delta("", "hm", (SEARCH,)), Delta("x", tool_calls=(ToolCall("", "s", "{no"),)))
    calls = [
        spoken_of("generate", CHAT, Outcome(SPOKEN)),
        spoken_of("stream", CHAT, Outcome(SPOKEN, deltas=deltas)),
        spoken_of("stream", CHAT, Outcome(None, deltas=deltas)),
        spoken_of("stream", CHAT, Outcome(error=errors.StreamInterruptedError("cut", partial="Hi"), deltas=deltas)),
    ]
    write(tmp_path / "c", calls)
    again = read(tmp_path / "c")
    assert [r.outcome.answer for r in again] == [SPOKEN, SPOKEN, None, None]
    assert [r.outcome.deltas for r in again] == [(), deltas, deltas, deltas]
    assert [r.asked.key() for r in again] == [r.asked.key() for r in calls]
    assert list(again[0].outcome.answer.choices[0].tool_calls[0].arguments) == list(SEARCH.arguments)  # in their order
    assert getattr(again[3].outcome.error, "partial", None) == "Hi"


def test_recording_it_again_changes_nothing(tmp_path: Path) -> None:
    first = [spoken_of("generate", CHAT, Outcome(SPOKEN)), spoken_of("stream", CHAT, Outcome(SPOKEN))]
    write(tmp_path / "c", first)
    before = (tmp_path / "c").read_bytes()
    write(tmp_path / "c", list(reversed(first)))
    assert (tmp_path / "c").read_bytes() == before


@pytest.mark.parametrize("size", [64, 65])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_vectors_come_back_bit_by_bit(tmp_path: Path, size: int, kind: Any) -> None:
    array = np.random.default_rng(size).normal(size=(2, size // 2)).astype(kind)
    array[0, 0], array[1, 0] = np.nan, -0.0
    write(tmp_path / "c", [Recorded(asked("e", "embed", ("a", "b"), None), Outcome(Embedded(array, 2)))])
    answer = read(tmp_path / "c")[0].outcome.answer
    assert (answer.array.dtype, answer.array.shape, answer.input_tokens) == (array.dtype, array.shape, 2)
    assert answer.array.tobytes() == array.tobytes()


# ---------------------------------------------------------------- bad files
LINE: dict[str, Any] = {"address": "d", "verb": "ready", "answer": True}
PREDICT: dict[str, Any] = {"address": "d", "verb": "predict", "answer": {}}
CHOICE: dict[str, Any] = {"text": "hi", "finish_reason": "stop"}
GENERATE: dict[str, Any] = {"address": "d", "verb": "generate", "prompt": "p", "answer": {"choices": [CHOICE]}}
STREAM: dict[str, Any] = GENERATE | {"verb": "stream", "deltas": ["hi"]}
VECTORS: dict[str, Any] = {"datatype": "FP32", "shape": [1, 1], "data": [[1]]}
EMBED: dict[str, Any] = {"address": "d", "verb": "embed", "texts": ["t"], "answer": {"vectors": VECTORS}}


def said(**changes: Any) -> dict[str, Any]:
    return GENERATE | {"answer": {"choices": [CHOICE | changes]}}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no call"),
        ('{"address": "d", "verb": "ready", "answer": NaN}', "no JSON"),
        (LINE | {"adress": 1}, "unknown key 'adress'"),
        (LINE | {"verb": "predcit"}, "its verb is 'predcit'"),
        (LINE | {"verb": ["ready"]}, "verb"),
        (LINE | {"address": None}, "address"),
        ({"address": "d", "verb": "ready"}, "exactly one of answer and error"),
        (LINE | {"error": {}}, "exactly one of answer and error"),
        (LINE | {"answer": 1}, "neither true nor false"),
        (LINE | {"verb": "load"}, "isn't null"),
        (LINE | {"verb": "open"}, "what the model is"),
        (LINE | {"verb": "open", "answer": {"name": "d", "inputs": [{"name": "x"}]}}, "what the model is"),
        (LINE | {"verb": "open", "answer": {"name": "d", "colour": "red"}}, "what the model is"),
        (PREDICT | {"answer": []}, "no object of tensors"),
        (PREDICT | {"answer": {"y": 1}}, "answer 'y' is no tensor"),
        (PREDICT | {"inputs": []}, "inputs is no object"),
        (PREDICT | {"inputs": {"x": 1}}, "input 'x' is no tensor"),
        (PREDICT | {"learnt": {"attempts": "2"}}, "learnt has 'attempts'"),
        (PREDICT | {"learnt": {"colour": 2}}, "learnt has 'colour'"),
        ({"address": "d", "verb": "predict", "error": {"class": "KeyError", "message": "m"}}, "class 'KeyError'"),
        ({"address": "d", "verb": "predict", "error": {"class": "InputError"}}, "message"),
        ({"address": "d", "verb": "predict", "error": []}, "no error"),
        (
            {"address": "d", "verb": "predict", "error": {"class": "InputError", "message": "m", "__class__": 1}},
            "attribute '__class__'",
        ),
        (PREDICT | {"prompt": "p"}, "a call of predict has no prompt"),
        (PREDICT | {"deltas": []}, "a stream has deltas, and no other verb has"),
        (GENERATE | {"inputs": {"x": 1}}, "a call of generate has no inputs"),
        (GENERATE | {"texts": ["t"]}, "a call of generate has no texts"),
        ({key: value for key, value in GENERATE.items() if key != "prompt"}, "a call of generate needs prompt"),
        (GENERATE | {"prompt": 1}, "prompt is none"),
        (GENERATE | {"prompt": [{"role": "user"}]}, "prompt is none"),
        (GENERATE | {"tools": ["search"]}, "tools is none"),
        (GENERATE | {"schema": {"name": "R"}}, "schema is none"),
        (GENERATE | {"answer": None}, "answer is no object"),
        (GENERATE | {"answer": {}}, "answer has no choices"),
        (GENERATE | {"answer": {"choices": [CHOICE], "input_tokens": True}}, "input_tokens of another kind"),
        (GENERATE | {"answer": {"choices": [{"text": "hi"}]}}, "answer choice 0 has no finish_reason"),
        (said(colour="red"), "choice 0 has the unknown key 'colour'"),
        (said(text=1), "choice 0 has a text of another kind"),
        (said(tool_calls=[{"id": "1", "name": "s"}]), "choice 0 tool call 0 has no arguments"),
        (said(tool_calls=[{"id": "1", "name": "s", "arguments": 1}]), "arguments of another kind"),
        (said(logprobs=[{"logprob": {"$number": "many"}}]), r"\$number that is none of NaN"),
        ({key: value for key, value in STREAM.items() if key != "deltas"}, "a stream has deltas"),
        (STREAM | {"deltas": "hi"}, "deltas is no list"),
        (STREAM | {"deltas": ["hi", 1]}, "deltas 1 is no object"),
        (STREAM | {"deltas": [{"tool_calls": {}}]}, "deltas 0 has a tool_calls of another kind"),
        (EMBED | {"texts": [1]}, "texts is none"),
        (EMBED | {"answer": {"vectors": [1]}}, "vectors of another kind"),
        (EMBED | {"answer": {"vectors": VECTORS | {"shape": [2, 1]}}}, "vectors"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: Any, words: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    (tmp_path / "c.jsonl").write_text(f'{{"aiaas_recording": 1}}\n{json.dumps(LINE)}\n\n{text}\n')
    with pytest.raises(ProtocolError, match=rf"c\.jsonl line 4.*{words}"):
        read(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1 doesn't say"),
        (b"{}", "line 1 doesn't say"),
        (b"[1]\n", "line 1 doesn't say"),
        (b'{"address": "d"}\n', "line 1 doesn't say"),
        (b'{"aiaas_recording": 2}\n', "of version 2, and this release reads 1"),
        (b"\xff\xfe", "isn't UTF-8"),
    ],
)
def test_what_is_no_recording_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "c.jsonl").write_bytes(content)
    with pytest.raises(ProtocolError, match=words):
        read(tmp_path / "c.jsonl")


def test_line_ends_of_windows_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path / "c", [call()])
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes().replace(b"\n", b"\r\n"))
    assert len(read(tmp_path / "c")) == 1


def test_no_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="No such file"):
        read(tmp_path / "nowhere.jsonl")
    with pytest.raises(ModelNotFoundError, match="can't be read"):
        read(tmp_path)
