"""Tools: what a model is told of a function, what is refused, and what a run answers."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import InputError, RateLimitedError
from aiaas_sdk.records.chat import ToolSpec
from aiaas_sdk.records.language import Message, ToolCall
from aiaas_sdk.tools import Toolbox


class Place(BaseModel):
    city: str
    country: str = "de"


@dataclass
class Pair:
    left: int
    right: int


def weather(place: Place, unit: Literal["C", "F"] = "C", days: Annotated[int, Field(ge=1, le=7)] = 1) -> str:
    """What it is like there.

    For some days.
    """
    return f"{place.city} {place.country} {unit} {days}"


def add(a: int, b: int = 2) -> int:
    return a + b


def untyped(a, b="x"):  # type: ignore[no-untyped-def]
    return [a, b]


def many(**numbers: int) -> int:
    return sum(numbers.values())


class Shop:
    def price(self, of: str) -> float:
        """Of a thing."""
        return 1.5


def schema_of(tool: Any) -> Any:
    [spec] = Toolbox([tool]).specs
    return json.loads(json.dumps(spec.parameters))


def run(tool: Any, arguments: Any) -> str:
    answer = Toolbox([tool]).run(ToolCall("1", tool.__name__, arguments))
    assert (answer.role, answer.tool_call_id, answer.name) == ("tool", "1", tool.__name__)
    assert isinstance(answer.content, str)
    return answer.content


# ---------------------------------------------------------------- schemas
def test_a_function_becomes_a_schema() -> None:
    [spec] = Toolbox([weather]).specs
    assert (spec.name, spec.description, spec.strict) == ("weather", "What it is like there.\n\nFor some days.", False)
    found = schema_of(weather)
    assert found["type"] == "object"
    assert found["required"] == ["place"]
    assert found["additionalProperties"] is False
    assert found["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert found["$defs"]["Place"]["required"] == ["city"]
    unit, days = found["properties"]["unit"], found["properties"]["days"]
    assert (unit["enum"], unit["default"]) == (["C", "F"], "C")
    assert (days["type"], days["minimum"], days["maximum"], days["default"]) == ("integer", 1, 7, 1)


def test_defaults_types_and_docstrings_may_be_missing() -> None:
    assert schema_of(add)["required"] == ["a"]
    found = schema_of(untyped)
    assert (found["required"], found["properties"]["b"]["default"]) == (["a"], "x")
    assert "type" not in found["properties"]["a"]
    assert Toolbox([untyped]).specs[0].description == ""
    assert schema_of(many)["additionalProperties"] == {"type": "integer"}


def test_methods_are_functions_too() -> None:
    [spec] = Toolbox([Shop().price]).specs
    assert (spec.name, spec.description, list(spec.parameters["properties"])) == ("price", "Of a thing.", ["of"])


def test_schemas_are_taken_as_they_are() -> None:
    parameters = {"type": "object", "properties": {"q": {"type": "string"}}}
    told = {"type": "function", "function": {"name": "find-it", "parameters": parameters, "strict": True}}
    spec = ToolSpec("g", "", {})
    box = Toolbox([told, spec, {"function": {"name": "bare"}}])
    assert box.specs == (
        ToolSpec("find-it", "", parameters, True),
        spec,
        ToolSpec("bare", "", {"type": "object", "properties": {}}),
    )
    with pytest.raises(InputError, match=r"the tool 'find-it' is a schema, and can't be run. Leave rounds= at 0"):
        box.check_runnable()
    Toolbox([add]).check_runnable()
    assert Toolbox([]).specs == ()


# ---------------------------------------------------------------- refusals
async def later(a: int) -> int:
    return a


def positional(a: int, /) -> int:
    return a


def starred(*a: int) -> int:
    return len(a)


def unknown(a: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


def impossible(a: Shop) -> None:
    pass


def größe(a: int) -> int:
    return a


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (None, "a tool is a NoneType. Give plain functions"),
        ("add", "a tool is a str. Give plain functions"),
        (lambda a: a, "a tool is a function. Give plain functions with names"),
        (functools.partial(add, b=1), "a tool is a partial. Give plain functions"),
        (Place, "the tool 'Place' is a class. Give plain functions"),
        (int, "the tool 'int' is a class"),
        (min, "the tool 'min' doesn't tell its parameters. Wrap it into a function"),
        (math.gcd, "the tool 'gcd' has parameters that can't be given by name. Leave out *args"),
        (positional, "the tool 'positional' has parameters that can't be given by name"),
        (starred, "the tool 'starred' has parameters that can't be given by name"),
        (later, "the tool 'later' is an async function. Give a plain one"),
        (unknown, "the tool 'unknown' has a parameter that JSON can't hold (NameError). Type it"),
        (impossible, "the tool 'impossible' has a parameter that JSON can't hold"),
        (größe, "the tool 'größe' has an impossible name. Up to 64 letters"),
        ({"type": "web_search"}, "a tool is of the type 'web_search'. Only functions"),
        ({"type": "function"}, "a tool has no function. As in"),
        ({"function": {"name": "a b"}}, "a tool has no name, or an impossible one. Up to 64"),
        ({"function": {"name": "a" * 65}}, "a tool has no name, or an impossible one"),
        ({"function": {"name": "a", "description": 3}}, "the tool 'a' has a description, parameters or strict of a"),
        ({"function": {"name": "a", "parameters": []}}, "the tool 'a' has a description, parameters or strict of a"),
        ({"function": {"name": "a", "strict": "no"}}, "They are text, a JSON schema, and true or false"),
        ({"function": {"name": "add"}}, "two tools have the name 'add'. Rename one"),
    ],
)
def test_what_can_be_no_tool(tool: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        Toolbox([add, tool])
    assert words in str(caught.value)


@pytest.mark.parametrize("tools", [add, None, 3])
def test_tools_are_a_list(tools: Any) -> None:
    with pytest.raises(InputError, match=rf"tools is {kind_of(tools)}. Give a list"):
        Toolbox(tools)


# ---------------------------------------------------------------- runs
def test_arguments_become_what_the_parameters_are() -> None:
    assert run(weather, {"place": {"city": "Ulm"}, "unit": "F"}) == "Ulm de F 1"
    assert run(add, {"a": "1"}) == "3"
    assert run(many, {"x": 1, "y": 2}) == "3"
    assert run(Shop().price, {"of": "tea"}) == "1.5"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ({"a": [1, None, True]}, '{"a":[1,null,true]}'),
        (None, "null"),
        (Place(city="Ulm"), '{"city":"Ulm","country":"de"}'),
        (Pair(1, 2), '{"left":1,"right":2}'),
        (object, "\"<class 'object'>\""),
        ("ä", "ä"),
        (["ä"], '["ä"]'),
    ],
)
def test_results_are_told_as_json(value: Any, text: str) -> None:
    def give() -> Any:
        return value

    assert run(give, {}) == text


def test_a_result_within_itself_is_told_somehow() -> None:
    def endless() -> Any:
        found: list[Any] = []
        found.append(found)
        return found

    assert json.loads(run(endless, {})) == "[[...]]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "error: place: Missing required argument"),
        ({"place": {}}, "error: place.city: Field required"),
        ({"place": {"city": "Ulm"}, "unit": "K"}, "error: unit: Input should be 'C' or 'F'"),
        ({"place": {"city": "Ulm"}, "days": 8}, "error: days: Input should be less than or equal to 7"),
        ({"place": {"city": "Ulm"}, "wind": 1}, "error: wind: Unexpected keyword argument"),
        ('{"place": ', "error: the arguments are no JSON object"),
    ],
)
def test_arguments_that_dont_fit_are_told_to_the_model(arguments: Any, words: str) -> None:
    assert run(weather, arguments) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("by zero"), "error: ZeroDivisionError: by zero"),
        (TypeError("odd"), "error: TypeError: odd"),
        (RateLimitedError("slow down"), "error: RateLimitedError: slow down"),
    ],
)
def test_what_fails_in_a_tool_is_told_to_the_model(error: Exception, words: str) -> None:
    def fail() -> None:
        raise error

    assert run(fail, {}) == words


def test_who_interrupts_a_tool_is_heard() -> None:
    def wait() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(wait, {})


def test_a_tool_that_isnt_there_is_told_with_those_that_are() -> None:
    box = Toolbox([add, weather])
    answer = box.run(ToolCall("9", "subtract", {}))
    told = "error: there is no tool 'subtract'; there are add, weather"
    assert answer == Message("tool", told, tool_call_id="9", name="subtract")
