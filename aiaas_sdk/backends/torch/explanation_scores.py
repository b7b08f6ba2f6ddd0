"""The number that is explained, as captum differentiates it; and texts as a model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from aiaas_sdk.backends.torch.tokenizing import Tokenizer
from aiaas_sdk.errors import InputError
from aiaas_sdk.explaining import targets as wanted
from aiaas_sdk.records.model import ModelInfo

__all__ = ["Scorer", "Texts"]

IDS, MASK = "input_ids", "attention_mask"


def _is_mask(name: str) -> bool:
    """Whether whole numbers say which of the tokens there are."""
    return name.endswith("mask")


@dataclass(frozen=True, slots=True)
class Texts:
    """A language model's tokenizer.

    Attributes:
        task: "embed": a text is explained by how near it is to its own vector; "generate": by its next token.
        limit: tokens of a text.
    """

    tokenizer: Tokenizer
    task: str
    limit: int
    device: torch.device

    def inputs(self, texts: Sequence[str]) -> tuple[tuple[tuple[str, ...], ...], dict[str, torch.Tensor]]:
        """The tokens of each text as they are written; ids and mask, (texts, longest)."""
        rows = [row or [0] for row in self.tokenizer.encode_batch(texts, self.limit)]
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        written = tuple(tuple(self.tokenizer.written(row)) for row in rows)
        return written, {IDS: ids.to(self.device), MASK: mask.to(self.device)}

    def token(self, text: str) -> int:
        """The id of a token by how it is written. InputError where it is none, or several."""
        ids = self.tokenizer.encode(text, whole=False)
        if len(ids) == 1:
            return ids[0]
        hint = "Give one of them, with the blank before it where it begins a word" if ids else "Give a token, or its id"
        shown = ", ".join(map(repr, self.tokenizer.written(ids[:8])))
        raise InputError(f"the target {text[:80]!r} is {len(ids)} tokens{': ' * bool(ids)}{shown}", hint=hint)


@contextmanager
def _shortened(layer: nn.Module | None, last: torch.Tensor | None) -> Iterator[None]:
    """While what goes on in a layer goes on for each row's last token alone: (rows, 1, width)."""
    if layer is None or last is None:
        yield
        return
    rows = torch.arange(len(last), device=last.device)
    hook = layer.register_forward_hook(lambda part, given, found: found[rows, last][:, None])
    try:
        yield
    finally:
        hook.remove()


