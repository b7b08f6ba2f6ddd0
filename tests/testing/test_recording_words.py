"""Recording and replaying what language models say, by both faces."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import aiaas_sdk as aiaas
from aiaas_sdk.records.language import Attachment, Message, ToolCall
from aiaas_sdk.testing import Script, recording

NAMER = """
from aiaas_sdk.backends.base import RemoteBackend
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.chat import Choice, Spoken
from aiaas_sdk.records.model import ModelInfo

class NamerBackend(RemoteBackend):
    scheme = "namer"

    def opening(self, call):
        yield from ()
        return ModelInfo(name="alias", verbs=self.verbs())

    def readiness(self, call):
        yield from ()
        return True

    def generate(self, call, chat):
        yield from ()
        call.model, call.version, call.request_id = "model-of-may", "5", "7f-1"
        logprobs = [{"token": "x", "logprob": float("-inf"), "top_logprobs": []}]
        return Spoken((Choice("x", "stop", logprobs=logprobs), Choice("y", "length")), 1, 2)

@hookimpl
def aiaas_backend(scheme):
    return NamerBackend
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").split("\n")[1:] if line]


def shown(answer: Any) -> tuple[Any, ...]:
    """Everything that a Generation says, but for times."""
    own = answer.text, answer.reasoning, answer.tool_calls, answer.finish_reason, answer.logprobs, answer.message
    return *own, answer.usage, answer.model, answer.version, answer.backend, [shown(other) for other in answer.others]


# ---------------------------------------------------------------- the same without the model
def test_every_verb_is_replayed_after_its_model_is_gone(load: Any, file: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(2, 40)).astype(np.float32)
    calls = [aiaas.ToolCall("c1", "search", {"text": "grün\u2028", "a": 1})]
    script = Script().say("Hi \U0001f600", reasoning="hm", tool_calls=calls, input_tokens=3, output_tokens=4)
    script.stream([aiaas.Delta(reasoning="so"), "a ", "", aiaas.Delta(tool_calls=tuple(calls)), "b"], input_tokens=2)
    script.embed(vectors)
    address = script.address

    def use() -> tuple[Any, ...]:
        with load(address, timeout=20) as model:
            answer = model.generate([{"role": "user", "content": "hello"}], temperature=0.5, stop=["x"])
            with model.stream("hello", max_tokens=9) as stream:
                deltas = list(stream)
                whole, text = stream.result(), stream.text
            found = model.embed(["a", "b"], dimensions=40)
            array = found.array
            told = array.tobytes(), array.dtype, array.shape, found.usage, found.backend
            return shown(answer), deltas, shown(whole), text, told, model.info()

    with recording(file, "record"):
        first = use()
    del script
    gc.collect()
    with pytest.raises(aiaas.AddressError):
        load(address)
    with recording(file):
        assert use() == first
    assert first[4][0] == vectors.tobytes()
    assert [delta.text for delta in first[1]] == ["", "a ", "", "", "b"]


def test_what_a_peer_says_of_itself_is_replayed(load: Any, file: Path, monkeypatch: Any, tmp_path: Path) -> None:
    installed = tmp_path / "site" / "aiaas_namer-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-namer\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[aiaas_sdk.backends]\nnamer = namer_plugin\n")
    (tmp_path / "site" / "namer_plugin.py").write_text(NAMER)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with recording(file, "record"):
        first = load("namer:x").generate("hello", n=2)
    installed.rename(tmp_path / "elsewhere")
    sys.modules.pop("namer_plugin", None)
    with recording(file):
        again = load("namer:x").generate("hello", n=2)
    assert shown(again) == shown(first)
    assert (again.model, again.version, again.request_id, len(again.others)) == ("model-of-may", "5", "recorded", 1)
    assert "7f-1" not in file.read_text()
    assert lines(file)[1]["learnt"] == {
        "backend": "namer",
        "model": "model-of-may",
        "version": "5",
        "request_id": "recorded",
    }


def test_tools_run_again_and_a_changed_answer_of_one_is_a_miss(load: Any, file: Path) -> None:
    script = Script().say(tool_calls=[aiaas.ToolCall("c1", "add", {"a": 2, "b": 3})]).say("It is five.")
    offset = 0

    def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b + offset

    def use() -> Any:
        return load(script.address).generate("What is 2 + 3?", tools=[add], rounds=1)

    with recording(file, "record"):
        use()
    with recording(file):
        assert use().text == "It is five."
        offset = 1
        with pytest.raises(aiaas.UnsupportedOperationError, match="line 4: message 2 differs at character 0"):
            use()
    asked = lines(file)[2]
    assert [message["role"] for message in asked["prompt"]] == ["user", "assistant", "tool"]
    assert asked["prompt"][1]["tool_calls"] == [{"id": "c1", "name": "add", "arguments": {"a": 2, "b": 3}}]
    assert asked["tools"][0]["name"] == "add"


