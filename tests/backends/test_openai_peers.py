"""Our client against real servers that speak OpenAI's API in their own ways: LitServe and `transformers serve`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing.processes import free_port
from tests.peers import running

# the first run makes the peers' environments
pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(400)]

TALKER = """
import sys

import litserve
from fastapi import HTTPException
from litserve.specs.openai import OpenAISpec


class Talker(litserve.LitAPI):
    def setup(self, device):
        pass

    def predict(self, request):
        text = request.messages[-1].content
        if text == "busy":
            raise HTTPException(429, "too many talk")
        if text == "fail":
            raise ValueError("no words")
        if text == "tools":
            function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
            calls = [{"index": 0, "id": "c1", "type": "function", "function": function}]
            yield {"role": "assistant", "content": "", "tool_calls": calls}
            return
        for place, word in enumerate(text.split(" ")):
            if word == "break":
                raise ValueError("lost the thread")
            yield {"role": "assistant", "content": " " * (place > 0) + word}
        if text == "count":
            yield {"role": "assistant", "content": "", "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


if __name__ == "__main__":
    server = litserve.LitServer(Talker(spec=OpenAISpec()), accelerator="cpu", timeout=20)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
"""

TINY = """
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

letters = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
words.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\\n{% endfor %}"
torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256}
heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(letters), **sizes, **heads, **ends))
model.lm_head.weight.data[letters.index("A"):letters.index("Z") + 1] *= 50  # letters, or most bytes are no text
model.save_pretrained(sys.argv[1])
words.save_pretrained(sys.argv[1])
"""


# ---------------------------------------------------------------- servers
@pytest.fixture(scope="module")
def litserve(peer_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A LitServe whose model says back what it is told, word by word; some words make it fail."""
    folder = tmp_path_factory.mktemp("litserve")
    (folder / "talker.py").write_text(TALKER)
    port = free_port()
    command = [str(peer_python("litserve")), "talker.py", str(port)]
    with running(command, port, folder) as base:
        yield base


