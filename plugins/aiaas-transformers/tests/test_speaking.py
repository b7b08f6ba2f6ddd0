"""`generate` and `stream`: what transformers generates by hand, token for token, and what is around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

import aiaas_sdk as aiaas

Load = Any
AUTO = transformers.AutoModelForCausalLM
PICTURE = aiaas.Attachment(b"x", "image/png")
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]


def by_hand(
    address: str, text: str, limit: int, auto: Any = transformers.AutoModelForCausalLM
) -> tuple[list[int], str]:
    """The tokens and the text that `generate` of transformers gives."""
    folder = address.removeprefix("hf:")
    words = transformers.AutoTokenizer.from_pretrained(folder)
    model = auto.from_pretrained(folder).eval()
    ids = words(text, return_tensors="pt", add_special_tokens=auto is not AUTO)
    with torch.inference_mode():
        out = model.generate(
            ids["input_ids"], attention_mask=ids["attention_mask"], max_new_tokens=limit, do_sample=False
        )
    new = out[0, (ids["input_ids"].shape[1] if auto is AUTO else 1) :].tolist()
    return new, words.decode(new, skip_special_tokens=True)


# ---------------------------------------------------------------- the same as by hand
def test_text_is_completed_as_by_hand(load: Load, small: SimpleNamespace) -> None:
    tokens, text = by_hand(small.base, "Once upon", 30)
    with load(small.base) as model:
        assert model.info().verbs == {"generate", "stream"}
        answer = model.generate("Once upon", max_tokens=30)
    assert answer.text.rstrip("\ufffd") == text.rstrip("\ufffd")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, len(tokens))
    assert answer.finish_reason == "length"


def test_a_conversation_goes_through_the_model_s_template(load: Load, small: SimpleNamespace) -> None:
    prompt = "<|system|>Be brief.<end><|user|>Hello there<end><|assistant|>"
    tokens, text = by_hand(small.chat, prompt, 20)
    with load(small.chat) as model:
        answer = model.generate(ASK, max_tokens=20)
        assert answer.text.rstrip("\ufffd") == text.rstrip("\ufffd")
        assert answer.usage.input_tokens == len(prompt) - 2 * len("<end>") + 2
        with model.stream(ASK, max_tokens=20) as stream:
            pieces = [delta.text for delta in stream]
            assert "".join(pieces) == answer.text == stream.result().text
            assert stream.result().usage.output_tokens == len(tokens)
    assert len(pieces) > 1


def test_one_with_its_own_encoder(load: Load, small: SimpleNamespace) -> None:
    _, text = by_hand(small.translator, "Hello", 12, transformers.AutoModelForSeq2SeqLM)
    with load(small.translator) as model:
        assert model.generate("Hello", max_tokens=12).text.rstrip("\ufffd") == text.rstrip("\ufffd")


# ---------------------------------------------------------------- options
def test_a_seed_draws_the_same_again_whatever_else_is_drawn(load: Load, small: SimpleNamespace) -> None:
    options: dict[str, Any] = {"max_tokens": 24, "temperature": 1.5, "top_p": 0.95, "top_k": 50}
    with load(small.base) as model:
        first = model.generate("Once", seed=7, n=3, **options)
        torch.rand(5)  # the process's own random numbers
        again = model.generate("Once", seed=7, n=3, **options)
        other = model.generate("Once", seed=8, **options)
    texts = [first.text, *(answer.text for answer in first.others)]
    assert texts == [again.text, *(answer.text for answer in again.others)]
    assert len(set(texts)) == 3
    assert other.text not in texts
    state = torch.random.get_rng_state()
    with load(small.base) as model:
        model.generate("Once", temperature=1.0, max_tokens=3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_temperature_0_and_top_k_1_take_the_likeliest(small: SimpleNamespace) -> None:
    with aiaas.load(small.base) as model:
        plain = model.generate("Once", max_tokens=12).text
        assert model.generate("Once", max_tokens=12, temperature=0, seed=1).text == plain
        assert model.generate("Once", max_tokens=12, top_k=1, temperature=2.0).text == plain


def test_a_stop_text_is_cut_exactly_and_never_shown(load: Load, small: SimpleNamespace) -> None:
    with load(small.base) as model:
        whole = model.generate("Once upon", max_tokens=30).text
        stop = whole[4:7]
        expected = whole[: whole.find(stop)]
        answer = model.generate("Once upon", max_tokens=30, stop=[stop, "never there"])
        assert (answer.text, answer.finish_reason) == (expected, "stop")
        with model.stream("Once upon", max_tokens=30, stop=stop) as stream:
            assert "".join(delta.text for delta in stream) == expected


def test_log_probabilities_are_the_model_s_own(load: Load, small: SimpleNamespace) -> None:
    with load(small.base) as model:
        answer = model.generate("Once", max_tokens=5, logprobs=2, temperature=2.0, seed=1)
    assert len(answer.logprobs) == 5
    folder = small.base.removeprefix("hf:")
    module = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)("Once", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        right = module(ids).logits[0, -1].log_softmax(-1)
    first = answer.logprobs[0]
    best = right.topk(2).values.tolist()
    assert [entry["logprob"] for entry in first["top_logprobs"]] == pytest.approx(best, abs=1e-4)
    assert first["logprob"] <= first["top_logprobs"][0]["logprob"]


def test_the_model_s_own_end_ends_it(load: Load, small: SimpleNamespace, tmp_path: Any) -> None:
    """Every token is an end: the answer is empty, and one token was drawn."""
    import json
    import shutil

    shutil.copytree(small.base.removeprefix("hf:"), tmp_path / "ends")
    path = tmp_path / "ends" / "generation_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "eos_token_id": list(range(260))}))
    with load(f"hf:{tmp_path / 'ends'}") as model:
        answer = model.generate("Once")
    assert (answer.text, answer.finish_reason, answer.usage.output_tokens) == ("", "stop", 1)


# ---------------------------------------------------------------- what doesn't fit
def test_what_doesnt_fit_into_the_context_is_told_with_its_numbers(load: Load, small: SimpleNamespace) -> None:
    with load(small.base) as model:
        assert model.info().metadata["context"] == 256
        with pytest.raises(aiaas.ContextLengthError, match="300 tokens"):
            model.generate("a" * 300)
        with pytest.raises(aiaas.ContextLengthError, match="max_tokens is 100") as told:
            model.generate("a" * 200, max_tokens=100)
        assert "max_tokens=56" in str(told.value)
        assert model.generate("a" * 250).usage.output_tokens <= 6


@pytest.mark.parametrize(
    ("prompt", "error", "text"),
    [
        ("", aiaas.InputError, "empty"),
        ([{"role": "tool", "content": "x", "tool_call_id": "1"}], aiaas.InputError, "no tools here"),
        (
            [aiaas.Message("user", [PICTURE])],
            aiaas.UnsupportedOperationError,
            "image/png",
        ),
    ],
)
def test_prompts_that_cant_be(load: Load, small: SimpleNamespace, prompt: Any, error: Any, text: str) -> None:
    with load(small.base if prompt == "" else small.chat) as model, pytest.raises(error, match=text):
        model.generate(prompt, max_tokens=2)


def test_tools_are_refused(load: Load, small: SimpleNamespace) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    with load(small.chat) as model, pytest.raises(aiaas.UnsupportedOperationError, match="tools"):
        model.generate("x", tools=[add])


# ---------------------------------------------------------------- leaving
def test_a_stream_that_is_closed_stops_generating(load: Load, small: SimpleNamespace) -> None:
    """Each step of the module is counted: it would take some 240."""
    steps: list[int] = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, given, answer: steps.append(1) if type(module).__name__ == "LlamaForCausalLM" else None
    )
    try:
        with load(small.base) as model:
            stream = model.stream("Once upon")
            next(stream)
            stream.close()
            model.generate("Once", max_tokens=1)  # it has the only thread when the stream has left it
    finally:
        hook.remove()
    assert 1 < len(steps) < 100


def test_answers_run_side_by_side_where_that_is_asked_for(small: SimpleNamespace) -> None:
    with aiaas.load(small.base, concurrency=2) as model:
        alone = model.generate("Once upon", max_tokens=40).text
        with model.stream("Once upon", max_tokens=40) as stream:
            next(stream)
            assert model.generate("Once upon", max_tokens=40).text == alone
            stream.result()
            assert stream.text == alone