class Recipe(BaseModel):
    title: str
    minutes: int


def test_an_answer_that_is_asked_for_again_is_replayed_with_its_repair(load: Any, file: Path) -> None:
    script = Script().say("no").say('{"title": "Soup", "minutes": 20}')
    with recording(file, "record"):
        load(script.address).generate("A recipe", output=Recipe)
    with recording(file):
        assert load(script.address).generate("A recipe", output=Recipe) == Recipe(title="Soup", minutes=20)
    assert [line.get("schema", {}).get("name") for line in lines(file)] == [None, "Recipe", "Recipe"]
    assert len(script.calls) == 2


def test_equal_questions_are_answered_in_order_and_then_the_last_repeats(load: Any, file: Path) -> None:
    script = Script().say("one").say("two").answer(aiaas.RateLimitedError("slow down", retry_after=2))

    def ask(model: Any) -> Any:
        try:
            return model.generate("hello").text
        except aiaas.RateLimitedError as error:
            return error.retry_after

    with recording(file, "record"), load(script.address) as model:
        first = [ask(model) for _ in range(3)]
    with recording(file), load(script.address) as model:
        assert [ask(model) for _ in range(4)] == [*first, 2]


def test_a_recording_is_a_model_that_speaks(load: Any, file: Path) -> None:
    with recording(file, "record"), load("echo:") as model:
        model.generate("a b")
        model.stream("a b").result()
        model.embed("a b")
    with load(f"replay:{file}", timeout=5) as model:
        assert model.info().verbs == {"predict", "generate", "stream", "embed"}  # as the model said
        assert model.generate("a b").text == "a b"
        with model.stream("a b") as stream:
            assert [delta.text for delta in stream] == ["a", " b"]
            assert stream.result().usage.output_tokens == 2
        assert model.embed("a b").array.shape == (1, 26)
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"calls\.jsonl has no call like this.*character 2"):
            model.generate("a c")
        with pytest.raises(aiaas.UnsupportedOperationError, match="fit isn't available"):
            model.fit([1.0])
    with load([f"replay:{file}", "echo:"]) as model:  # what it can't answer goes on to the next
        assert model.generate("a c").backend == "echo"


def test_what_the_caller_changes_is_changed_in_no_recording(load: Any, file: Path) -> None:
    script = (
        Script()
        .say(tool_calls=[aiaas.ToolCall("c", "t", {"a": [1]})])
        .stream([aiaas.Delta(tool_calls=(aiaas.ToolCall("c", "t", {"a": [1]}),))])
    )
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]

    def use(address: str, change: bool) -> list[Any]:
        with load(address) as model:
            answer = model.generate(messages)
            with model.stream("hello") as stream:
                [delta] = list(stream)
            found = [answer.tool_calls[0].arguments, delta.tool_calls[0].arguments, stream.result().tool_calls[0]]
            told = json.dumps(found[:2]) + str(found[2])
            if change:
                for arguments in (*found[:2], found[2].arguments):
                    arguments["a"].append(2)
            return [told]

    with recording(file, "record"):
        first = use(script.address, change=True)
    with recording(file):
        assert use(script.address, change=True) == first
        assert use(script.address, change=False) == first
    with recording(file, "record"), load("echo:") as model:
        model.generate(messages)
        messages[0]["content"][0]["text"] = "changed"
    assert lines(file)[1]["prompt"][0]["content"][0]["text"] == "hello"
    with recording(file, "record"), load("echo:") as model:
        model.embed("a").array[:] = 7
    with recording(file), load("echo:") as model:
        model.embed("a").array[:] = 8
        assert model.embed("a").array[0, 0] == 1


# ---------------------------------------------------------------- streams that end early
def ended(stream: Any) -> tuple[list[str], Any]:
    """What it gives, and what ends it."""
    texts = []
    try:
        for delta in stream:
            texts.append(delta.text)
        return texts, shown(stream.result())
    except aiaas.AiaasError as error:
        return texts, (type(error), error.message, getattr(error, "partial", None), error.status, error.address)


def test_an_interruption_comes_after_the_same_deltas(load: Any, file: Path) -> None:
    script = Script().stream(["Once ", "upon"], then=aiaas.StreamInterruptedError("the peer hung up"))
    script.stream([], then=aiaas.UnavailableError("busy", status=503))

    def use() -> list[Any]:
        with load(script.address, retry=None) as model:
            return [ended(model.stream(text)) for text in ("one", "two")]

    with recording(file, "record"):
        first = use()
    with recording(file):
        assert use() == first
    assert first[0][0] == ["Once ", "upon"]
    assert first[0][1][2] == "Once upon"
    assert first[1][1][3] == 503
    assert lines(file)[1]["deltas"] == ["Once ", "upon"]


