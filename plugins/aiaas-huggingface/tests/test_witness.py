"""Hugging Face's own client understands what stands in for TGI and TEI here, and hears from it what we do.

It was written for the real ones, and checks what it reads: a stand-in that gave other documents would fail it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas

CLIENT = """
import json
import sys
from huggingface_hub import InferenceClient

url = sys.argv[1]
options = dict(max_new_tokens=3, details=True)
whole = InferenceClient(f"{url}/tgi/generate").text_generation("one two three four", **options)
client = InferenceClient(f"{url}/tgi/generate_stream")  # its streams end where it is dropped
tokens = list(client.text_generation("one two three four", stream=True, **options))
print(json.dumps({
    "text": whole.generated_text,
    "reason": whole.details.finish_reason,
    "tokens": [event.token.text for event in tokens],
    "last": tokens[-1].details.generated_tokens,
}))
"""


@pytest.mark.peer
def test_the_client_of_hugging_face_hears_the_same(stand_in: str, peer_python: Callable[[str], Path]) -> None:
    url = stand_in.removeprefix("huggingface+")
    command = [peer_python("hub"), "-W", "ignore", "-c", CLIENT, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    heard = json.loads(done.stdout)
    with aiaas.load(f"{stand_in}/tgi") as model:
        answer = model.generate("one two three four", max_tokens=3)
        with model.stream("one two three four", max_tokens=3) as stream:
            tokens = [delta.text for delta in stream]
            said = stream.result()
    assert (heard["text"], heard["reason"]) == (answer.text, answer.finish_reason) == (" one two three", "length")
    assert heard["tokens"] == tokens
    assert heard["last"] == said.usage.output_tokens == 3


# ---------------------------------------------------------------- InferenceClient(model=URL), unchanged
HEARD = """
import asyncio
import json
import sys
from dataclasses import asdict
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub import errors

url = sys.argv[1]
words = "one two three four"
told = {}

def failed(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)

client = InferenceClient(model=f"{url}/tgi/")
told["plain"] = client.text_generation(words, max_new_tokens=3)
told["full"] = client.text_generation(words, max_new_tokens=3, return_full_text=True)
told["details"] = asdict(client.text_generation(words, max_new_tokens=3, details=True, top_n_tokens=2))
told["stopped"] = asdict(client.text_generation(words, stop=["two"], details=True))["details"]["finish_reason"]
told["pieces"] = list(client.text_generation(words, stream=True))
told["events"] = [asdict(event) for event in client.text_generation(words, stream=True, details=True)]
told["refused"] = failed(lambda: client.text_generation(words, temperature=0.0))
told["broken"] = failed(lambda: client.text_generation("fail"))
told["overloaded"] = failed(lambda: list(client.text_generation("one overload two", stream=True)))
own = InferenceClient(model=f"{url}/tgi/", provider="hf-inference")
told["healthy"] = own.health_check()
told["info"] = own.get_endpoint_info()

async def awaited():
    async with AsyncInferenceClient(model=f"{url}/tgi/") as client:
        pieces = [piece async for piece in await client.text_generation(words, stream=True)]
        return await client.text_generation(words, max_new_tokens=3), pieces

told["awaited"] = asyncio.run(awaited())

client = InferenceClient(model=f"{url}/embedder/")
told["one"] = client.feature_extraction("a bad face").tolist()
told["two"] = client.feature_extraction(["a bad face", "a cab"], dimensions=3).tolist()
told["too many"] = failed(lambda: client.feature_extraction(["a"] * 5))
told["embedder"] = InferenceClient(model=f"{url}/embedder/", provider="hf-inference").get_endpoint_info()
told["class"] = asdict(InferenceClient(model=f"{url}/classifier/").text_classification("joyful jump"))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def heard(stand_in: str, peer_python: Callable[[str], Path]) -> dict[str, Any]:
    """What the client hears."""
    url = stand_in.removeprefix("huggingface+")
    command = [peer_python("hub"), "-W", "ignore", "-c", HEARD, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.peer
def test_the_client_generates(load: Any, stand_in: str, heard: dict[str, Any]) -> None:
    with load(f"{stand_in}/tgi", timeout=10) as model:
        answer = model.generate("one two three four", max_tokens=3, logprobs=2)
        assert heard["plain"] == heard["awaited"][0] == answer.text == " one two three"
        assert heard["full"] == "one two three four one two three"
        details = heard["details"]["details"]
        assert (details["finish_reason"], details["generated_tokens"]) == (answer.finish_reason, 3)
        assert [token["text"] for token in details["tokens"]] == [one["token"] for one in answer.logprobs]
        assert [[other["text"] for other in others] for others in details["top_tokens"]] == [
            [other["token"] for other in one["top_logprobs"]] for one in answer.logprobs
        ]
        assert heard["stopped"] == "stop_sequence"
        with model.stream("one two three four") as stream:
            pieces = [delta.text for delta in stream]
            whole = stream.result()
    assert pieces == [" one", " two", " three", " four"]
    assert heard["pieces"] == heard["awaited"][1] == [*pieces, "</s>"]  # it shows special tokens, too
    *events, last = heard["events"]
    assert [event["token"]["text"] for event in events] == pieces
    assert all(event["generated_text"] is None and event["details"] is None for event in events)
    assert (last["token"]["special"], last["generated_text"]) == (True, whole.text)
    assert last["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": whole.usage.output_tokens,
        "input_length": whole.usage.input_tokens,
        "seed": None,
    }


@pytest.mark.peer
def test_the_client_knows_the_errors(load: Any, stand_in: str, heard: dict[str, Any]) -> None:
    for key, kind, prompt, words in (
        ("refused", "ValidationError", None, "`temperature` must be strictly positive"),
        ("broken", "GenerationError", "fail", "Request failed during generation"),
        ("overloaded", "OverloadedError", "one overload two", "Model is overloaded"),
    ):
        assert (heard[key][0], words in heard[key][1]) == (kind, True), heard[key]
        if prompt is not None:
            with load(f"{stand_in}/tgi", timeout=10, retry=None) as model, pytest.raises(aiaas.AiaasError, match=words):
                model.stream(prompt).result()
    assert "BadRequest" in heard["too many"][0] or "HTTP" in heard["too many"][0]
    assert "maximum allowed batch size 4" in heard["too many"][1]


@pytest.mark.peer
def test_the_client_knows_what_answers(load: Any, stand_in: str, heard: dict[str, Any]) -> None:
    assert heard["healthy"] is True
    for name, key in (("tgi", "info"), ("embedder", "embedder")):
        with load(f"{stand_in}/{name}", timeout=10) as model:
            assert heard[key]["model_id"] == model.info().name


@pytest.mark.peer
def test_the_client_embeds_and_classifies(load: Any, stand_in: str, heard: dict[str, Any]) -> None:
    with load(f"{stand_in}/embedder", timeout=10) as model:
        assert np.allclose(heard["one"], model.embed("a bad face").array)
        assert np.allclose(heard["two"], model.embed(["a bad face", "a cab"], dimensions=3).array)
    with load(f"{stand_in}/classifier", timeout=10) as model:
        [[(label, score)]] = model.predict({"text": ["joyful jump"]}).top(1)
    assert (heard["class"]["label"], heard["class"]["score"]) == (label, pytest.approx(score))
