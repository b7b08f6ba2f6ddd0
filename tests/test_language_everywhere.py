"""One suite for the language verbs: here, behind `aiaas serve`, behind a gateway to it, as a route; both faces.

The models are `echo:`, which says the last message again, and `talker:` (tests/talker.py), which does what it says.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, RootModel

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from tests.stopwatch import Stopwatch
from tests.talker import STEPS

pytestmark = pytest.mark.slow
NOBODY = "openai+http://127.0.0.1:9/v1#x"


class Point(BaseModel):
    x: int


class Points(RootModel[list[Point]]):
    pass


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def divide(a: int, b: int) -> float:
    """Divides them."""
    return a / b


@pytest.fixture(scope="module")
def served(talker: str) -> Iterator[str]:
    with serve_in_thread(["echo=echo:", f"talker={talker}"]) as url:
        yield f"openai+{url}/v1"


@pytest.fixture(scope="module")
def gateway(served: str) -> Iterator[str]:
    with serve_in_thread([f"echo={served}#echo", f"talker={served}#talker"]) as url:
        yield f"openai+{url}/v1"


@pytest.fixture(params=["here", "served", "gateway", "route", "route here"])
def where(request: pytest.FixtureRequest) -> Any:
    """Gives the address of `echo` or `talker` at that place."""

    def address(name: str) -> Any:
        if request.param.endswith("here"):
            return f"{name}:" if request.param == "here" else [NOBODY, f"{name}:"]
        if request.param == "route":
            return [NOBODY, f"{request.getfixturevalue('served')}#{name}"]
        return f"{request.getfixturevalue(request.param)}#{name}"

    request.getfixturevalue("talker")
    return address


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> None:
    """Leaves routes out: what none of its members can do is told as the last one tells it, and one isn't there."""
    if "route" in request.node.callspec.id:
        pytest.skip("a route's error is that of the member that was asked last")


@pytest.fixture
def echo(load: Any, where: Any) -> Iterator[Any]:
    with load(where("echo"), timeout=30) as model:
        yield model


@pytest.fixture
def talking(load: Any, where: Any) -> Iterator[Any]:
    with load(where("talker"), timeout=30, retry=None) as model:
        yield model


# ---------------------------------------------------------------- generate
def test_a_text_is_answered(echo: Any) -> None:
    answer = echo.generate("hello big world")
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("hello big world", "stop", ())
    assert (answer.model, answer.reasoning, answer.logprobs, answer.others) == ("echo", None, None, ())
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 3)
    assert answer.backend in ("echo", "openai")
    assert answer.timing.total > 0
    assert (answer.message.role, answer.message.text) == ("assistant", "hello big world")


def test_messages_are_answered(echo: Any) -> None:
    said = [aiaas.Message("system", "be brief"), {"role": "user", "content": ["what", " is it"]}]
    assert echo.generate(said).text == "what is it"
    went_on = [*said, echo.generate(said).message, aiaas.Message("user", "more")]
    assert echo.generate(went_on).text == "more"


def test_options_of_sampling_are_kept(echo: Any) -> None:
    options: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 1, "stop": ["world"]}
    answer = echo.generate("hello big world", max_tokens=1, n=2, **options)
    assert [one.text for one in (answer, *answer.others)] == ["hello", "hello"]
    assert answer.finish_reason == "length"
    assert echo.generate("hello big world", stop="big").text == "hello "


def test_probabilities_are_given_where_they_are_asked_for(echo: Any) -> None:
    found = echo.generate("a b", logprobs=1).logprobs
    assert [(entry["token"], entry["logprob"]) for entry in found] == [("a", 0.0), (" b", 0.0)]
    assert [(other["token"], other["logprob"]) for other in found[1]["top_logprobs"]] == [(" b", 0.0)]


def test_what_cant_be_is_refused_before_anything_is_sent(echo: Any) -> None:
    for options, words in (({"temperature": 3}, "from 0 to 2"), ({"n": 0}, "from 1"), ({"warmth": 1}, "warmth")):
        with pytest.raises(aiaas.InputError, match=words) as caught:
            echo.generate("x", **options)
        assert caught.value.attempts == 0
    for prompt in ([], [{"role": "king", "content": "x"}], 3, [{"content": "x"}]):
        with pytest.raises(aiaas.InputError):
            echo.generate(prompt)
    with pytest.raises(aiaas.InputError, match="one answer"):
        echo.stream("x", n=2).result()