@pytest.fixture(scope="module")
def transformers(peer_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve` with a model of random weights, named `tiny`."""
    folder = tmp_path_factory.mktemp("transformers")
    python = peer_python("transformers")
    (folder / "make.py").write_text(TINY)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    subprocess.run([str(python), "make.py", "tiny"], cwd=folder, env={**os.environ, **offline}, check=True, timeout=60)
    port = free_port()
    serve = ["serve", "tiny", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with running([str(python.with_name("transformers")), *serve], port, folder, **offline) as base:
        yield base


# ---------------------------------------------------------------- LitServe
@pytest.fixture
def talker(litserve: str, load: Any) -> Iterator[Any]:
    with load(f"{litserve}#any", timeout=30, retry=None) as model:
        yield model


def test_litserve_answers_and_counts_no_tokens(talker: Any) -> None:
    answer = talker.generate("hello big world")
    assert (answer.text, answer.finish_reason, answer.model) == ("hello big world", "stop", "any")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (None, None)
    counted = talker.generate("count").usage
    assert (counted.input_tokens, counted.output_tokens) == (3, 1)


def test_litserve_streams_with_another_id_in_each_chunk(talker: Any) -> None:
    with talker.stream("hello big world") as stream:
        assert [delta.text for delta in stream] == ["hello", " big", " world"]
        answer = stream.result()
    assert (answer.text, answer.finish_reason) == ("hello big world", "stop")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (None, None)
    counted = talker.stream("count").result().usage
    assert (counted.input_tokens, counted.output_tokens) == (3, 1)


def test_litserve_several_answers(talker: Any) -> None:
    answer = talker.generate("twice", n=2)
    assert [answer.text, *(other.text for other in answer.others)] == ["twice", "twice"]


def test_litserve_tool_calls_whole_and_streamed(talker: Any) -> None:
    for answer in (talker.generate("tools"), talker.stream("tools").result()):
        (call,) = answer.tool_calls
        assert (call.name, dict(call.arguments), answer.text) == ("add", {"a": 1, "b": 2}, "")


def test_litserve_fails_within_a_stream_without_an_end(talker: Any) -> None:
    stream = talker.stream("one two break three")
    with pytest.raises(aiaas.StreamInterruptedError, match="Internal Server Error") as caught:
        stream.result()
    assert caught.value.partial == stream.text == "one two"
    # before the first content it may be asked elsewhere; nothing in the event says what kind of failure it was
    with pytest.raises(aiaas.UnavailableError, match="Internal Server Error"):
        talker.stream("fail").result()
    assert talker.generate("again").text == "again"


def test_litserve_errors_have_our_classes(talker: Any) -> None:
    with pytest.raises(aiaas.ModelError, match="outcome is unknown") as failed:
        talker.generate("fail")
    assert failed.value.status == 500
    with pytest.raises(aiaas.RateLimitedError, match="too many talk") as busy:
        talker.generate("busy")
    assert busy.value.status == 429
    with pytest.raises(aiaas.UnsupportedOperationError, match="no /embeddings") as missing:
        talker.embed(["x"])
    assert missing.value.status == 404


def test_litserve_lists_no_models(litserve: str, load: Any) -> None:
    with load(f"{litserve}#any", timeout=30) as model:
        assert model.ready()
        assert model.info().name == "any"
    with pytest.raises(aiaas.ConfigError, match=r"tells none.*#MODEL"):
        load(litserve, timeout=30).generate("x")


def test_litserve_left_out_log_probabilities_are_an_error(talker: Any) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match="logprobs"):
        talker.generate("x", logprobs=2)
    with pytest.raises(aiaas.UnsupportedOperationError, match="logprobs"):
        talker.stream("x", logprobs=2).result()  # all of it had come, and the request was answered short


def test_litserve_who_leaves_a_stream_leaves_a_server_that_answers(talker: Any) -> None:
    with talker.stream("many words " * 200) as stream:
        assert next(stream).text == "many"
    assert talker.generate("again").text == "again"


# ---------------------------------------------------------------- transformers serve
@pytest.fixture
def tiny(transformers: str, load: Any) -> Iterator[Any]:
    with load(f"{transformers}#tiny", timeout=60, retry=None) as model:
        yield model


def test_transformers_answers_and_counts(tiny: Any) -> None:
    answer = tiny.generate("hi", max_tokens=7)
    assert (len(answer.text), answer.finish_reason) == (7, "length")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (len("user: hi\n"), 7)
    assert answer.request_id


def test_transformers_streams_without_done(tiny: Any) -> None:
    whole = tiny.generate("hi", max_tokens=7)
    with tiny.stream("hi", max_tokens=7) as stream:
        texts = [delta.text for delta in stream]
        answer = stream.result()
    assert len(texts) > 1
    assert "".join(texts) == answer.text == whole.text
    assert answer.finish_reason == "length"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (len("user: hi\n"), 7)


def test_transformers_finds_its_one_model_by_itself(transformers: str, load: Any) -> None:
    with load(transformers, timeout=60) as model:
        assert model.ready()
        assert model.info().name == "tiny"
        assert len(model.generate("hi", max_tokens=3).text) == 3


def test_transformers_continues_a_text(transformers: str, load: Any) -> None:
    with load(f"{transformers}/completions#tiny", timeout=60) as model:
        answer = model.generate("hi", max_tokens=4)
        streamed = model.stream("hi", max_tokens=4).result()
    assert answer.text == streamed.text
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 4)
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (2, 4)


def test_transformers_stops_where_it_is_told(tiny: Any) -> None:
    text = tiny.generate("hi", max_tokens=7).text
    cut = tiny.generate("hi", max_tokens=7, stop=[text[2]])
    assert (cut.text[:3], cut.finish_reason) == (text[:3], "stop")
    assert len(cut.text) < 7


def test_transformers_options_that_it_drops_are_errors(tiny: Any) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match=r"\bn\b"):
        tiny.generate("hi", n=2, max_tokens=2)
    with pytest.raises(aiaas.UnsupportedOperationError, match="logprobs"):
        tiny.generate("hi", logprobs=1, max_tokens=2)
    with pytest.raises(aiaas.InvalidRequestError, match="top_k"):
        tiny.generate("hi", top_k=3, max_tokens=2)


def test_transformers_errors_have_our_classes(tiny: Any, transformers: str, load: Any) -> None:
    with load(f"{transformers}#other", timeout=60) as other, pytest.raises(aiaas.InvalidRequestError, match="pinned"):
        other.generate("hi", max_tokens=2)
    with pytest.raises(aiaas.UnsupportedOperationError, match="no /embeddings") as missing:
        tiny.embed(["x"])
    assert missing.value.status == 404
    assert len(tiny.generate("hi", max_tokens=3).text) == 3


def test_transformers_who_leaves_a_stream_ends_its_work(tiny: Any) -> None:
    with tiny.stream("hi", max_tokens=230) as stream:
        next(stream)
    begun = time.monotonic()
    assert len(tiny.generate("hi", max_tokens=3).text) == 3
    assert time.monotonic() - begun < 20
