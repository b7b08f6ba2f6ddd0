"""What an answer has to be: a record of pydantic, or a JSON document whose schema is given as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiaas_sdk.errors import InputError, OutputError
from aiaas_sdk.records.language import Generation

__all__ = ["Output", "UnfitError"]

_KINDS: Mapping[str, type[Any] | tuple[type[Any], ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


class UnfitError(Exception):
    """An answer isn't what it has to be.

    Attributes:
        told: why, in words for the model.
        answer: the one of the answers that isn't.
    """

    def __init__(self, told: str, answer: Generation) -> None:
        super().__init__(told)
        self.told, self.answer = told, answer

    @property
    def final(self) -> bool:
        """Asking again wouldn't mend it: the answer was cut, or is none yet."""
        return _cut(self.answer)


class Output:
    """What an answer has to be.

    Args:
        wanted: a pydantic model, by which answers are checked and become its records; or a JSON schema. Of an
            answer to a schema only this is checked: that it is one JSON document, of the type that the schema
            names. The schema may come from a stranger (through a server, say), and to try a document against a
            stranger's schema takes as long as he likes.
    """

    def __init__(self, wanted: Any) -> None:
        from pydantic import BaseModel

        self._record: type[BaseModel] | None = None
        if isinstance(wanted, Mapping):
            name, self.schema = wanted.get("title"), wanted
        elif isinstance(wanted, type) and issubclass(wanted, BaseModel):
            self._record = wanted
            name, self.schema = wanted.__name__, wanted.model_json_schema()
        else:
            raise InputError(
                f"output is {'a ' * (not isinstance(wanted, type))}{_named(wanted)}",
                hint="Give a pydantic model, or a JSON schema as a mapping",
            )
        # the pattern that OpenAI asks for
        self.name = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] if isinstance(name, str) and name else "answer"

    def read(self, answer: Generation) -> Any:
        """The record; or the answer again, its document alone as its text. What models put around it is cut off.

        Raises:
            UnfitError: it isn't what it has to be. One that was cut is given back as it is where it is no record.
        """
        if self._record is not None:
            return self._value(answer, _json_in(answer.text))
        first, *others = (self._alone(one) for one in (answer, *answer.others))
        return first.replaced(first.text, tuple(others))

    def check(self, answer: Generation) -> None:
        """OutputError where the text, as it stands, isn't what it has to be. Somebody has read it already."""
        if self._record is None and _cut(answer):
            return
        try:
            self._value(answer, answer.text)
        except UnfitError as unfit:
            raise self.failed(unfit, 1) from unfit.__cause__

    def failed(self, unfit: UnfitError, tries: int) -> OutputError:
        """The error of the last of so many tries."""
        after = f" after {tries} tries" if tries > 1 else ""
        what = "its schema" if self._record is None else self.name
        return OutputError(
            f"the answer doesn't fit {what}{after}: {unfit.told}",
            text=unfit.answer.text,
            hint="Its text is in .text; a larger model or max_tokens, or a simpler schema, may help",
        )

    def _alone(self, answer: Generation) -> Generation:
        if _cut(answer):
            return answer
        text = _json_in(answer.text)
        self._value(answer, text)
        return answer.replaced(text)

    def _value(self, answer: Generation, text: str) -> Any:
        from pydantic import ValidationError
        from pydantic_core import from_json

        if self._record is not None:
            try:
                return self._record.model_validate_json(text)
            except ValidationError as error:
                raise UnfitError(_told(error), answer) from None
        try:
            value = from_json(text, allow_inf_nan=False)
        except ValueError:
            raise UnfitError("it is no JSON document", answer) from None
        kind = self.schema.get("type")
        if isinstance(kind, str) and kind in _KINDS and not _is(value, kind):
            raise UnfitError(f"the document is no {kind}", answer)
        return value


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _KINDS[kind]) or (kind == "integer" and isinstance(value, float) and value.is_integer())


def _cut(answer: Generation) -> bool:
    return answer.finish_reason in ("length", "content_filter") or bool(answer.tool_calls)


def _named(wanted: Any) -> str:
    return wanted.__name__ if isinstance(wanted, type) else type(wanted).__name__


def _json_in(text: str) -> str:
    """The JSON document in an answer: models put fences and words around it."""
    text = text.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0].strip()
    found = re.search(r"[{\[]", text)
    if found is None:
        return text
    last = text.rfind("}" if found[0] == "{" else "]")
    return text[found.start() : last + 1] if found.start() < last else text


def _told(error: Any) -> str:
    """What pydantic found, without the values."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the document'}: {e['msg']}" for e in error.errors()[:5])
