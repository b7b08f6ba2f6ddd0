"""What the engine works on: the answers of one call, and the way to who waits for them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from aiaas_sdk.backends.torch.sampling import Sampler
from aiaas_sdk.backends.torch.schemas import Constraint
from aiaas_sdk.backends.torch.spelling import Speller, Stops
from aiaas_sdk.backends.torch.toolcalls import OPEN, calls_in
from aiaas_sdk.records.chat import Choice, Spoken
from aiaas_sdk.records.language import Delta, ToolCall
from aiaas_sdk.wire.openai import Thinking

__all__ = ["Answer", "Ask", "Job"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What one call wants, as the engine needs it.

    Attributes:
        prompt: the tokens to go on from.
        limit: the most tokens of an answer; the prompt and it fit into the context.
        options: those of sampling, the model's own defaults among them.
        constraints: what keeps each answer to its schema; none where there is no schema.
        chat: whether it is a conversation, in which a model may think before it answers.
        tools: whether tools were offered, whose calls are taken out of the text.
        streaming: whether the text is wanted as it comes.
        gap: seconds at most between two pieces of it; None for no limit.
    """

    prompt: Sequence[int]
    limit: int
    options: Mapping[str, Any] = field(default_factory=dict)
    constraints: Sequence[Constraint] = ()
    chat: bool = False
    tools: bool = False
    streaming: bool = False
    gap: float | None = None


class Job:
    """One call at the engine. The engine puts pieces in, the caller takes them out; neither waits for the other."""

    def __init__(self, ask: Ask, spelling: Sequence[bytes], special: frozenset[int]) -> None:
        self.ask = ask
        self.answers = [Answer(self, number, spelling, special) for number in range(ask.options.get("n", 1))]
        self.left = False
        self.asked = time.perf_counter()
        self.begun: float | None = None
        self._guard = threading.Lock()
        self._pieces: deque[Delta] = deque()
        self._outcome: Spoken | BaseException | None = None
        self._waiting: Future[Any] | None = None

    # ------------------------------------------------------------ the caller's side
    def next(self) -> Future[Any]:
        """The future of what comes next: a `Delta`, all that has come since in one, or the whole as `Spoken`."""
        future: Future[Any] = Future()
        with self._guard:
            if not self._settle(future):
                self._waiting = future
        return future

    def leave(self) -> None:
        """Nobody wants the rest: the engine drops it before its next token."""
        self.left = True

    # ------------------------------------------------------------ the engine's side
    def started(self) -> None:
        """Its prompt is being read; until then it waited for room."""
        self.begun = self.begun or time.perf_counter()

    def say(self, delta: Delta) -> None:
        self._put(delta, None)

    def ended(self, answer: Answer) -> None:
        """One answer is whole; the job is when all are."""
        if all(one.reason for one in self.answers):
            drawn = sum(len(one.drawn) for one in self.answers)
            choices = tuple(one.choice() for one in self.answers)
            self._put(None, Spoken(choices, len(self.ask.prompt), drawn))

    def fail(self, error: BaseException) -> None:
        self.left = True
        self._put(None, error)

    def _put(self, delta: Delta | None, outcome: Spoken | BaseException | None) -> None:
        with self._guard:
            if delta is not None:
                self._pieces.append(delta)
            if outcome is not None and self._outcome is None:
                self._outcome = outcome
            if self._waiting is not None and self._settle(self._waiting):
                self._waiting = None

    def _settle(self, future: Future[Any]) -> bool:
        """Give the future what is there. False where nothing is."""
        if not self._pieces and self._outcome is None:
            return False
        if not future.set_running_or_notify_cancel():  # its caller has gone
            return True
        if self._pieces:
            pieces = list(self._pieces)
            self._pieces.clear()
            future.set_result(_joined(pieces))
        elif isinstance(self._outcome, BaseException):
            future.set_exception(self._outcome)
        else:
            future.set_result(self._outcome)
        return True