def test_a_model_here_that_fails_while_it_speaks_is_replayed(load: Any, file: Path, talker: str) -> None:
    told = []
    for mode in ("record", "replay"):
        with recording(file, mode), load(talker, timeout=20) as model:
            told.append(ended(model.stream("well think:hm fail")))
    assert told[0] == told[1]
    assert told[0][0] == ["well ", ""]
    assert told[0][1][:3:2] == (aiaas.StreamInterruptedError, "well ")
    assert "RuntimeError: lost the thread" in told[0][1][1]
    assert lines(file)[1]["error"]["class"] == "ModelError"


def test_a_stream_that_its_reader_left_is_replayed_as_far(load: Any, file: Path) -> None:
    def use() -> list[str]:
        with load("echo:") as model:
            with model.stream("one two three four") as stream:
                found = [next(stream).text, next(stream).text]
            for delta in model.stream("five six"):  # dropped at once
                found.append(delta.text)
                break
            return found

    with recording(file, "record"):
        first = use()
    gc.collect()
    with recording(file):
        assert use() == first
        with load("echo:") as model, model.stream("one two three four") as stream:
            assert [next(stream).text, next(stream).text] == first[:2]
            with pytest.raises(aiaas.UnsupportedOperationError, match="a stream that was left after 2 deltas"):
                next(stream)
    assert [(line["deltas"], line["answer"]) for line in lines(file)[1:]] == [(["one", " two"], None), (["five"], None)]


def test_a_stream_that_was_given_up_before_it_spoke_is_not_recorded(file: Path) -> None:
    script = Script().stream(["late"], after=30)

    async def main() -> None:
        async with aiaas.load_async(script.address) as model:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(model.stream("hello").result(), 0.05)

    with recording(file, "record"):
        asyncio.run(main())
    assert [line["verb"] for line in lines(file)] == ["open"]


# ---------------------------------------------------------------- misses
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "My key is hunter2-abc, what is the weather in Ulm?"},
]


def asking(content: Any, place: int = 1, role: str = "user") -> list[Any]:
    return [*HISTORY[:place], {"role": role, "content": content}, *HISTORY[place + 1 :]]


def search(text: str) -> str:
    """Look it up."""
    return text


def found(text: str) -> str:
    """Look it up."""
    return text


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        (asking("My key is hunter2-xyz, what is the weather in Ulm?"), {}, "message 1 differs at character 18"),
        (asking("Be brief!", 0, "system"), {}, "message 0 differs at character 8"),
        (asking("Be brief.", 0, "developer"), {}, "message 0 role is 'developer' and was 'system'"),
        (
            HISTORY[1:],
            {},
            "the number of messages is 1 and was 2; message 0 role is 'user' and was 'system'; message 0 dif",
        ),
        (asking(["hunter2"]), {}, "message 1 content is a list and was a text"),
        ("hunter2", {}, "the prompt is a text and was a list"),
        (asking(HISTORY[1]["content"]), {"temperature": 0.7}, "option temperature is 0.7 and was 0.5"),
        (
            HISTORY,
            {"temperature": None, "seed": 3},
            "option seed is 3 and was None; option temperature is None and was",
        ),
        (HISTORY, {"tools": []}, "the number of tools is 0 and was 1"),
        (HISTORY, {"tools": [found]}, "tool 0 name is 'found' and was 'search'"),
        (HISTORY, {"tools": [search, found]}, "the number of tools is 2 and was 1"),
    ],
)
def test_a_miss_says_what_differs_and_shows_no_contents(
    load: Any, file: Path, prompt: Any, options: dict[str, Any], words: str
) -> None:
    given = {"temperature": 0.5, "tools": [search]}
    with recording(file, "record"), load("echo:") as model:
        model.generate(HISTORY, **given)
        model.generate(HISTORY * 2, **given)
    with recording(file), load("echo:") as model:
        with pytest.raises(aiaas.UnsupportedOperationError, match=words) as caught:
            model.generate(prompt, **{**given, **options})
        model.generate(HISTORY, **given)
    assert "The nearest is line 3" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.message.startswith(f"{file} has no call like this: generate of echo: with ")


