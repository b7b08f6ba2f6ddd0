"""The names of models in paths: one may hold "/", as the ids of OpenAI's API do, and comes as it is or as %2F."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

__all__ = ["HIDDEN", "MANAGED", "NAME", "ONE", "PINNED", "WORDS"]

WORDS = (
    "config",
    "explain",
    "generate",
    "generate_stream",
    "infer",
    "load",
    "ready",
    "stats",
    "trace",
    "unload",
    "versions",
)
"""What may follow a name in a path. No part of a name behind a "/" is one of them: each path has one meaning."""
HIDDEN = ("stats",)
"""What is no name of a model: /v2/models/stats are the statistics of all."""
_DOTS, _END = r"\.{1,2}", r"(?:/|\Z)"
NAME = rf"(?!{_DOTS}{_END})[^/]+(?:/(?!(?:{_DOTS}|{'|'.join(WORDS)}){_END})[^/]+)*"
"""The pattern of a name in a path, decoded once; "." and ".." are parts of none."""


class _Name(Convertor[str]):
    regex = NAME

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _Name())

ONE, PINNED = "/v2/models/{model:name}", "/v2/models/{model:name}/versions/{version}"
"""Where the Open Inference Protocol has a model, and a version of it."""
MANAGED = "/v2/repository/models/{model:name}"
"""Where it is loaded and unloaded."""
