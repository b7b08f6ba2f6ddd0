"""The language verbs as such, on `echo:` and on a scripted model: bounds, counts, and what a backend may give."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import aiaas_sdk as aiaas
from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.observing import observe
from aiaas_sdk.records.chat import Chat, Embedded
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.testing import Script


class Point(BaseModel):
    x: int


def double(x: int) -> int:
    """Doubles it."""
    return 2 * x


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def scripted(load: Any, script: Script) -> Iterator[Any]:
    with load(script.address) as model:
        yield model
    assert script.overruns == []


@pytest.fixture
def echo(load: Any) -> Iterator[Any]:
    with load("echo:") as model:
        yield model


def chat(script: Script, place: int) -> Chat:
    found = script.calls[place].chat
    assert found is not None
    return found


def asking(number: int) -> aiaas.ToolCall:
    return aiaas.ToolCall(f"id{number}", "double", {"x": number})


# ---------------------------------------------------------------- rounds
def test_tools_arent_run_without_rounds(script: Script, scripted: Any) -> None:
    script.say(tool_calls=[asking(1)])
    answer = scripted.generate("go", tools=[double])
    assert (answer.tool_calls, answer.finish_reason) == ((asking(1),), "tool_calls")
    assert [tool.name for tool in chat(script, 0).tools] == ["double"]
    assert len(script.calls) == 1


def test_each_round_tells_all_that_was_said(script: Script, scripted: Any) -> None:
    script.say("let me see", tool_calls=[asking(1), asking(2)]).say(tool_calls=[asking(3)]).say("done")
    assert scripted.generate("go", tools=[double], rounds=5).text == "done"
    said = [(message.role, message.text, message.tool_call_id) for message in chat(script, -1).messages]
    assert said == [
        ("user", "go", None),
        ("assistant", "let me see", None),
        ("tool", "2", "id1"),
        ("tool", "4", "id2"),
        ("assistant", "", None),
        ("tool", "6", "id3"),
    ]
    assert chat(script, 0).text == "go"
    assert chat(script, -1).text is None


def test_rounds_are_bounded(script: Script, scripted: Any) -> None:
    for number in range(3):
        script.say(tool_calls=[asking(number)])
    answer = scripted.generate("go", tools=[double], rounds=2)
    assert (len(script.calls), answer.tool_calls) == (3, (asking(2),))


@pytest.mark.parametrize("rounds", [-1, True, 1.0, None, "2"])
def test_rounds_are_a_number(scripted: Any, script: Script, rounds: Any) -> None:
    with pytest.raises(aiaas.InputError, match=r"rounds is .+ Give the number of times that tools may be run"):
        scripted.generate("go", tools=[double], rounds=rounds)
    assert script.calls == []


# ---------------------------------------------------------------- documents
def test_repairs_are_bounded_and_the_last_text_is_kept(script: Script, scripted: Any) -> None:
    for text in ("first", '{"x": "no"}', '{"y": 3}', '{"x": 3}'):
        script.say(text)
    with pytest.raises(aiaas.OutputError, match=r"doesn't fit Point after 3 tries: x: Field required") as caught:
        scripted.generate("go", output=Point)
    assert caught.value.text == '{"y": 3}'
    assert script.left == 1
    assert chat(script, 0).schema == ("Point", Point.model_json_schema())
    roles = [message.role for message in chat(script, 2).messages]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert "x: Input should be a valid integer" in chat(script, 2).messages[-1].text
    script.say('{"x": 3}')
    assert scripted.generate("go", output=Point).x == 3


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_or_refused_isnt_asked_for_again(script: Script, scripted: Any, reason: str) -> None:
    script.say('{"x": ', finish_reason=reason)
    with pytest.raises(aiaas.OutputError) as caught:
        scripted.generate("go", output=Point)
    assert (caught.value.text, len(script.calls)) == ('{"x": ', 1)


def test_tools_and_a_document_go_together(script: Script, scripted: Any) -> None:
    script.say(tool_calls=[asking(2)]).say("it is 4").say('{"x": 4}')
    assert scripted.generate("go", tools=[double], rounds=1, output=Point) == Point(x=4)


@pytest.mark.parametrize("output", [int, 3, "Point", Point(x=1), list[int]])
def test_an_output_that_is_none(scripted: Any, output: Any) -> None:
    with pytest.raises(aiaas.InputError, match=r"output is .+ Give a pydantic model, or a JSON schema"):
        scripted.generate("go", output=output)


def test_a_stream_is_checked_at_its_end_and_not_asked_for_again(script: Script, scripted: Any) -> None:
    script.stream(['{"x"', ': "no"}'])
    with scripted.stream("go", output=Point) as stream:
        with pytest.raises(aiaas.OutputError) as caught:
            stream.result()
        assert stream.text == caught.value.text == '{"x": "no"}'
    assert len(script.calls) == 1


# ---------------------------------------------------------------- several answers
def test_several_answers_are_one_and_its_others(echo: Any) -> None:
    answer = echo.generate("a b", n=3)
    assert [one.text for one in (answer, *answer.others)] == ["a b"] * 3
    assert [one.others for one in answer.others] == [(), ()]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 6)


def test_a_stream_has_one_answer(script: Script, scripted: Any) -> None:
    with pytest.raises(aiaas.InputError, match=r"a stream has one answer. Use generate for n of them"):
        scripted.stream("go", n=2).result()
    assert script.calls == []
    script.stream(["yes"])
    assert scripted.stream("go", n=1).result().text == "yes"


def test_tokens_that_nobody_counted_are_unknown(script: Script, scripted: Any) -> None:
    script.say("a").say("a", input_tokens=3, output_tokens=0)
    assert scripted.generate("go").usage.input_tokens is None
    usage = scripted.generate("go").usage
    assert (usage.input_tokens, usage.output_tokens) == (3, 0)


# ---------------------------------------------------------------- vectors
class WrongBackend(LocalBackend):
    """Embeds as its target says."""

    scheme = "wrong"

    def open(self) -> ModelInfo:
        return ModelInfo(name="wrong", verbs=self.verbs())

    def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        shapes = {"fewer": (len(texts) - 1, 2), "flat": (len(texts),), "deep": (len(texts), 2, 2)}
        if self.address.target == "double":
            return Embedded(np.zeros((len(texts), 2)))
        return Embedded(np.zeros(shapes[self.address.target], np.float32))


@hookimpl
def aiaas_backend(scheme: str) -> type[WrongBackend]:
    return WrongBackend


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend above, installed."""
    installed = tmp_path / "wrong-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[aiaas_sdk.backends]\nwrong = wrong_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "wrong_plugin", sys.modules[__name__])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("fewer", "embedded 2 texts as an array of shape [1, 2]"),
        ("flat", "embedded 2 texts as an array of shape [2]"),
        ("deep", "embedded 2 texts as an array of shape [2, 2, 2]"),
        ("double", "embedded texts as float64; vectors are float32"),
    ],
)
def test_vectors_are_one_a_text(load: Any, wrong: None, how: str, words: str) -> None:
    with load(f"wrong:{how}") as model, pytest.raises(aiaas.ProtocolError) as caught:
        model.embed(["a", "b"])
    assert f"wrong:{how} {words}" in str(caught.value)


