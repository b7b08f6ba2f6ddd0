"""One answer as it grows: tokens, text up to a stop, and why it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers.decoders import DecodeStream

from aiaas_sdk.records.chat import Choice

__all__ = ["Answer"]


class Answer:
    """One of the answers of a call.

    Args:
        tokenizer: of the library `tokenizers`.
        end: the tokens that end an answer.
        limit: the most tokens of one.
        stops: the texts that end it.
        others: how many likeliest tokens are told beside each; None where no probabilities are wanted.
    """

    def __init__(
        self, tokenizer: Any, end: frozenset[int], limit: int, stops: Sequence[str], others: int | None
    ) -> None:
        self.reason = ""
        self.count = 0
        self._tokenizer, self._end, self._limit, self._others = tokenizer, end, limit, others
        self._decoding = DecodeStream(skip_special_tokens=True)
        self._stops = tuple(stops)
        self._text = ""
        self._held = ""
        self._logprobs: list[tuple[int, dict[str, Any]]] = []

    def take(self, token: int, logits: torch.Tensor | None) -> str:
        """The next token; gives the text that may be shown now, and sets `reason` where the answer ends with it."""
        self.count += 1
        if token in self._end:
            return self._finish("stop")
        if logits is not None and self._others is not None:
            self._logprobs.append((len(self._text) + len(self._held), self._told(token, logits)))
        text = self._held + (self._decoding.step(self._tokenizer, token) or "")
        found = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            self._held = text[:found]
            return self._finish("stop")
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        shown = self._show(text[: len(text) - kept])
        return shown + self._finish("length") if self.count >= self._limit else shown

    def _show(self, text: str) -> str:
        self._text += text
        return text

    def _finish(self, reason: str) -> str:
        self.reason = reason
        held, self._held = self._held, ""
        return self._show(held)

    def _told(self, token: int, logits: torch.Tensor) -> dict[str, Any]:
        """As `Generation.logprobs` has it."""
        found = logits.float().log_softmax(-1)
        values, ids = found.topk(self._others or 0)
        return {
            **self._entry(token, float(found[token])),
            "top_logprobs": [
                self._entry(int(id), float(value)) for id, value in zip(ids.tolist(), values.tolist(), strict=True)
            ],
        }

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self._tokenizer.decode([token], skip_special_tokens=False), "logprob": logprob}

    def choice(self) -> Choice:
        """The whole; tokens that a stop cut off tell no probabilities."""
        told = None
        if self._others is not None:
            told = [entry for start, entry in self._logprobs if start <= len(self._text)]
        return Choice(self._text, self.reason, logprobs=told)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop text."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if stop.startswith(text[len(text) - size :]):
            return size
    return 0
