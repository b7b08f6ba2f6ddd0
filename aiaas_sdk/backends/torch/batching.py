"""One thread for each language model: it advances all answers together, a token a step (Yu et al. 2022, "Orca").

An answer joins between two steps, when its prompt has been read, and leaves with its last token, or when its caller
has gone. The keys and values of all of them lie in one cache, a row for each.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import torch
from torch import Tensor

from aiaas_sdk.architectures.attention import Cache, Past
from aiaas_sdk.backends.torch.jobs import Answer, Ask, Job
from aiaas_sdk.backends.torch.sampling import logprobs_of
from aiaas_sdk.backends.torch.tokenizing import Tokenizer
from aiaas_sdk.errors import AiaasError, ClosedError

__all__ = ["Engine", "Speaker"]

ROWS = 64
"""The most answers that are advanced together; the others wait."""
PIECE = 512
"""Tokens of a prompt that are read at once; between them the answers that run get a step, and callers may leave."""
MEMORY = 4 << 30
"""Bytes of the cache, unless one answer alone needs more. Where it gets short the youngest answers are put back."""
PATIENCE = 10.0
"""Seconds that the interpreter's end waits for steps that run."""
LEAST = 64
"""Tokens for which a row of the cache is made at first."""


class Speaker(Protocol):
    """A module that can generate: what a decoder of `Transformer` offers."""

    @property
    def vocabulary(self) -> int: ...
    def cache(self) -> Cache: ...
    def advance(self, ids: Tensor, past: Past) -> Tensor: ...


class Engine:
    """See the module. The thread starts with the first job and ends with `close`.

    Args:
        model: the module, which nothing else changes.
        device: where it is.
        tokenizer: gives the number of tokens, and which are no text; ids of the model beyond it are never drawn.
        end: the tokens that end an answer.
        context: the most tokens of a row.
        told: makes an error of ours out of one that the model raised.
    """

    def __init__(
        self,
        model: Speaker,
        device: torch.device,
        tokenizer: Tokenizer,
        end: Sequence[int],
        context: int,
        told: Callable[[Exception], AiaasError],
    ) -> None:
        self._model, self._device, self._tokenizer = model, device, tokenizer
        self._spelling, self._end, self._context = tokenizer.spelling(), frozenset(end), context
        self._told = told
        self._guard = threading.Lock()
        self._closed = False
        self._reset()
        _alive.add(self)

    @property
    def spelling(self) -> Sequence[bytes]:
        """For each token the bytes of its text."""
        return self._spelling

    def _reset(self) -> None:
        """At first, and in a child process, which inherits no thread."""
        self._process = os.getpid()
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._work: _Work | None = None

    # ------------------------------------------------------------ the callers' side
    def submit(self, ask: Ask) -> Job:
        """Begin. ClosedError after `close`."""
        job = Job(ask, self._spelling, self._tokenizer.special)
        with self._guard:
            if self._closed:
                raise ClosedError("the model was closed", hint="Load it again")
            if self._process != os.getpid():
                self._reset()
            self._inbox.put(job)
            if self._thread is None:
                self._work = _Work(self._model, self._device, self._inbox, self._step_facts(), self._told)
                self._thread = threading.Thread(target=self._work.run, name="aiaas-speaking", daemon=True)
                _threads.add(self._thread)
                self._thread.start()
        return job

    def _step_facts(self) -> tuple[int, frozenset[int], int, Sequence[bytes]]:
        return self._tokenizer.size, self._end, self._context, self._spelling

    def close(self) -> None:
        """End the thread after its step; what runs fails with ClosedError."""
        with self._guard:
            self._closed = True
            if self._process == os.getpid() and self._thread is not None:
                self._inbox.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the thread's end after `close`."""
        if self._process == os.getpid() and self._thread is not None:
            self._thread.join(seconds)


