"""`aiaas chat`: a conversation on a terminal, or one answer to what stdin holds."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from aiaas_sdk.cli.exits import say
from aiaas_sdk.errors import AiaasError, InputError, UnsupportedOperationError
from aiaas_sdk.model import Model
from aiaas_sdk.records.language import Delta, Generation, Message

__all__ = ["Conversation", "answer_stdin", "converse", "told"]

QUIT = "/quit"
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What could steer a terminal; text may hold anything else, tabs and line ends among it."""


class Conversation:
    """A model and what has been said.

    Args:
        model: opened.
        system: what the model is told before all else.
        sampling: the options of `Sampling`.
        reasoning: what the model thinks is shown, too, on stderr.

    Raises:
        UnsupportedOperationError: it isn't a language model.
    """

    def __init__(
        self, model: Model[Any, Any], system: str | None, sampling: Mapping[str, Any], reasoning: bool
    ) -> None:
        info = model.info()
        if "stream" not in info.verbs:
            can = ", ".join(sorted(info.verbs)) or "nothing"
            raise UnsupportedOperationError(f"{info.name} can't chat", hint=f"It can {can}")
        self._model, self._sampling, self._reasoning = model, dict(sampling), reasoning
        self._said = [Message("system", system)] if system else []

    def answer(self, text: str) -> Generation:
        """The model's answer, whole. It belongs to the conversation from now on, and so does the question."""
        asked = [*self._said, Message("user", text)]
        answer: Generation = self._model.generate(asked, **self._sampling)
        self._said = [*asked, answer.message]
        return answer

    def stream(self, text: str) -> None:
        """Write the answer to stdout as it comes.

        Raises:
            KeyboardInterrupt: it was stopped; what had come of it is its answer. One that fails was never asked.
        """
        asked = [*self._said, Message("user", text)]
        stream = self._model.stream(asked, **self._sampling)
        try:
            with stream:
                for delta in stream:
                    self._show(delta)
            self._said = [*asked, stream.result().message]
        except KeyboardInterrupt:
            if stream.text:
                self._said = [*asked, Message("assistant", stream.text)]
            raise
        finally:
            if stream.text and not stream.text.endswith("\n"):
                _write(sys.stdout, "\n")

    def _show(self, delta: Delta) -> None:
        if self._reasoning and delta.reasoning:
            _write(sys.stderr, delta.reasoning)
        _write(sys.stdout, delta.text)


def converse(talk: Conversation) -> None:
    """Answer line by line until Ctrl-D or /quit. Ctrl-C stops an answer; an error ends an answer and nothing more."""
    _editable()
    print(f"Ctrl-C stops an answer, Ctrl-D or {QUIT} ends", file=sys.stderr)
    while (text := _line()) is not None:
        if text.strip() == QUIT:
            return
        if not text.strip():
            continue
        try:
            talk.stream(text)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
        except AiaasError as error:
            say(error)


def answer_stdin(talk: Conversation, *, whole: bool) -> Generation | None:
    """Answer all that stdin holds, which is one message: piece by piece to stdout, or with `whole` as what it gives."""
    try:
        text = sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError:
        raise InputError("stdin isn't text in UTF-8") from None
    if not text.strip():
        raise InputError("stdin holds no message", hint="As in: echo 'Why is the sky blue?' | aiaas chat ADDRESS")
    if whole:
        return talk.answer(text)
    talk.stream(text)
    return None


def told(answer: Generation) -> dict[str, Any]:
    """An answer as plain values."""
    return {
        "model": answer.model,
        "version": answer.version,
        "backend": answer.backend,
        "text": answer.text,
        "reasoning": answer.reasoning,
        "finish_reason": answer.finish_reason,
        "input_tokens": answer.usage.input_tokens,
        "output_tokens": answer.usage.output_tokens,
    }


def _line() -> str | None:
    """What is typed next; None at the end."""
    while True:
        try:
            if sys.stdout.isatty():
                return input("> ")
            _write(sys.stderr, "> ")
            return input()
        except EOFError:
            print(file=sys.stderr)
            return None
        except KeyboardInterrupt:
            print(f"\nCtrl-D or {QUIT} ends", file=sys.stderr)


def _editable() -> None:
    """Lines can be edited and called back, where Python has the means."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401


def _write(where: TextIO, text: str) -> None:
    where.write(_STEERING.sub(" ", text) if where.isatty() else text)
    where.flush()