class Scorer:
    """The number that is explained, for rows of the inputs: what captum calls.

    The first axis of all that it is asked about is rows, wherever the model has them. It is called with the inputs that
    are differentiated (or the token ids) first, and the others behind them. Without targets for a text's vector, it is
    the text's likeness to the vector that it has: at a baseline that says how much of it is gone.

    Attributes:
        inputs: those with rows, by name, in the order in which the model takes them.
        floats: the names of those of floats.
        told: the targets as they are told: for each row an index, or None where a row has one number.
        width: how many numbers the model gives for a row.
        error: by how much the worst row's attributions don't add up, once somebody has found that.
    """

    def __init__(
        self,
        forward: Callable[..., Sequence[torch.Tensor]],
        info: ModelInfo,
        inputs: Mapping[str, torch.Tensor],
        axes: Mapping[str, int | None],
        targets: tuple[int | str, ...] | None,
        texts: Texts | None,
        before_logits: nn.Module | None = None,
    ) -> None:
        self._before_logits = before_logits
        self._whole, self._axes, self._forward, self._texts = inputs, axes, forward, texts
        self.inputs = {
            name: value.movedim(axis, 0) for name, value in inputs.items() if (axis := axes.get(name, 0)) is not None
        }
        self.floats = [name for name, value in self.inputs.items() if value.is_floating_point()]
        self.error: float | None = None
        self.width = 0
        output = wanted.output_of(targets, info)
        self._output = [spec.name for spec in info.outputs].index(output.name)
        self._first = self.floats or [name for name in self.inputs if not _is_mask(name)] or list(self.inputs)
        self._rest = [name for name in self.inputs if name not in self._first]
        self._own: torch.Tensor | None = None
        with torch.no_grad():
            outputs = self._outputs(self.inputs)
        embeds = texts is not None and texts.task == "embed" and outputs.ndim == 2
        if embeds and targets is None:
            self._own, self.told = outputs, None
        else:
            self.told = wanted.resolved(targets, outputs.float().cpu().numpy(), output, info)
        self.targets = None if self.told is None else torch.tensor(self.told, device=outputs.device)

    @property
    def ids_name(self) -> str:
        """The input of token ids."""
        return IDS if IDS in self.inputs else next(iter(self.inputs))

    def _outputs(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Of each row its numbers, (rows, ...); of what goes on with each token, log-probabilities after the last."""
        rows = len(next(iter(inputs.values())))
        last = self._last(inputs) if self._texts is not None and self._texts.task == "generate" else None
        # logits of all tokens would take the most of the time and of the memory of small models
        with _shortened(self._before_logits, last):
            found = self._forward(*(self._placed(name, inputs) for name in self._whole))[self._output]
        if found.ndim == 0 or len(found) != rows:
            raise InputError(
                f"an output is {list(found.shape)} for {rows} rows of the inputs, so it can't be explained",
                hint="Explain an output whose first axis is those rows: target='NAME'",
            )
        self.width = max(self.width, found[:1].numel())
        if found.ndim == 3 and last is not None:
            short = self._before_logits is not None
            found = found[:, 0] if short else found[torch.arange(len(found), device=found.device), last]
            # logits say nothing alone: all of them may grow together
            found = found.float().log_softmax(-1)
        return found

    def _last(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The place of each row's last token."""
        ids = inputs[self.ids_name]
        mask = inputs.get(MASK)
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device) if mask is None else mask.sum(1) - 1

    def _placed(self, name: str, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """An input as the model takes it; what all rows share is as it was given."""
        axis = self._axes.get(name, 0)
        return self._whole[name] if axis is None else inputs[name].movedim(0, axis)

    def __call__(self, *given: torch.Tensor) -> torch.Tensor:
        names = (*self._first, *self._rest)
        found = self._outputs(dict(zip(names, given, strict=False)))
        if self._own is not None:
            return (found * given[len(names)]).sum(-1)
        return found.flatten() if self.targets is None else found.flatten(1)

    # ------------------------------------------------------------ as captum is asked
    def given(self, rows: torch.Tensor | slice = slice(None)) -> dict[str, Any]:
        """captum's arguments for some rows."""
        first = tuple(self.inputs[name][rows].detach().clone() for name in self._first)
        others = self.others
        return {
            "inputs": tuple(value.requires_grad_() for value in first) if self.floats else first,
            "additional_forward_args": None if others is None else tuple(value[rows] for value in others),
            "target": None if self.targets is None else self.targets[rows],
        }

    @property
    def others(self) -> tuple[torch.Tensor, ...] | None:
        rest = tuple(self.inputs[name] for name in self._rest)
        return (rest if self._own is None else (*rest, self._own)) or None

    def placed(self, found: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Attributions by the name of the input that they are for."""
        return dict(zip(self._first, found, strict=True))

    def shaped(self, found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Attributions of the shapes that the model's inputs have; zeros for one that isn't looked at."""
        return {
            name: found[name].movedim(0, self._axes.get(name, 0) or 0) if name in found else torch.zeros(value.shape)
            for name, value in self._whole.items()
        }

    def baseline(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The inputs with zeros for some; of token ids 0, but for those that are no text (the beginning of one)."""
        found = {**self.inputs, **{name: torch.zeros_like(self.inputs[name]) for name in names}}
        if not self.floats and self._texts is not None:
            ids = self.inputs[self.ids_name]
            special = torch.tensor(sorted(self._texts.tokenizer.special), dtype=ids.dtype, device=ids.device)
            found[self.ids_name] = torch.where(torch.isin(ids, special), ids, 0)
        return found

    def changed(self, rows: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The number that is explained for some rows with other inputs, float64."""
        first = tuple(inputs[name] if name in inputs else self.inputs[name][rows] for name in self._first)
        return self._picked(first, rows)

    def _picked(self, first: tuple[torch.Tensor, ...], rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        scores = self(*first, *(other[rows] for other in self.others or ())).double()
        if self.targets is None:
            return scores
        return scores[torch.arange(len(scores), device=scores.device), self.targets[rows]]

    def run(self) -> torch.Tensor:
        """One pass over the inputs; of each row the number that is explained, float64."""
        return self._picked(self.given()["inputs"])

    def check_tokens(self, count: int) -> None:
        """InputError where the token ids aren't so many."""
        value = self.inputs[self.ids_name]
        if value.ndim != 2 or value.shape[1] != count:
            raise InputError(f"the attention is between {count} tokens, and the input is {list(value.shape)}")