def test_vectors_are_float32_in_the_order_of_the_texts(echo: Any) -> None:
    found = echo.embed(["ab", "b", ""])
    assert (found.array.shape, found.array.dtype, len(found)) == ((3, 26), np.float32, 3)
    assert found.array[1, :3].tolist() == [0, 1, 0]
    assert echo.embed("ab", dimensions=2).array.shape == (1, 2)


@pytest.mark.parametrize("dimensions", [0, -1, 1.0, True, "3"])
def test_dimensions_are_a_number(echo: Any, dimensions: Any) -> None:
    with pytest.raises(aiaas.InputError, match=r"dimensions is .+ Give a whole number from 1 on"):
        echo.embed("a", dimensions=dimensions)


# ---------------------------------------------------------------- counts and observers
def test_each_question_to_the_model_counts(script: Script, scripted: Any) -> None:
    script.say(tool_calls=[asking(1)]).say("done")
    scripted.generate("go", tools=[double], rounds=1)
    script.stream(["a"]).embed([[1.0]]).answer(aiaas.RateLimitedError("no"))
    scripted.stream("go").result()
    scripted.embed("a")
    with pytest.raises(aiaas.RateLimitedError):
        scripted.generate("go")
    with pytest.raises(aiaas.InputError):
        scripted.generate([])  # nothing was asked
    stats = scripted.stats()
    assert (stats.calls, stats.failures) == (5, 1)
    assert stats.seconds > 0


@pytest.mark.parametrize("way", ["leave", "close", "raise", "drop"])
def test_a_stream_that_its_reader_left_is_a_call_and_no_failure(script: Script, scripted: Any, way: str) -> None:
    script.stream(["a", "b"])
    stream = scripted.stream("go")
    assert next(stream).text == "a"
    if way == "leave":
        with stream:
            pass
    elif way == "close":
        stream.close()
    elif way == "raise":
        with pytest.raises(KeyError), stream:
            raise KeyError("the reader's own")
    del stream
    gc.collect()
    assert (scripted.stats().calls, scripted.stats().failures) == (1, 0)


class Witness:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []

    @hookimpl
    def aiaas_call_finished(self, call: Any, error: str | None) -> None:
        self.seen.append((call.verb, error))


def test_observers_see_the_verbs(script: Script, scripted: Any) -> None:
    script.say("a").stream(["a"]).embed([[1.0]])
    script.stream(["a"], then=aiaas.StreamInterruptedError("cut"))
    witness = Witness()
    with observe(witness):
        scripted.generate("go")
        scripted.stream("go").result()
        scripted.embed("go")
        with pytest.raises(aiaas.StreamInterruptedError) as caught:
            scripted.stream("go").result()
    assert caught.value.partial == "a"
    verbs = [("generate", None), ("stream", None), ("embed", None), ("stream", "StreamInterruptedError")]
    assert [seen for seen in witness.seen if seen[0] != "open"] == verbs
