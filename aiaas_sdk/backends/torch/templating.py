"""A conversation as the text that a model was taught: by its chat template, or plainly where it has none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from aiaas_sdk.backends.torch.extras import brought_by
from aiaas_sdk.errors import AiaasError, BundleError, InputError, ModelError, UnsupportedOperationError
from aiaas_sdk.records.chat import ToolSpec
from aiaas_sdk.records.language import Attachment, Message

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["ChatTemplate", "plain_text", "text_of"]

LARGEST = 1 << 24
"""Characters of a conversation; a template that repeats itself ends there."""
STEPS = 100_000
"""That a template may count with `range`, all of its loops together."""


def text_of(message: Message) -> str:
    """A message's text. UnsupportedOperationError where it holds something else."""
    parts = [message.content] if isinstance(message.content, str) else message.content
    for part in parts:
        if isinstance(part, Attachment) or (isinstance(part, Mapping) and part.get("type") != "text"):
            kind = part.media_type if isinstance(part, Attachment) else str(part.get("type"))[:40]
            raise UnsupportedOperationError(f"this model reads text alone, and a message holds {kind}")
    return message.text


def plain_text(messages: Sequence[Message]) -> str:
    """For a model without a template: one message of the user is its text; more are written as a play is."""
    if len(messages) == 1 and messages[0].role == "user":
        return text_of(messages[0])
    lines = [f"{message.role}: {text_of(message)}\n" for message in messages]
    return "".join([*lines, "assistant:"])


class ChatTemplate:
    """A Jinja template as Hugging Face models bring it, in a sandbox: it reads what it is given, and nothing else."""

    def __init__(self, source: str, where: str) -> None:
        with brought_by("language"):
            from jinja2 import TemplateError, meta
        environment = _environment()
        try:
            self._template = environment.from_string(source)
            known = meta.find_undeclared_variables(environment.parse(source))
        except (TemplateError, RecursionError) as error:
            raise BundleError(f"{where} isn't a chat template ({str(error)[:200]})") from None
        self.takes_tools = "tools" in known
        self._where = where

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, begin: str, end: str) -> str:
        """The conversation's text, up to where the assistant speaks.

        Raises:
            InputError: the template refuses the conversation. ModelError: it fails.
        """
        given = {
            "messages": [_plain(message) for message in messages],
            "tools": [_tool(tool) for tool in tools] or None,
            "add_generation_prompt": True,
            "bos_token": begin,
            "eos_token": end,
            "range": _Counter().range,
        }
        pieces, size = [], 0
        try:
            for piece in self._template.generate(**given):
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST:
                    raise InputError(f"the conversation is longer than {LARGEST} characters")
        except AiaasError:
            raise
        except Exception as error:
            raise ModelError(
                f"{self._where} fails on this conversation ({type(error).__name__}: {str(error)[:200]})"
            ) from None
        return "".join(pieces)


def _environment() -> Environment:
    """What templates rely on, as `transformers` offers it to them; nothing that can grow without end."""

    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Bounded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or not all(isinstance(side, int | float) for side in (left, right)):
                raise InputError(f"the model's chat template uses {operator} on something else than two numbers")
            return left * right

    environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment


def _json(value: Any, indent: int | None = None, **_: Any) -> str:
    """Without Jinja's own escapes, which are for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise InputError(f"the model's chat template says: {str(message)[:300]}")


def _now(form: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(form)


class _Counter:
    """The `range` of one rendering."""

    def __init__(self) -> None:
        self._left = STEPS

    def range(self, *bounds: int) -> range:
        found = range(*bounds)
        # a start or an end may be beyond what len() can tell
        self._left -= min(STEPS + 1, max(0, (found.stop - found.start) // found.step))
        if self._left < 0:
            raise InputError(f"the model's chat template counts further than {STEPS}")
        return found


def _plain(message: Message) -> dict[str, Any]:
    """A message as templates know it; "developer" is the newer word for "system"."""
    found: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": text_of(message),
    }
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        found["name"] = message.name
    return found


def _arguments(arguments: Mapping[str, Any] | str) -> Any:
    if not isinstance(arguments, str):
        return dict(arguments)
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}
