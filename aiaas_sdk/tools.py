"""Tools of a language model: plain typed Python functions, or schemas for whoever runs the calls himself."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import InputError
from aiaas_sdk.records.chat import ToolSpec
from aiaas_sdk.records.language import Message, Tool, ToolCall

__all__ = ["Toolbox"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Toolbox:
    """The tools of one call. pydantic makes the schema of a function's arguments, and checks them.

    Args:
        tools: functions; or tools as OpenAI's API has them, `{"type": "function", "function": {"name",
            "description", "parameters"}}`, which can be asked for and not run.
    """

    def __init__(self, tools: Sequence[Tool | ToolSpec]) -> None:
        if not isinstance(tools, Sequence):
            raise InputError(f"tools is {kind_of(tools)}", hint="Give a list of them")
        self._tools: dict[str, Callable[..., Any]] = {}
        specs: dict[str, ToolSpec] = {}
        for tool in tools:
            spec = tool if isinstance(tool, ToolSpec) else _told(tool) if isinstance(tool, Mapping) else _spec(tool)
            if spec.name in specs:
                raise InputError(f"two tools have the name {spec.name!r}", hint="Rename one")
            specs[spec.name] = spec
            if not isinstance(tool, ToolSpec | Mapping):
                self._tools[spec.name] = tool
        self.specs: tuple[ToolSpec, ...] = tuple(specs.values())

    def check_runnable(self) -> None:
        """InputError where one of them is a schema without a function."""
        for spec in self.specs:
            if spec.name not in self._tools:
                raise InputError(f"the tool {spec.name!r} is a schema, and can't be run", hint="Leave rounds= at 0")

    def run(self, call: ToolCall) -> Message:
        """The tool's answer, as a message. What goes wrong in it is told to the model, which may mend it."""
        return Message("tool", self._outcome(call), tool_call_id=call.id, name=call.name)

    def _outcome(self, call: ToolCall) -> str:
        from pydantic import ValidationError, validate_call

        tool = self._tools.get(call.name)
        if tool is None:
            return f"error: there is no tool {call.name!r}; there are {', '.join(self._tools)}"
        if not isinstance(call.arguments, Mapping):
            return "error: the arguments are no JSON object"
        try:
            outcome = validate_call(tool)(**call.arguments)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            return f"error: {told}"
        except Exception as error:
            return f"error: {type(error).__name__}: {error}"
        return outcome if isinstance(outcome, str) else _written(outcome)


def _written(outcome: Any) -> str:
    from pydantic_core import to_json

    try:
        return to_json(outcome, fallback=str).decode()
    except ValueError:
        return json.dumps(str(outcome))


def _told(tool: Mapping[str, Any]) -> ToolSpec:
    """A tool as OpenAI's API has it."""
    if tool.get("type", "function") != "function":
        raise InputError(f"a tool is of the type {str(tool['type'])[:40]!r}", hint="Only functions can be given")
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise InputError("a tool has no function", hint='As in {"type": "function", "function": {"name": ...}}')
    name, description = function.get("name"), function.get("description") or ""
    parameters, strict = function.get("parameters"), function.get("strict") or False
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError("a tool has no name, or an impossible one", hint="Up to 64 letters, digits, _ and -")
    for value, kind in ((description, str), (strict, bool), ({} if parameters is None else parameters, Mapping)):
        if not isinstance(value, kind):
            raise InputError(
                f"the tool {name!r} has a description, parameters or strict of a wrong type",
                hint="They are text, a JSON schema, and true or false",
            )
    return ToolSpec(name, description, parameters or {"type": "object", "properties": {}}, strict)


def _spec(tool: Callable[..., Any]) -> ToolSpec:
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema

    name = getattr(tool, "__name__", "")
    if not inspect.isroutine(tool) or not name.isidentifier():
        what = f"the tool {name!r} is a class" if isinstance(tool, type) else f"a tool is {kind_of(tool)}"
        raise InputError(what, hint="Give plain functions with names and typed parameters")
    if not _NAME.fullmatch(name):
        raise InputError(f"the tool {name!r} has an impossible name", hint="Up to 64 letters from a to z, digits and _")
    if inspect.iscoroutinefunction(tool):
        raise InputError(f"the tool {name!r} is an async function", hint="Give a plain one")
    try:
        kinds = {parameter.kind for parameter in inspect.signature(tool).parameters.values()}
    except ValueError:
        raise InputError(f"the tool {name!r} doesn't tell its parameters", hint="Wrap it into a function") from None
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
        raise InputError(
            f"the tool {name!r} has parameters that can't be given by name", hint="Leave out *args, and / in the list"
        )
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(tool)  # type: ignore[arg-type]  # it takes functions, too
        schema = adapter.json_schema()
    except (PydanticUserError, PydanticInvalidForJsonSchema, NameError) as error:
        raise InputError(
            f"the tool {name!r} has a parameter that JSON can't hold ({type(error).__name__})",
            hint="Type it with what JSON has, or a pydantic model",
        ) from None
    return ToolSpec(name, inspect.getdoc(tool) or "", schema)