def test_a_recorded_answer_is_no_stream_and_a_stream_no_answer(load: Any, file: Path) -> None:
    with recording(file, "record"), load("echo:") as model:
        model.generate("one")
        model.stream("two").result()
    with recording(file), load("echo:") as model:
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"stream of echo: with a prompt of 3 char.*differs"):
            model.stream("one").result()
        with pytest.raises(aiaas.UnsupportedOperationError, match="generate of echo:"):
            model.generate("two")
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"1 text\. Of echo: it has generate, open, stream\."):
            model.embed("one")


def test_the_nearest_is_the_one_with_the_most_in_common(load: Any, file: Path) -> None:
    with recording(file, "record"), load("echo:") as model:
        for day in ("Monday is the day", "It was on 2024-05-01 that it rained", "Tuesday"):
            model.generate(day)
    with (
        recording(file),
        load("echo:") as model,
        pytest.raises(aiaas.UnsupportedOperationError, match="line 4: the prompt differs at character 16"),
    ):
        model.generate("It was on 2024-06-01 that it rained")


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (["one", "three"], {}, "text 1 differs at character 1"),
        (["one"], {}, "with 1 text.*the number of texts is 1 and was 2"),
        (["one", "two"], {"dimensions": 3}, "option dimensions is 3 and was None"),
    ],
)
def test_a_miss_of_vectors_says_which_text(load: Any, file: Path, texts: Any, options: Any, words: str) -> None:
    with recording(file, "record"), load("echo:") as model:
        model.embed(["one", "two"])
    with recording(file), load("echo:") as model, pytest.raises(aiaas.UnsupportedOperationError, match=words):
        model.embed(texts, **options)


def test_attachments_are_told_apart_by_their_bytes(load: Any, file: Path) -> None:
    def asked(data: bytes, kind: str = "image/png") -> list[Message]:
        return [Message("user", ["what is this?", Attachment(data, kind), Attachment(url="https://a.example/b.png")])]

    small, large = b"\x89PNG", bytes(5000)
    with recording(file, "record"), load("echo:") as model:
        model.generate(asked(small))
        model.generate(asked(large))
    parts = [line["prompt"][0]["content"] for line in lines(file)[1:]]
    assert ["base64" in part[1] for part in parts] == [True, False]
    assert (parts[1][1]["attachment"], parts[1][1]["size"], len(parts[1][1]["sha256"])) == ("image/png", 5000, 64)
    assert parts[0][2] == {"attachment": "application/octet-stream", "url": "https://a.example/b.png"}
    with recording(file), load("echo:") as model:
        model.generate(asked(small))
        model.generate(asked(large))
        with pytest.raises(aiaas.UnsupportedOperationError, match="message 0 content 1 sha256 differs"):
            model.generate(asked(b"\x89PNH"))
        with pytest.raises(aiaas.UnsupportedOperationError, match="attachment is 'image/gif' and was 'image/png'"):
            model.generate(asked(small, "image/gif"))


def test_the_bytes_of_an_attachment_may_be_taken_out_of_a_file(load: Any, file: Path) -> None:
    prompt = [Message("user", ["what is this?", Attachment(b"\x89PNG", "image/png")])]
    with recording(file, "record"), load("echo:") as model:
        model.generate(prompt)
    text = file.read_text()
    file.write_text(text.replace(', "base64": "iVBORw=="', ""))
    assert file.read_text() != text
    with recording(file), load("echo:") as model:
        assert model.generate(prompt).text == "what is this?"


def test_a_tools_own_contents_are_not_shown(load: Any, file: Path) -> None:
    def asked(name: str, amount: Any) -> list[Any]:
        call = ToolCall("c1", "pay", {"name": name, "amount": amount})
        return [Message("user", "pay"), Message("assistant", "", (call,)), Message("tool", "done", tool_call_id="c1")]

    with recording(file, "record"), load("echo:") as model:
        model.generate(asked("Smith", 7431))
    with recording(file), load("echo:") as model:
        with pytest.raises(aiaas.UnsupportedOperationError) as caught:
            model.generate(asked("Smythe", 7432))
        assert "arguments name differs at character 2; message 1 tool_calls 0 arguments amount differs" in str(
            caught.value
        )
        with pytest.raises(aiaas.UnsupportedOperationError, match="arguments amount differs"):
            model.generate(asked("Smith", 7431.0))
    assert "743" not in str(caught.value).replace(str(file), "")
    assert "Smy" not in str(caught.value)


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_what_json_cannot_hold_is_refused_before_it_is_asked(load: Any, file: Path, mode: Any) -> None:
    with recording(file, "record"):
        load("echo:").generate("hello")
    with recording(file, mode), load("echo:") as model:
        with pytest.raises(aiaas.InputError, match="message 0 holds a bytes, which JSON hasn't"):
            model.generate([{"role": "user", "content": [{"type": "image", "data": b"\x89PNG"}]}])
        model.generate("hello")
