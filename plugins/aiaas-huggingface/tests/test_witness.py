"""Hugging Face's own client understands what stands in for TGI here, and hears from it what we do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

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
