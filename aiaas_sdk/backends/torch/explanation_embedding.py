"""Token ids as vectors: where a module looks its tokens up, and the number that is explained as a function of those.

An id can't be differentiated, its vector can: an explanation of the vectors, summed for each token, is one of the ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from aiaas_sdk.backends.torch.explanation_scores import Scorer
from aiaas_sdk.errors import InputError

__all__ = ["Vectors"]

Seen: TypeAlias = Callable[[nn.Module, int, torch.Tensor], torch.Tensor | None]
"""Told of each look-up of a pass: the layer, how often it was at work before, and the ids. May give other vectors."""


@dataclass(frozen=True, slots=True)
class Place:
    """A look-up of a pass: the layer, how often it was at work before, and the input whose ids it is given."""

    layer: nn.Embedding
    turn: int
    name: str


class Vectors:
    """The number that is explained, for the vectors of the tokens of all inputs: what captum calls.

    Attributes:
        places: the look-ups, in order; each has an argument of its own.

    Raises:
        InputError: no embedding is given an input's ids.
    """

    def __init__(self, module: nn.Module, scorer: Scorer, method: str = "integrated_gradients") -> None:
        self._module, self._scorer = module, scorer
        self.places = self._found()
        if not self.places:
            raise InputError(
                f"{method} found no embedding that takes the token ids as they are given",
                hint="occlusion needs none, nor does shap",
            )

    def _found(self) -> list[Place]:
        seen: list[Place] = []

        def note(layer: nn.Module, turn: int, ids: torch.Tensor) -> None:
            if isinstance(layer, nn.Embedding) and (name := self._name(ids)) is not None:
                seen.append(Place(layer, turn, name))

        with self._watched(note), torch.no_grad():
            self._scorer.run()
        return seen

    def _name(self, ids: torch.Tensor) -> str | None:
        """The input that these ids are: itself, or else one with the same numbers."""
        alike = [(name, value) for name, value in self._scorer.inputs.items() if value.shape == ids.shape]
        itself = [name for name, value in alike if value.data_ptr() == ids.data_ptr()]
        equal = [name for name, value in alike if torch.equal(value, ids.to(value.dtype))]
        return next(iter((*itself, *equal)), None)

    def at(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The vectors of other ids, for each place."""
        with torch.no_grad():
            return tuple(nn.functional.embedding(inputs[place.name], place.layer.weight) for place in self.places)

    def __call__(self, *given: torch.Tensor) -> torch.Tensor:
        places: list[tuple[nn.Module, int]] = [(place.layer, place.turn) for place in self.places]
        vectors = dict(zip(places, given, strict=False))
        with self._watched(lambda layer, turn, ids: vectors.get((layer, turn))):
            return self._scorer(*given[len(places) :])

    def given(self) -> dict[str, Any]:
        """captum's arguments: the vectors, and behind them the inputs themselves."""
        asked = self._scorer.given()
        others = (*asked["inputs"], *(asked["additional_forward_args"] or ()))
        vectors = tuple(one.requires_grad_() for one in self.at(self._scorer.inputs))
        return {"inputs": vectors, "additional_forward_args": others, "target": asked["target"]}

    def lengths(self, found: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The length of each token's gradient, by the name of its input."""
        return {name: squares.sqrt() for name, squares in self.summed([one**2 for one in found]).items()}

    def summed(self, found: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Attributions to vectors as those to ids, by the name of their input."""
        sums: dict[str, torch.Tensor] = {}
        for place, one in zip(self.places, found, strict=True):
            told = one.detach().sum(-1)
            sums[place.name] = sums[place.name] + told if place.name in sums else told
        return sums

    @contextmanager
    def _watched(self, seen: Seen) -> Iterator[None]:
        turns: dict[nn.Module, int] = {}

        def told(layer: Any, given: tuple[Any, ...], vectors: torch.Tensor) -> torch.Tensor | None:
            turn = turns.get(layer, 0)
            turns[layer] = turn + 1
            return seen(layer, turn, given[0])

        layers = [part for part in self._module.modules() if isinstance(part, nn.Embedding)]
        hooks = [layer.register_forward_hook(told) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
