"""Answers that are held to a JSON schema, by a model that would rather say something else."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

import aiaas_sdk as aiaas
from aiaas_sdk.errors import InputError

Load = Any


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str
    count: int = Field(ge=0, le=99)


class Thing(BaseModel):
    title: str
    colour: Colour
    parts: list[Part]
    weight: float | None
    heavy: bool


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 2.0, "seed": 5}, {"temperature": 1.3, "seed": 6, "top_p": 0.9}]
)
def test_an_answer_is_always_a_document_of_the_schema(load: Load, talker: str, options: dict[str, Any]) -> None:
    with load(talker) as model:
        found = model.generate("count", output=Thing, max_tokens=120, **options)
    assert isinstance(found, Thing)


@pytest.mark.parametrize("limit", [3, 8, 20])
def test_it_is_ended_in_time(load: Load, talker: str, limit: int) -> None:
    """A text would go on for ever; it is closed when tokens get short."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    with load(talker) as model:
        shortest = len(_tokens(model, '{"a": ""}'))
        answer = model.generate("count", output=schema, max_tokens=shortest + limit, temperature=2.0, seed=limit)
    assert json.loads(answer.text).keys() == {"a"}


def test_a_limit_below_the_shortest_answer_is_refused(load: Load, talker: str) -> None:
    with load(talker) as model, pytest.raises(InputError, match="max_tokens leaves 5 tokens, and the shortest"):
        model.generate("count", output=Thing, max_tokens=5)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        {"enum": ["alpha", "beta", 7]},
        {"type": "object", "properties": {"x": {"anyOf": [{"type": "null"}, {"type": "number"}]}}, "required": ["x"]},
        {"type": "string", "maxLength": 6},
        {
            "$defs": {"n": {"type": "integer"}},
            "type": "array",
            "items": {"$ref": "#/$defs/n"},
            "minItems": 2,
            "maxItems": 2,
        },
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_kinds_of_schemas(talker: str, schema: dict[str, Any], seed: int) -> None:
    with aiaas.load(talker) as model:
        json.loads(model.generate("greet", output=schema, max_tokens=60, temperature=1.5, seed=seed).text)


def test_schemas_that_cannot_be_followed(load: Load, talker: str) -> None:
    with load(talker) as model:
        for schema in ({"type": "nonsense"}, {"$ref": "#/$defs/missing"}, {"type": "string", "pattern": "("}):
            with pytest.raises(InputError, match="schema can't be followed"):
                model.generate("count", output=schema)


def test_the_answers_of_n_are_each_held_to_it(talker: str) -> None:
    with aiaas.load(talker) as model:
        answer = model.generate("count", output={"type": "integer"}, n=3, max_tokens=8, temperature=1.5, seed=2)
    for one in (answer, *answer.others):
        assert isinstance(json.loads(one.text), int)


def test_a_byte_tokenizer_can_too(load: Load, tmp_path: Path) -> None:
    config = {"width": 16, "layers": 1, "heads": 2, "context": 200}
    with aiaas.create(
        f"torch:{tmp_path / 'm'}", architecture="transformer", config=config, tokenizer="bytes", seed=1
    ) as made:
        made.info()
    with load(f"torch:{tmp_path / 'm'}") as model:
        found = model.generate("x", output=Part, max_tokens=80, temperature=1.0, seed=3)
    assert isinstance(found, Part)


def _tokens(model: Any, text: str) -> list[int]:
    model = getattr(model, "_model", model)
    return model._engine.backend._speaker._tokenizer.encode(text, whole=False)
