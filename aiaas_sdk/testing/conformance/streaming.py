"""`stream`: pieces that make the whole, and may be left at any moment."""

from __future__ import annotations

import gc
import pickle
from typing import Any

from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check, lacks


def _heard(bench: Bench, **sampling: Any) -> tuple[list[Any], Any]:
    """The deltas, and the whole."""
    with bench.model.stream(bench.subject.prompt, **{**bench.sampling, **sampling}) as stream:
        return list(stream), stream.result()


@check("stream")
def pieces_make_the_whole(bench: Bench) -> None:
    """The pieces' texts, joined, are the text of the result."""
    deltas, whole = _heard(bench)
    joined = "".join(delta.text for delta in deltas)
    agree(joined == whole.text, f"the pieces are {joined[:60]!r}, and the result is {whole.text[:60]!r}")
    agree(bool(joined), f"the stream for {bench.subject.prompt!r} is empty")


@check("stream")
def pieces_of_thought_make_the_whole(bench: Bench) -> None:
    """The pieces' reasoning, joined, is that of the result."""
    deltas, whole = _heard(bench)
    joined = "".join(delta.reasoning for delta in deltas)
    agree(joined == (whole.reasoning or ""), "the reasoning of the pieces isn't that of the result")


@check("stream")
def no_piece_is_empty(bench: Bench) -> None:
    """Each piece brings text, reasoning or a tool call."""
    deltas, _ = _heard(bench)
    empty = sum(not (delta.text or delta.reasoning or delta.tool_calls) for delta in deltas)
    agree(not empty, f"{empty} of {len(deltas)} pieces are empty")


@check("stream")
def streams_say_why_they_ended(bench: Bench) -> None:
    """`finish_reason` of the result is a word."""
    reason = _heard(bench)[1].finish_reason
    agree(type(reason) is str and bool(reason), f"finish_reason is {reason!r}")


@check("stream", "generate")
def streams_say_what_generate_says(bench: Bench) -> None:
    """With temperature=0, `stream` and `generate` say the same."""
    lacks("temperature" not in bench.sampling, "the model doesn't take temperature")
    streamed, said = _heard(bench)[1].text, bench.model.generate(bench.subject.prompt, **bench.sampling).text
    agree(streamed == said, f"generate says {said[:60]!r}, and stream {streamed[:60]!r}")


@check("stream")
def streams_keep_to_max_tokens(bench: Bench) -> None:
    """`max_tokens` bounds a stream, which says so."""
    lacks("max_tokens" not in bench.sampling, "the model doesn't take max_tokens")
    _, whole = _heard(bench)
    _, short = _heard(bench, max_tokens=1)
    lacks(len(whole.text) <= len(short.text), "the model's whole answer is one token")
    agree(short.finish_reason == "length", f"cut at max_tokens=1, finish_reason is {short.finish_reason!r}")


@check("stream")
def a_stream_may_be_left_early(bench: Bench) -> None:
    """A stream that is closed after its first piece leaves the model usable."""
    stream = bench.model.stream(bench.subject.prompt, **bench.sampling)
    next(iter(stream))
    stream.close()
    _, whole = _heard(bench)
    agree(bool(whole.text), "after a stream that was left, the next one is empty")


@check("stream")
def a_stream_may_be_dropped(bench: Bench) -> None:
    """A stream that nobody holds any more ends, and leaves the model usable."""
    stream = bench.model.stream(bench.subject.prompt, **bench.sampling)
    for _ in zip(range(2), stream, strict=False):
        pass
    del stream
    gc.collect()
    _, whole = _heard(bench)
    agree(bool(whole.text), "after a stream that was dropped, the next one is empty")


@check("stream")
def streams_run_side_by_side(bench: Bench) -> None:
    """Two streams of one model, read in turns, each say what they say alone."""
    alone = "".join(delta.text for delta in _heard(bench)[0])
    texts = ["", ""]
    one, other = (bench.model.stream(bench.subject.prompt, **bench.sampling) for _ in range(2))
    with one, other:
        running = {0: iter(one), 1: iter(other)}
        while running:
            for number in list(running):
                delta = next(running[number], None)
                if delta is None:
                    del running[number]
                else:
                    texts[number] += delta.text
    lacks("temperature" not in bench.sampling, "the model doesn't take temperature")
    agree(
        texts == [alone, alone], f"alone it says {alone[:60]!r}, side by side {texts[0][:60]!r} and {texts[1][:60]!r}"
    )


@check("stream")
def a_stream_left_awaited_leaves_the_model_usable(bench: Bench) -> None:
    """Awaited, a stream that is left in the middle leaves the model usable."""

    async def heard() -> str:
        async with bench.awaited.stream(bench.subject.prompt, **bench.sampling) as stream:
            pieces = aiter(stream)
            for _ in range(3):
                await anext(pieces, None)
        async with bench.awaited.stream(bench.subject.prompt, **bench.sampling) as stream:
            return (await stream.result()).text

    agree(bool(bench.wait(heard())), "after a stream that was left, the next one is empty")


@check("stream")
def streamed_answers_can_be_pickled(bench: Bench) -> None:
    """The result of a stream can be sent to another process."""
    whole = _heard(bench)[1]
    try:
        again = pickle.loads(pickle.dumps(whole))
    except Exception as error:
        agree(False, f"the answer can't be pickled: {error}")
    else:
        agree(again.text == whole.text, "the answer comes out of pickle as another one")