def test_thoughts_are_kept_apart(talking: Any) -> None:
    answer = talking.generate("think:hm yes")
    assert (answer.text, answer.reasoning) == ("yes ", "hm")
    with talking.stream("think:hm yes") as stream:
        deltas = list(stream)
    assert [(delta.text, delta.reasoning) for delta in deltas] == [("", "hm"), ("yes ", "")]
    assert (stream.text, stream.result().reasoning) == ("yes ", "hm")


# ---------------------------------------------------------------- stream
def test_a_stream_gives_what_the_whole_would(echo: Any) -> None:
    whole = echo.generate("hello big world")
    with echo.stream("hello big world") as stream:
        deltas = [delta.text for delta in stream]
    assert deltas == ["hello", " big", " world"]
    assert stream.text == "hello big world"
    answer = stream.result()
    assert (answer.text, answer.finish_reason) == (whole.text, whole.finish_reason)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 3)
    assert stream.result().text == answer.text
    assert list(stream) == []


def test_the_rest_is_read_by_result(echo: Any) -> None:
    stream = echo.stream("hello big world", max_tokens=2)
    assert next(stream).text == "hello"
    assert stream.result().text == "hello big"
    assert stream.result().finish_reason == "length"


def test_an_empty_answer_is_one(echo: Any) -> None:
    assert echo.generate("").text == ""
    with echo.stream("") as stream:
        assert list(stream) == []
    assert stream.result().text == ""


def test_pieces_come_when_they_are_made(talking: Any) -> None:
    talking.info()
    watch = Stopwatch()
    with talking.stream("one wait:1 two") as stream:
        assert next(stream).text == "one "
        assert watch.took() < 0.9
        assert next(stream).text == "two "
        assert watch.took() > 0.9


def _failing(stream: Any) -> None:
    with stream:
        next(stream)
        raise KeyError("mine")


@pytest.mark.parametrize("way", ["leave", "close", "raise", "drop"])
def test_who_leaves_early_stops_the_work(talking: Any, way: str) -> None:
    if way == "leave":
        with talking.stream("forever") as stream:
            assert next(stream).text == "on "
    elif way == "close":
        stream = talking.stream("forever")
        next(stream)
        stream.close()
        stream.close()
    elif way == "raise":
        stream = talking.stream("forever")
        with pytest.raises(KeyError, match="mine"):
            _failing(stream)
    else:
        stream = talking.stream("forever")
        next(stream)
    if way != "drop":
        assert stream.text == "on "
        with pytest.raises(aiaas.ClosedError):
            stream.result()
    del stream
    gc.collect()
    # the other side hears of it, and its one thread is free again
    assert talking.generate("again").text == "again "
    made = len(STEPS)
    time.sleep(0.2)
    assert len(STEPS) == made


def test_a_stream_that_nobody_begins_asks_for_nothing(talking: Any) -> None:
    made = len(STEPS)
    stream = talking.stream("one two")
    stream.close()
    del stream
    talking.stream("one two")
    with talking.stream("one two"):
        pass
    gc.collect()
    time.sleep(0.1)
    assert len(STEPS) == made


# ---------------------------------------------------------------- tools
def test_tools_are_asked_for(echo: Any) -> None:
    answer = echo.generate('add({"a": 1, "b": 2})\nadd({"a": 3, "b": 4})', tools=[add, divide])
    assert answer.finish_reason == "tool_calls"
    assert answer.text == ""
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [
        ("add", {"a": 1, "b": 2}),
        ("add", {"a": 3, "b": 4}),
    ]
    assert len({call.id for call in answer.tool_calls}) == 2


def test_tools_are_asked_for_in_a_stream(echo: Any) -> None:
    with echo.stream('add({"a": 1, "b": 2})', tools=[add]) as stream:
        calls = [call for delta in stream for call in delta.tool_calls]
    assert [(call.name, call.arguments) for call in calls] == [("add", {"a": 1, "b": 2})]
    assert stream.result().tool_calls == tuple(calls)
    assert stream.result().finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ('add({"a": 1, "b": 2})', "3"),
        ('add({"a": 1, "b": 2})\ndivide({"a": 1, "b": 2})', "0.5"),  # the last one's answer is the last message
        ('add({"a": 1})', "error: b: Missing required argument"),
        ('divide({"a": 1, "b": 0})', "error: ZeroDivisionError: division by zero"),
    ],
)
def test_tools_are_run_and_their_answers_answered(echo: Any, asked: str, said: str) -> None:
    answer = echo.generate(asked, tools=[add, divide], rounds=2)
    assert (answer.text, answer.finish_reason) == (said, "stop")