def _joined(pieces: Sequence[Delta]) -> Delta:
    calls = tuple(call for piece in pieces for call in piece.tool_calls)
    text, reasoning = "".join(piece.text for piece in pieces), "".join(piece.reasoning for piece in pieces)
    return Delta(text, reasoning, calls)


class Answer:
    """One answer as it grows: tokens, text, and why it ended.

    `held` is how many of its tokens the cache holds.
    """

    def __init__(self, job: Job, number: int, spelling: Sequence[bytes], special: frozenset[int]) -> None:
        ask = job.ask
        self.job = job
        self.sampler = Sampler(ask.options, number)
        self.constraint = ask.constraints[number] if ask.constraints else None
        self.drawn: list[int] = []
        self.held = 0
        self.reason = ""
        self._spelling, self._special = spelling, special
        self._speller = Speller()
        self._stops = Stops(ask.options.get("stop", ()))
        # a call of a tool is shown whole, at the end
        self._aside = Stops((OPEN,)) if ask.tools else None
        self._thinking = Thinking() if ask.chat else None
        self._text: list[str] = []
        self._thought: list[str] = []
        self._logprobs: list[tuple[int, dict[str, Any]]] = []
        self._spelled = self._kept = 0

    @property
    def tokens(self) -> list[int]:
        """The prompt's and its own."""
        return [*self.job.ask.prompt, *self.drawn]

    @property
    def last(self) -> int:
        return self.drawn[-1]

    def take(self, token: int, end: frozenset[int], logprobs: dict[str, Any] | None = None) -> None:
        """The next token; `reason` is set where the answer ends with it."""
        self.drawn.append(token)
        done = self.constraint.take(token) if self.constraint and token not in end else False
        if token in end:
            self._finish("stop")
            return
        if logprobs is not None:
            self._logprobs.append((self._spelled, logprobs))
        if token not in self._special:
            self._show(self._speller.add(self._spelling[token]))
        if self._stops.hit or done:
            self._finish("stop")
        elif len(self.drawn) >= self.job.ask.limit:
            self._finish("length")

    def _show(self, spelled: str) -> None:
        self._spelled += len(spelled)
        self._add(self._stops.add(spelled))

    def _add(self, text: str) -> None:
        self._kept += len(text)
        self._say(*((text, "") if self._thinking is None else self._thinking.feed(text)))

    def _say(self, text: str, thought: str) -> None:
        if text:
            self._text.append(text)
        if thought:
            self._thought.append(thought)
        if self.job.ask.streaming:
            shown = text if self._aside is None else self._aside.add(text)
            if shown or thought:
                self.job.say(Delta(shown, thought))

    def _finish(self, reason: str) -> None:
        if not self._stops.hit:
            self._add(self._stops.rest())
        if self._thinking is not None:
            self._say(*self._thinking.end())
        self.reason = reason
        if self.job.ask.streaming and self._aside is not None:
            self._finish_aside(self._aside)
        self.job.ended(self)

    def _finish_aside(self, aside: Stops) -> None:
        """Show the calls, and what looked like one and was none."""
        choice, text = self.choice(), "".join(self._text)
        shown = text.find(OPEN) if aside.hit else len(text) - len(aside.rest())
        if choice.tool_calls or choice.text[shown:]:
            self.job.say(Delta(choice.text[shown:], tool_calls=choice.tool_calls))

    def choice(self) -> Choice:
        """The answer as it is."""
        text = "".join(self._text)
        calls: tuple[ToolCall, ...] = ()
        if self._aside is not None:
            text, calls = calls_in(text)
        reason = "tool_calls" if calls else self.reason
        told = None
        if "logprobs" in self.job.ask.options:
            told = [entry for start, entry in self._logprobs if not self._stops.hit or start < self._kept]
        thought = "".join(self._thought).strip() or None
        return Choice(text, reason, thought, calls, told)
