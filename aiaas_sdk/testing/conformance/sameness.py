"""Sync equals async: the two faces say the same."""

from __future__ import annotations

from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check


@check()
def info_is_the_same_awaited(bench: Bench) -> None:
    """Awaited, the model says the same of itself."""
    other = bench.wait(bench.awaited.info())
    differing = [name for name in ModelInfo.__dataclass_fields__ if getattr(other, name) != getattr(bench.info, name)]
    agree(not differing, f"awaited, it says something else as {', '.join(differing)}")


@check()
def readiness_is_the_same_awaited(bench: Bench) -> None:
    """Awaited, `ready` says the same."""

    async def asked() -> bool:
        await bench.awaited.info()
        return await bench.awaited.ready()

    plain = bench.model.ready()
    came = bench.wait(asked())
    agree(came == plain, f"ready() gives {plain!r}, and awaited {came!r}")


@check("predict")
def predictions_are_the_same_awaited(bench: Bench) -> None:
    """Awaited, `predict` gives the same."""
    inputs = bench.question(26)
    bench.same(bench.wait(bench.awaited.predict(inputs)), bench.ask(inputs), "awaited")


@check("generate")
def generations_are_the_same_awaited(bench: Bench) -> None:
    """Awaited, `generate` says the same where it takes the likeliest tokens."""
    prompt, sampling = bench.subject.prompt, bench.sampling
    plain = bench.model.generate(prompt, **sampling)
    other = bench.wait(bench.awaited.generate(prompt, **sampling))
    agree(other.text == plain.text, f"it says {plain.text[:60]!r}, and awaited {other.text[:60]!r}")
    reasons = (plain.finish_reason, other.finish_reason)
    agree(reasons[0] == reasons[1], f"it ends by {reasons[0]!r}, and awaited by {reasons[1]!r}")


@check("stream")
def streams_are_the_same_awaited(bench: Bench) -> None:
    """Awaited, `stream` says the same where it takes the likeliest tokens."""
    prompt, sampling = bench.subject.prompt, bench.sampling

    async def heard() -> str:
        async with bench.awaited.stream(prompt, **sampling) as stream:
            return "".join([delta.text async for delta in stream])

    with bench.model.stream(prompt, **sampling) as stream:
        plain = "".join(delta.text for delta in stream)
    joined = bench.wait(heard())
    agree(joined == plain, f"it streams {plain[:60]!r}, and awaited {joined[:60]!r}")


@check("embed")
def vectors_are_the_same_awaited(bench: Bench) -> None:
    """Awaited, `embed` gives the same vectors."""
    texts = list(bench.subject.texts)
    came = bench.wait(bench.awaited.embed(texts)).array
    bench.same_array(came, bench.model.embed(texts).array, "awaited, the matrix")
