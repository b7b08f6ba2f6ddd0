"""Metrics by name, over all rows of an epoch.

accuracy: the share of right classes. top_k_accuracy: of those among the five best. precision, recall, f1: of the class
1 where there are two, else the mean over the classes that are there, each counted alike. auc: the area under the ROC
curve, as the share of pairs that are in the right order (Mann and Whitney 1947), ties half; of more than two classes
the mean over each against the others. mse and mae: of the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from aiaas_sdk.rows import IGNORED

__all__ = ["Metric", "metrics_of"]

BEST = 5
CLASSES = frozenset(("accuracy", "top_k_accuracy", "precision", "recall", "f1", "auc"))


class Metric(Protocol):
    """What is counted over batches.

    Attributes:
        state: all that it knows, as tensors.
        exact: it is the same to the bit, whichever batches are handed over as one.
    """

    state: dict[str, Tensor]
    exact: bool

    def add(self, outputs: Tensor, targets: Tensor) -> None: ...
    def value(self) -> float: ...


def metrics_of(names: Sequence[str], loss: str, output: str) -> dict[str, Metric]:
    """Those that mean something where this loss is used."""
    classes = loss.endswith("crossentropy") or loss == "function"
    middle = 0.5 if output == "probabilities" else 0.0
    if loss == "binary_crossentropy":  # each number of a row is a yes or a no of its own
        return {name: _KINDS[name](name, middle, False) for name in names}
    return {name: _KINDS[name](name, middle, True) for name in names if classes or name not in CLASSES}


def _classes(outputs: Tensor, targets: Tensor, middle: float, shares: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (rows, classes), and the found and the true class of each row; IGNORED is never found.

    Args:
        middle: of two classes, the score above which it is the second.
        shares: whether targets in the output's shape are the shares of a row's classes.
    """
    if shares and targets.shape == outputs.shape and outputs.shape[-1] > 1:
        targets = targets.argmax(-1)
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] > 1:
        scores, true = outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1)
        found = scores.argmax(-1)
    else:
        scores, true = outputs.reshape(-1, 1), targets.reshape(-1).long()
        found = (scores[:, 0] > middle).long()
    return scores, found, true


def _seen(outputs: Tensor, targets: Tensor, middle: float, shares: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `_classes`, of the rows that are looked at."""
    scores, found, true = _classes(outputs, targets, middle, shares)
    seen = true != IGNORED
    return scores[seen], found[seen], true[seen]


class _Share:
    """Right ones among all."""

    exact = True

    def __init__(self, name: str, middle: float, shares: bool) -> None:
        self._best, self._middle, self._shares = name == "top_k_accuracy", middle, shares
        self.state: dict[str, Tensor] = {}

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        scores, found, true = _classes(outputs, targets, self._middle, self._shares)
        if self._best and scores.shape[-1] > 1:
            best = scores.topk(min(BEST, scores.shape[-1]), -1).indices
            right = (best == true[:, None]).any(-1).sum()
        else:
            right = (found == true).sum()
        _sum(self.state, "right", right)
        _sum(self.state, "all", (true != IGNORED).sum())

    def value(self) -> float:
        return _ratio(self.state.get("right"), self.state.get("all"))


class _PerClass:
    """By a table of true and found classes."""

    exact = True

    def __init__(self, name: str, middle: float, shares: bool) -> None:
        self._name, self._middle, self._shares = name, middle, shares
        self.state: dict[str, Tensor] = {}

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        scores, found, true = _seen(outputs, targets, self._middle, self._shares)
        count = max(2, scores.shape[-1])
        table = torch.bincount(true * count + found, minlength=count * count).reshape(count, count)
        _sum(self.state, "table", table)

    def value(self) -> float:
        if "table" not in self.state:
            return float("nan")
        table = self.state["table"].double()
        hit, found, true = table.diag(), table.sum(0), table.sum(1)
        precision = hit / found.clamp(min=1)
        recall = hit / true.clamp(min=1)
        both = {"precision": precision, "recall": recall}
        each = both.get(self._name, 2 * precision * recall / (precision + recall).clamp(min=1e-12))
        return float(each[1]) if len(table) == 2 else float(each[true > 0].mean())


class _Area:
    """By the ranks of all scores, which it keeps on the CPU until the epoch ends."""

    exact = True

    def __init__(self, name: str, middle: float, shares: bool) -> None:
        self._middle, self._shares = middle, shares
        self.state: dict[str, Tensor] = {}

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        scores, _, true = _seen(outputs, targets, self._middle, self._shares)
        for name, values in (("scores", scores.detach().float().cpu()), ("true", true.cpu())):
            self.state[name] = values if name not in self.state else torch.cat((self.state[name], values))

    def value(self) -> float:
        if "true" not in self.state:
            return float("nan")
        scores, true = self.state["scores"], self.state["true"]
        if scores.shape[-1] == 1:
            return _area(scores[:, 0], true == 1)
        if scores.shape[-1] == 2:
            return _area(scores[:, 1] - scores[:, 0], true == 1)
        there = [_area(scores[:, c], true == c) for c in range(scores.shape[-1]) if bool((true == c).any())]
        return sum(there) / len(there)


def _area(scores: Tensor, positive: Tensor) -> float:
    _, inverse, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks = (ends - (counts.double() - 1) / 2)[inverse]
    yes = int(positive.sum())
    no = len(positive) - yes
    if not yes or not no:
        return float("nan")
    return float((ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


class _Distance:
    exact = False

    def __init__(self, name: str, middle: float, shares: bool) -> None:
        self._square = name == "mse"
        self.state: dict[str, Tensor] = {}

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        if not targets.is_floating_point() and outputs.ndim == targets.ndim + 1 and outputs.shape[-1] > 1:
            targets = torch.nn.functional.one_hot(targets.clamp(min=0), outputs.shape[-1])
        apart = outputs.double() - targets.reshape(outputs.shape).double()
        total = (apart * apart if self._square else apart.abs()).sum()
        _sum(self.state, "sum", total)
        _sum(self.state, "all", torch.tensor(apart.numel(), device=total.device))

    def value(self) -> float:
        return _ratio(self.state.get("sum"), self.state.get("all"))


def _sum(state: dict[str, Tensor], name: str, value: Tensor) -> None:
    """Adds in place, which is quicker; the first value is this function's from then on."""
    if name in state:
        state[name] += value
    else:
        state[name] = value


def _ratio(part: Tensor | None, whole: Tensor | None) -> float:
    return float("nan") if part is None or whole is None or not whole else float(part) / float(whole)


_KINDS: Mapping[str, type[_Share] | type[_PerClass] | type[_Area] | type[_Distance]] = {
    "accuracy": _Share,
    "top_k_accuracy": _Share,
    "precision": _PerClass,
    "recall": _PerClass,
    "f1": _PerClass,
    "auc": _Area,
    "mse": _Distance,
    "mae": _Distance,
}
