"""A local language model, through both faces: what it says, how it ends, and what it refuses before any work."""

from __future__ import annotations

import math
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import ContextLengthError, InputError, StreamInterruptedError, UnsupportedOperationError
from aiaas_sdk.records.language import Attachment
from tests.stopwatch import Stopwatch

SAID = {"greet": "Grüße, 世界 🙂! Fine.", "count": "one two three four five six"}
Load = Any


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("text", SAID)
def test_an_answer_in_one_and_as_it_comes(load: Load, talker: str, text: str) -> None:
    with load(talker) as model:
        whole = model.generate(messages(text))
        for _ in range(5):  # a reader who comes late finds several together, but not each time
            pieces = list(model.stream(text))
            assert "".join(piece.text for piece in pieces) == SAID[text]
            if len(pieces) > 3:
                break
    assert whole.text == SAID[text] == "".join(piece.text for piece in pieces)
    assert whole.finish_reason == "stop"
    assert whole.backend == "torch"
    assert whole.version == "1"
    assert whole.attempts == 0
    assert len(pieces) > 3
    assert "\ufffd" not in "".join(piece.text for piece in pieces)


def test_a_model_says_what_it_can(load: Load, talker: str) -> None:
    with load(talker) as model:
        assert model.info().verbs >= {"predict", "generate", "stream", "explain"}
        with pytest.raises(UnsupportedOperationError, match="embed isn't available"):
            model.embed("text")


def test_usage_counts_the_prompt_and_what_was_drawn(load: Load, talker: str) -> None:
    with load(talker) as model:
        answer = model.generate("count", max_tokens=3)
        assert (answer.usage.output_tokens, answer.finish_reason) == (3, "length")
        more = model.generate("count")
        assert more.usage.input_tokens == answer.usage.input_tokens > 5
        assert SAID["count"].startswith(answer.text)
        assert answer.timing.compute is not None


@pytest.mark.parametrize(
    ("stop", "kept"),
    [
        (" three", "one two"),
        ("e t", "on"),
        (["six", "ve s"], "one two three four fi"),
        ("one", ""),
        ("never", SAID["count"]),
        ("x", "one two three four five si"),
    ],
)
def test_stop_texts_are_cut_exactly_however_they_fall_on_tokens(
    load: Load, talker: str, stop: str | list[str], kept: str
) -> None:
    with load(talker) as model:
        answer = model.generate("count", stop=stop, logprobs=0)
        assert (answer.text, answer.finish_reason) == (kept, "stop")
        assert kept.startswith("".join(entry["token"] for entry in answer.logprobs[:-1]))
        assert "".join(piece.text for piece in model.stream("count", stop=stop)) == kept


def test_half_a_character_is_never_shown(load: Load, talker: str) -> None:
    """The answer ends after each number of tokens: within characters of two, three and four bytes, too."""
    with load(talker) as model:
        whole = model.generate("greet")
        for count in range(1, whole.usage.output_tokens):
            answer = model.generate("greet", max_tokens=count)
            assert SAID["greet"].startswith(answer.text)
            assert "".join(piece.text for piece in model.stream("greet", max_tokens=count)) == answer.text


def test_logprobs_are_the_models_own(load: Load, talker: str) -> None:
    with load(talker) as model:
        answer = model.generate("count", logprobs=3)
        cold = model.generate("count", logprobs=3, temperature=1.7, seed=1, top_k=1)
    assert "".join(entry["token"] for entry in answer.logprobs) == answer.text
    for entry, other in zip(answer.logprobs, cold.logprobs, strict=True):
        best = entry["top_logprobs"]
        assert [one["logprob"] for one in best] == sorted((one["logprob"] for one in best), reverse=True)
        assert (len(best), best[0]["token"], best[0]["logprob"]) == (3, entry["token"], entry["logprob"])
        assert sum(math.exp(one["logprob"]) for one in best) <= 1.000001
        assert entry["logprob"] == pytest.approx(other["logprob"], abs=1e-4)
        assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]


def test_no_logprobs_unless_asked(load: Load, talker: str) -> None:
    with load(talker) as model:
        assert model.generate("count").logprobs is None
        assert model.generate("count", logprobs=0).logprobs[0]["top_logprobs"] == []


