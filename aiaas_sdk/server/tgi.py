"""TGI's request for text, as it comes to `/invocations`: `{"inputs": "...", "parameters": {...}}`.

Source: text-generation-inference `router/src/server.rs` (`compat_generate`) and `docs/openapi.json`
(`GenerateParameters`). The answer is a list of one: `[{"generated_text": "..."}]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from aiaas_sdk.records.language import Generation
from aiaas_sdk.server import questions
from aiaas_sdk.server.errors import RefusedError

__all__ = ["answer", "asked"]

SAME = (
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "stop",
    "repetition_penalty",
    "frequency_penalty",
    "best_of",
    "grammar",
)
NOT_OFFERED = ("adapter_id", "decoder_input_details", "details", "top_n_tokens", "truncate", "typical_p", "watermark")


def asked(request: Mapping[str, Any]) -> tuple[str, dict[str, Any], bool]:
    """The text, the options of `Sampling`, and whether the text stands before its continuation in the answer.

    Raises:
        RefusedError: 400, a parameter is wrong or isn't offered.
    """
    parameters = request.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RefusedError(400, "parameters isn't an object")
    if request.get("stream"):
        raise RefusedError(400, "a stream isn't offered in this form; send messages, or a prompt, with stream")
    if unknown := next((name for name in NOT_OFFERED if parameters.get(name)), None):
        raise RefusedError(400, f"{unknown} isn't offered here; leave it out")
    given = {name: parameters[name] for name in SAME if parameters.get(name) is not None}
    if parameters.get("max_new_tokens") is not None:
        given["max_tokens"] = parameters["max_new_tokens"]
    if parameters.get("do_sample") is False:
        given["temperature"] = 0
    question = questions.completion({**given, "model": "model", "prompt": request["inputs"]})
    return request["inputs"], dict(question.sampling), bool(parameters.get("return_full_text"))


def answer(found: Generation, before: str) -> bytes:
    """The body, with what stands before the continuation."""
    return to_json([{"generated_text": before + found.text}])