def test_a_tool_may_be_a_schema_for_whoever_runs_it(echo: Any) -> None:
    function = {"name": "find", "description": "Finds.", "parameters": {"type": "object"}, "strict": True}
    tool = {"type": "function", "function": function}
    asked = [aiaas.Message("user", 'find({"what": "it"})')]
    answer = echo.generate(asked, tools=[tool, add])
    [call] = answer.tool_calls
    assert (call.name, call.arguments) == ("find", {"what": "it"})
    told = aiaas.Message("tool", "here it is", tool_call_id=call.id, name="find")
    assert echo.generate([*asked, answer.message, told], tools=[tool]).text == "here it is"
    with pytest.raises(aiaas.InputError, match=r"'find' is a schema, and can't be run.*rounds"):
        echo.generate(asked, tools=[tool], rounds=1)


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ({"type": "web_search"}, "web_search"),
        ({"type": "function"}, "no function"),
        ({"type": "function", "function": {"name": "a b"}}, "name"),
        ({"type": "function", "function": {"name": "a", "parameters": "x"}}, "wrong type"),
        ({"type": "function", "function": {"name": "a", "strict": "x"}}, "wrong type"),
        ({"type": "function", "function": {"name": "add"}}, "two tools"),
        (3, "int"),
    ],
)
def test_a_tool_that_is_none_is_refused(echo: Any, tool: Any, words: str) -> None:
    with pytest.raises(aiaas.InputError, match=words):
        echo.generate("x", tools=[add, tool])


# ---------------------------------------------------------------- documents
def test_an_answer_becomes_a_record(echo: Any) -> None:
    assert echo.generate('{"x": 3}', output=Point) == Point(x=3)
    assert echo.generate('Sure:\n```json\n{"x": 3}\n```\nWell?', output=Point) == Point(x=3)
    assert echo.generate('[{"x": 3}, {"x": 4}]', output=Points).root == [Point(x=3), Point(x=4)]


def test_an_answer_to_a_schema_stays_one(echo: Any) -> None:
    answer = echo.generate('Here: {"x": 3}!', output=Point.model_json_schema())
    assert (answer.text, answer.usage.output_tokens) == ('{"x": 3}', 3)
    pair = echo.generate('{"x": 3}', output={"type": "object"}, n=2)
    assert [one.text for one in (pair, *pair.others)] == ['{"x": 3}'] * 2
    cut = echo.generate('{"x": 3}', output={"type": "object"}, max_tokens=1)
    assert (cut.text, cut.finish_reason) == ('{"x":', "length")


def test_an_answer_that_doesnt_fit_is_asked_for_again(talking: Any) -> None:
    made = len(STEPS)
    assert talking.generate("mend:3", output=Point) == Point(x=3)
    assert STEPS[made:] == ["mend:3 ", '{"x": ', "3} "]


@pytest.mark.parametrize("output", [Point, {"type": "object"}, {"type": "array"}])
def test_an_answer_that_never_fits_is_an_error_with_its_text(echo: Any, output: Any) -> None:
    with pytest.raises(aiaas.OutputError, match="3 tries") as caught:
        echo.generate("no document", output=output)
    assert caught.value.text.startswith("This doesn't fit the schema")  # what it was told at last, said again


def test_an_answer_that_was_cut_isnt_asked_for_again(talking: Any, echo: Any) -> None:
    with pytest.raises(aiaas.OutputError) as caught:
        echo.generate('{"x": 3}', output=Point, max_tokens=1)
    assert "tries" not in str(caught.value)
    assert caught.value.text == '{"x":'


def test_a_stream_is_checked_at_its_end(echo: Any) -> None:
    assert echo.stream('{"x": 3}', output=Point).result().text == '{"x": 3}'
    assert echo.stream('{"x": 3}', output={"type": "object"}).result().text == '{"x": 3}'
    for output in (Point, {"type": "object"}):
        stream = echo.stream("no document", output=output)
        assert next(stream).text == "no"
        with pytest.raises(aiaas.OutputError) as caught:
            stream.result()
        assert (caught.value.text, stream.text) == ("no document", "no document")


def test_a_tool_may_be_asked_for_before_a_document(echo: Any) -> None:
    answer = echo.generate('add({"a": 1, "b": 2})', tools=[add], output={"type": "object"})
    assert answer.finish_reason == "tool_calls"
    assert echo.generate('add({"a": 1, "b": 2})', tools=[add], rounds=1, output={"type": "integer"}).text == "3"