def test_a_seed_draws_the_same_again_and_the_answers_of_n_differ(load: Load, talker: str) -> None:
    with load(talker) as model:
        options: dict[str, Any] = {"temperature": 2.0, "seed": 7, "max_tokens": 20}
        first, again = model.generate("count", n=4, **options), model.generate("count", n=4, **options)
        texts = [first.text, *(other.text for other in first.others)]
        assert texts == [again.text, *(other.text for other in again.others)]
        assert len(set(texts)) == 4
        assert 40 < first.usage.output_tokens <= 80
        assert model.generate("count", **options).text == first.text  # alone as with the others
        assert model.generate("count", **{**options, "seed": 8}).text != first.text
        free = {model.generate("count", **{**options, "seed": None}).text for _ in range(3)}
        assert len(free) > 1


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 1, "seed": 3}, {"top_p": 1e-9}, {}])
def test_the_likeliest_tokens(load: Load, talker: str, options: dict[str, Any]) -> None:
    with load(talker) as model:
        assert model.generate("count", **options).text == SAID["count"]


# ---------------------------------------------------------------- refused before any work
def test_a_prompt_that_leaves_no_room_is_refused_at_once(load: Load, talker: str) -> None:
    with load(talker) as model:
        watch = Stopwatch()
        with pytest.raises(ContextLengthError, match=r"has \d+ tokens, and the model's context is 256"):
            model.generate("word " * 5000)
        with pytest.raises(ContextLengthError, match=r"max_tokens is 5000; .* max_tokens=\d+ at most"):
            model.generate("count", max_tokens=5000)
        with pytest.raises(ContextLengthError), model.stream("word " * 5000) as stream:
            next(stream)
        assert watch.took() < 2
        assert model.generate("count").text == SAID["count"]


def test_what_the_model_has_no_use_for_is_refused(load: Load, talker: str) -> None:
    image = Attachment(b"\x89PNG", "image/png")
    with load(talker) as model:
        with pytest.raises(UnsupportedOperationError, match="reads text alone, and a message holds image/png"):
            model.generate([aiaas.Message("user", ["what is this", image])])
        with pytest.raises(InputError, match="unknown option"):
            model.generate("x", logprob=1)


def test_parts_of_text_are_text(load: Load, talker: str) -> None:
    with load(talker) as model:
        parts = [{"type": "text", "text": "cou"}, {"type": "text", "text": "nt"}]
        assert model.generate([{"role": "user", "content": parts}]).text == SAID["count"]


# ---------------------------------------------------------------- ends that come from outside
def test_the_deadline_holds_before_and_after_the_first_content(load: Load, talker: str) -> None:
    with load(talker) as model:
        model.generate("count")
        with pytest.raises(aiaas.errors.DeadlineExceededError):
            model.generate("count", timeout=0.0005, temperature=2.0, seed=1)
        assert model.generate("count").text == SAID["count"]


def test_what_fails_after_the_first_content_keeps_it(talker: str) -> None:
    with aiaas.load(talker) as model, model.stream("count", temperature=2.0, seed=1, top_p=0.99) as stream:
        first = next(stream)
        model._engine.backend._speaker.close()
        with pytest.raises(StreamInterruptedError, match="closed while it spoke") as caught:
            list(stream)
    assert caught.value.partial.startswith(first.text)
    assert caught.value.partial == stream.text


def test_thinking_is_kept_apart(load: Load, talker: str) -> None:
    with load(talker) as model:
        answer = model.generate("think")
        pieces = list(model.stream("think"))
    assert (answer.text, answer.reasoning) == ("yes", "hm, hm")
    assert "".join(piece.text for piece in pieces) == "yes"
    assert "".join(piece.reasoning for piece in pieces) == "hm, hm"


def ends_of_streams(model: Any) -> set[type[BaseException]]:
    """How 30 of them end: a token of this model may be there before anybody could wait for it."""
    ends = set()
    for _ in range(30):
        stream = model.stream("count")
        try:
            stream.result()
        except aiaas.AiaasError as error:
            ends.add(type(error))
    return ends


def test_a_stream_here_has_the_limits_of_first_content_and_gap_too(load: Load, talker: str) -> None:
    with load(talker, attempt_timeout=1e-6) as model:
        assert ends_of_streams(model) == {aiaas.DeadlineExceededError}
    with load(talker, gap_timeout=1e-6) as model:
        assert ends_of_streams(model) == {StreamInterruptedError}
