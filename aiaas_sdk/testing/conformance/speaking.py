"""`generate`: text, why it ended, and options that are kept or refused, never dropped."""

from __future__ import annotations

import pickle
from typing import Any

from aiaas_sdk.records.language import Generation, Message
from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check, family, lacks

_PROMPTS = {"unicode": "Zürich 東京 🙂", "several_lines": "one\ntwo\n\nthree"}


def _said(bench: Bench, prompt: Any = None, **sampling: Any) -> Generation:
    said: Generation = bench.model.generate(
        bench.subject.prompt if prompt is None else prompt, **{**bench.sampling, **sampling}
    )
    return said


def _needs(bench: Bench, **sampling: Any) -> None:
    lacks(not bench.takes(**sampling), f"the model doesn't take {', '.join(sampling)}")


@check("generate")
def generate_says_something(bench: Bench) -> None:
    """The answer is text, and isn't empty."""
    text = _said(bench).text
    agree(type(text) is str and bool(text), f"the answer to {bench.subject.prompt!r} is {text!r}")


@check("generate")
def generate_says_why_it_ended(bench: Bench) -> None:
    """`finish_reason` is a word."""
    reason = _said(bench).finish_reason
    agree(type(reason) is str and bool(reason), f"finish_reason is {reason!r}")


@check("generate")
def generate_takes_messages(bench: Bench) -> None:
    """A conversation is taken: what was said before, and who said it."""
    words = bench.subject.prompt
    said = [Message("system", "Be brief."), Message("user", words), Message("assistant", "yes"), Message("user", words)]
    text = _said(bench, said).text
    agree(type(text) is str and bool(text), f"the answer to a conversation is {text!r}")


@family("generate_takes_{}", _PROMPTS, "generate")
def prompts(bench: Bench, kind: str) -> None:
    """A prompt may hold {}."""
    text = _said(bench, _PROMPTS[kind]).text
    agree(type(text) is str, f"the answer to {_PROMPTS[kind]!r} is {text!r}")


@check("generate")
def generate_says_the_same_again(bench: Bench) -> None:
    """With temperature=0 the same prompt has the same answer."""
    _needs(bench, temperature=0.0)
    prompt = f"{bench.subject.prompt} again"
    first, again = _said(bench, prompt, temperature=0.0), _said(bench, prompt, temperature=0.0)
    agree(first.text == again.text, f"it says {first.text[:60]!r}, then {again.text[:60]!r}")


@check("generate")
def generate_keeps_to_max_tokens(bench: Bench) -> None:
    """`max_tokens` bounds the answer, which says so."""
    _needs(bench, max_tokens=1)
    short, long = _said(bench, max_tokens=1), _said(bench)
    lacks(len(long.text) <= len(short.text), "the model's whole answer is one token")
    agree(short.finish_reason == "length", f"cut at max_tokens=1, finish_reason is {short.finish_reason!r}")
    counted = short.usage.output_tokens
    agree(counted is None or counted <= 1, f"with max_tokens=1, {counted} tokens are counted")


@check("generate")
def generate_keeps_to_stop(bench: Bench) -> None:
    """The answer ends before a text of `stop`."""
    whole = _said(bench).text
    words = whole.split()
    lacks(len(words) < 2, "the model's answer is one word")
    stop = words[1]
    _needs(bench, stop=[stop])
    came = _said(bench, stop=[stop]).text
    agree(stop not in came, f"asked to stop at {stop!r}, it says {came[:60]!r}")


@check("generate")
def generate_keeps_to_seed(bench: Bench) -> None:
    """The same `seed` draws the same answer."""
    _needs(bench, seed=7)
    _needs(bench, temperature=1.0)
    first, again = _said(bench, seed=7, temperature=1.0), _said(bench, seed=7, temperature=1.0)
    agree(first.text == again.text, f"with one seed it says {first.text[:60]!r}, then {again.text[:60]!r}")


@check("generate")
def generate_gives_as_many_as_asked(bench: Bench) -> None:
    """`n=2` gives two answers."""
    _needs(bench, n=2)
    others = _said(bench, n=2).others
    agree(len(others) == 1, f"with n=2 there are {len(others)} further answers")


@check("generate")
def generate_gives_logprobs(bench: Bench) -> None:
    """`logprobs` gives them."""
    _needs(bench, logprobs=1)
    agree(bool(_said(bench, logprobs=1).logprobs), "logprobs=1 was taken, and none came")


@check("generate")
def generate_counts_its_tokens(bench: Bench) -> None:
    """Tokens are counted, or None; never below 0."""
    usage = _said(bench).usage
    for name in ("input_tokens", "output_tokens"):
        count = getattr(usage, name)
        agree(count is None or (type(count) is int and count >= 0), f".usage.{name} is {count!r}")


@check("generate")
def generations_name_their_model(bench: Bench) -> None:
    """`.model` is text: the name that info() has, or the peer's own for it."""
    came = _said(bench).model
    agree(type(came) is str and bool(came), f".model is {came!r}")


@check("generate")
def generations_can_be_pickled(bench: Bench) -> None:
    """An answer can be sent to another process."""
    came = _said(bench)
    try:
        again = pickle.loads(pickle.dumps(came))
    except Exception as error:
        agree(False, f"the answer can't be pickled: {error}")
    else:
        agree(again.text == came.text, "the answer comes out of pickle as another one")
