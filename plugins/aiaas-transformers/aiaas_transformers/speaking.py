"""Language models: from a conversation to `generate` of transformers, and back."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aiaas_sdk.errors import ContextLengthError
from aiaas_sdk.records.chat import Chat, Spoken
from aiaas_transformers.answers import Answer
from aiaas_transformers.drawing import Watch, processors
from aiaas_transformers.jobs import Job
from aiaas_transformers.loading import transformers
from aiaas_transformers.prompting import tokens_of

__all__ = ["Ask", "Speaker"]

CONTEXTS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")
"""What configurations call the longest text."""
UNTOLD = 2048
"""Tokens of a context that the configuration doesn't tell."""
_DRAWING = ("temperature", "top_p", "top_k")


@dataclass(frozen=True, slots=True)
class Ask:
    """What one call wants: the tokens to go on from, the most of an answer, and how they are drawn."""

    prompt: Sequence[int]
    limit: int
    options: Mapping[str, Any]


class Speaker:
    """What generates with one module."""

    def __init__(self, module: Any, tokenizer: Any, device: torch.device) -> None:
        self._module, self._tokenizer, self._device = module, tokenizer, device
        config = module.config
        self._encoded_apart = bool(getattr(config, "is_encoder_decoder", False))
        text = config.get_text_config()
        self.context = next((size for key in CONTEXTS if isinstance(size := getattr(text, key, None), int)), UNTOLD)
        own = module.generation_config
        end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
        self._end = frozenset([end] if isinstance(end, int) else end or ())
        told = {name: getattr(own, name) for name in _DRAWING if getattr(own, name) is not None}
        self._usual = told if own.do_sample else {}
        self._settings = self._plain(own)

    def _plain(self, own: Any) -> Any:
        """The model's own settings, without those that this SDK has options for."""
        found = copy.deepcopy(own)
        for name in (*_DRAWING, "max_length", "min_p", "typical_p", "stop_strings", "num_return_sequences"):
            setattr(found, name, None)
        found.do_sample, found.num_beams, found.num_return_sequences = False, 1, 1
        found.eos_token_id = sorted(self._end) or None
        if found.pad_token_id is None:
            found.pad_token_id = min(self._end, default=0)
        return found

    # ------------------------------------------------------------ before any work
    def ask(self, chat: Chat) -> Ask:
        """The tokens and options of a conversation.

        Raises:
            ContextLengthError: it doesn't fit into the context. InputError, UnsupportedOperationError: as `tokens_of`.
        """
        prompt = tokens_of(chat, self._tokenizer)
        options = {**self._usual, **chat.sampling}
        return Ask(prompt, self._limit(len(prompt), options.get("max_tokens")), options)

    def _limit(self, prompt: int, wanted: int | None) -> int:
        left = self.context - (0 if self._encoded_apart else prompt)
        if left < 1 or prompt > self.context:
            raise ContextLengthError(
                f"the prompt has {prompt} tokens, and the model's context is {self.context} with the answer",
                hint="Shorten the conversation",
            )
        if wanted is not None and wanted > left:
            raise ContextLengthError(
                f"the prompt has {prompt} tokens and max_tokens is {wanted}; together that is more than the model's "
                f"context of {self.context}",
                hint=f"Shorten the conversation, or give max_tokens={left} at most",
            )
        return left if wanted is None else wanted

    # ------------------------------------------------------------ the work
    def speak(self, ask: Ask, job: Job, streaming: bool) -> None:
        """Generate, and tell the job; ends before its next token where the job was left."""
        job.begun = time.perf_counter()
        count = ask.options.get("n", 1)
        watch = Watch() if "logprobs" in ask.options else None
        drawing = [*([watch] if watch else []), *processors(ask.options)]
        steps = _Steps(self._answers(ask, count), job, watch, streaming)
        settings = copy.copy(self._settings)
        settings.max_new_tokens = ask.limit
        ids = torch.tensor([ask.prompt] * count, device=self._device)
        with torch.inference_mode():
            self._module.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=settings,
                logits_processor=transformers.LogitsProcessorList(drawing),
                stopping_criteria=transformers.StoppingCriteriaList([steps]),
            )
        job.end(Spoken(tuple(answer.choice() for answer in steps.answers), len(ask.prompt), steps.count))

    def _answers(self, ask: Ask, count: int) -> list[Answer]:
        stops, others = ask.options.get("stop", ()), ask.options.get("logprobs")
        words = self._tokenizer.backend_tokenizer
        return [Answer(words, self._end, ask.limit, stops, others) for _ in range(count)]


class _Steps(transformers.StoppingCriteria):
    """Called after each step of all rows: takes their new tokens, and says which rows are done."""

    def __init__(self, answers: list[Answer], job: Job, watch: Watch | None, streaming: bool) -> None:
        self.answers, self._job, self._watch, self._streaming = answers, job, watch, streaming

    @property
    def count(self) -> int:
        """Tokens that were drawn, the ends of the answers among them."""
        return sum(answer.count for answer in self.answers)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
        logits = self._watch.logits if self._watch else None
        for row, token in enumerate(input_ids[:, -1].tolist()):
            answer = self.answers[row]
            if not answer.reason:
                shown = answer.take(token, None if logits is None else logits[row])
                if self._streaming and not row:
                    self._job.say(shown)
        done = [bool(answer.reason) or self._job.left for answer in self.answers]
        return torch.tensor(done, device=input_ids.device)