_alive: weakref.WeakSet[Engine] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Those of all engines: the step of a closed one may outlast whoever held it."""


@atexit.register
def _end_all() -> None:
    """A thread that is within torch when the interpreter ends takes the process down with it."""
    for engine in list(_alive):
        engine.close()
    until = time.monotonic() + PATIENCE
    for thread in list(_threads):
        thread.join(max(0.0, until - time.monotonic()))


class _Work:
    """The thread's life. It alone touches what is here, so there are no locks."""

    def __init__(
        self,
        model: Speaker,
        device: torch.device,
        inbox: SimpleQueue[Job | None],
        facts: tuple[int, frozenset[int], int, Sequence[bytes]],
        told: Callable[[Exception], AiaasError],
    ) -> None:
        self._model, self._device, self._inbox, self._told = model, device, inbox, told
        self._size, self._end, self._context, self._spelling = facts
        self._waiting: deque[list[Answer]] = deque()
        self._reading: list[Answer] = []
        self._read = 0
        self._running: list[Answer] = []
        self._cache = model.cache()

    def run(self) -> None:
        """Until the model is closed. A step that fails ends what runs; what comes then is tried again."""
        while self._take():
            try:
                with torch.inference_mode():
                    self._step()
            except Exception as error:
                self._fail(error if isinstance(error, AiaasError | MemoryError) else self._caused(error))
        self._fail(ClosedError("the model was closed while it spoke", hint="Close it after its answers"))

    def _caused(self, error: Exception) -> AiaasError:
        told = self._told(error)
        told.__cause__ = error
        return told

    # ------------------------------------------------------------ coming and going
    def _take(self) -> bool:
        """Take in what is new; waits where there is nothing to do. False at the end."""
        idle = not (self._running or self._reading or self._waiting)
        if idle:
            self._cache.resize(0, 0)
        try:
            while True:
                job = self._inbox.get(block=idle)
                if job is None:
                    return False
                idle = False
                self._waiting.append(list(job.answers))
                del job
        except Empty:
            return True

    def _fail(self, error: BaseException) -> None:
        """All that runs and waits."""
        for answer in [*self._running, *self._reading, *(one for group in self._waiting for one in group)]:
            answer.job.fail(error)
        self._running, self._reading = [], []
        self._waiting.clear()
        self._cache.resize(0, 0)

    def _step(self) -> None:
        self._drop()
        if not self._reading and self._waiting:
            self._begin()
        if self._reading:
            self._read_on()
        if self._running:
            self._advance()

    def _drop(self) -> None:
        """Whose caller has gone, goes."""
        self._waiting = deque(group for group in self._waiting if not group[0].job.left)
        if self._reading and self._reading[0].job.left:
            self._reading = []
        for row in reversed(range(len(self._running))):
            if self._running[row].job.left:
                self._remove(row)

    def _remove(self, row: int) -> None:
        """The last row takes the place of the one that goes."""
        last = self._running.pop()
        if row < len(self._running):
            self._cache.copy(len(self._running), row, last.held)
            self._running[row] = last

    # ------------------------------------------------------------ reading prompts
    def _begin(self) -> None:
        """Make room for the next group; as many of it as there is room for."""
        group = self._waiting[0]
        capacity = self._capacity(len(group[0].tokens) + 1)
        running = len(self._running)
        room = min(ROWS, MEMORY // max(1, self._cache.bytes_for(1, capacity))) - running
        if room < 1 and running:
            return
        taken = group[: max(1, room)]
        if len(taken) == len(group):
            self._waiting.popleft()
        else:
            self._waiting[0] = group[len(taken) :]
        self._reading, self._read = taken, 0
        self._cache.resize(max(self._cache.rows, running + len(taken)), capacity)
        job = taken[0].job
        job.started()

    def _capacity(self, tokens: int) -> int:
        """Tokens a row, at least so many: it doubles, so that growing costs little."""
        size = max(LEAST, self._cache.capacity)
        while size < tokens:
            size *= 2
        return max(min(size, self._context), tokens)

    def _read_on(self) -> None:
        """The next piece of the prompt; at its end the first token of each of the answers."""
        tokens, row = self._reading[0].tokens, self._cache.rows - 1
        end = min(len(tokens), self._read + PIECE)
        past = Past.beginning(self._cache, row, self._read, end - self._read)
        ids = torch.tensor([tokens[self._read : end]], device=self._device)
        logits = self._model.advance(ids, past)[0]
        self._read = end
        if end < len(tokens):
            return
        joined, self._reading = self._reading, []
        for answer in joined:
            answer.held = len(tokens)
            self._draw(answer, logits[: self._size])
            if answer.reason or answer.job.left:
                continue
            if len(self._running) != row:
                self._cache.copy(row, len(self._running), len(tokens))
            self._running.append(answer)

    # ------------------------------------------------------------ one token each
    def _advance(self) -> None:
        self._grow()
        rows = self._running
        ids = torch.tensor([[answer.last] for answer in rows], device=self._device)
        logits = self._model.advance(ids, Past.step(self._cache, [answer.held for answer in rows]))[:, : self._size]
        likeliest = logits.argmax(-1).tolist()
        for row in reversed(range(len(rows))):
            answer = rows[row]
            answer.held += 1
            self._draw(answer, logits[row], likeliest[row])
            if answer.reason:
                self._remove(row)

    def _grow(self) -> None:
        """Room for one more token in each row; where memory ends, the youngest answers wait and are read again."""
        needed = max(answer.held for answer in self._running) + 1
        if needed <= self._cache.capacity:
            return
        capacity = self._capacity(needed)
        while len(self._running) > 1 and self._cache.bytes_for(self._rows(), capacity) > MEMORY:
            self._waiting.appendleft([self._running.pop()])
            self._reading, back = [], self._reading
            if back:
                self._waiting.append(back)
        self._cache.resize(self._rows(), capacity)

    def _rows(self) -> int:
        return self._cache.rows if self._reading else len(self._running)

    def _draw(self, answer: Answer, logits: Tensor, likeliest: int | None = None) -> None:
        """The answer's next token; what fails here is its call's own affair."""
        if answer.job.left:
            return
        try:
            allowed = logits if answer.constraint is None else answer.constraint.mask(logits)
            if answer.constraint is None and answer.sampler.greedy and likeliest is not None:
                token = likeliest
            else:
                token = answer.sampler.draw(allowed)
            if answer.constraint is not None and token not in self._end:
                token = answer.constraint.within(token)
            answer.take(token, self._end, self._told_of(answer, logits, token))
        except AiaasError as error:
            answer.job.fail(error)

    def _told_of(self, answer: Answer, logits: Tensor, token: int) -> dict[str, Any] | None:
        others = answer.job.ask.options.get("logprobs")
        if others is None:
            return None
        own, best = logprobs_of(logits, token, others)
        return {**self._entry(token, own), "top_logprobs": [self._entry(*pair) for pair in best]}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._spelling[token]
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}