def test_an_output_that_is_none_is_refused(echo: Any) -> None:
    for output in (int, "json", Point(x=1)):
        with pytest.raises(aiaas.InputError, match="pydantic model, or a JSON schema"):
            echo.generate("x", output=output)


# ---------------------------------------------------------------- embed
def test_texts_become_vectors_in_their_order(echo: Any) -> None:
    found = echo.embed(["ab", "c", "the quick brown fox"])
    assert (found.array.dtype, found.array.shape, len(found)) == (np.float32, (3, 26), 3)
    assert np.allclose(found.array[1], np.eye(26)[2])
    assert np.allclose(found.array[0, :2], 0.5**0.5)
    assert found.usage.input_tokens == 6
    assert np.array_equal(echo.embed("ab").array[0], found.array[0])
    assert echo.embed("ab", dimensions=2).array.shape == (1, 2)


def test_what_cant_be_embedded_is_refused(echo: Any) -> None:
    for texts in ([], [1], 3):
        with pytest.raises(aiaas.InputError):
            echo.embed(texts)
    with pytest.raises(aiaas.InputError, match="dimensions"):
        echo.embed("x", dimensions=0)


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("fail", aiaas.ModelError),
        ("long", aiaas.ContextLengthError),
    ],
)
def test_the_same_failure_is_the_same_error_everywhere(talking: Any, words: str, kind: type[aiaas.AiaasError]) -> None:
    for ask in (lambda: talking.generate(words), lambda: talking.stream(words).result()):
        with pytest.raises(kind) as caught:
            ask()
        assert type(caught.value) is kind
    assert talking.generate("well").text == "well "


@pytest.mark.usefixtures("alone")
def test_a_pause_that_is_asked_for_is_told_everywhere(talking: Any) -> None:
    for ask in (lambda: talking.generate("busy"), lambda: talking.stream("busy").result()):
        with pytest.raises(aiaas.RateLimitedError) as caught:
            ask()
        assert caught.value.retry_after == 3


def test_a_stream_that_breaks_says_what_had_come(talking: Any) -> None:
    stream = talking.stream("one two fail")
    with pytest.raises(aiaas.StreamInterruptedError, match="raised RuntimeError") as caught:
        list(stream)
    assert caught.value.partial == stream.text == "one two "
    with pytest.raises(aiaas.StreamInterruptedError):
        stream.result()
    assert talking.generate("well").text == "well "


def test_a_deadline_ends_both(talking: Any) -> None:
    talking.info()
    begun = time.monotonic()
    with pytest.raises(aiaas.DeadlineExceededError):
        talking.generate("wait:0.8 x", timeout=0.2)
    stream = talking.stream("forever", timeout=3)
    with pytest.raises(aiaas.StreamInterruptedError) as caught:
        list(stream)
    assert caught.value.partial.startswith("on on ")
    assert time.monotonic() - begun < 15


@pytest.mark.usefixtures("alone")
def test_a_verb_that_isnt_there_says_so(talking: Any) -> None:
    with pytest.raises((aiaas.UnsupportedOperationError, aiaas.InvalidRequestError), match="embed isn't available"):
        talking.embed("x")


def test_calls_are_counted_and_a_closed_model_says_so(load: Any, where: Any) -> None:
    model = load(where("echo"), timeout=30)
    model.generate("x")
    model.stream("x").result()
    model.embed("x")
    assert (model.stats().calls, model.stats().failures) == (3, 0)
    with pytest.raises(aiaas.InputError):
        model.stream("x", temperature=9).result()
    model.close()
    for ask in (lambda: model.generate("x"), lambda: model.stream("x"), lambda: model.embed("x")):
        with pytest.raises(aiaas.ClosedError):
            ask()


async def test_a_task_that_is_cancelled_stops_the_work(where: Any) -> None:
    async with aiaas.load_async(where("talker"), timeout=30) as model:

        async def listen() -> None:
            async with model.stream("forever") as stream:
                async for _ in stream:
                    pass

        for _ in range(3):
            task = asyncio.ensure_future(listen())
            await asyncio.sleep(0.15)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await model.generate("again")).text == "again "


async def test_many_streams_run_at_once(where: Any) -> None:
    async with aiaas.load_async(where("echo"), timeout=60) as model:

        async def said(number: int) -> str:
            async with model.stream(f"number {number} it is") as stream:
                return "".join([delta.text async for delta in stream])

        assert await asyncio.gather(*map(said, range(30))) == [f"number {number} it is" for number in range(30)]
