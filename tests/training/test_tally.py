"""Loss and metrics over batches: what is counted together says what each batch alone would have said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from aiaas_sdk.backends.torch.training.metrics import metrics_of
from aiaas_sdk.backends.torch.training.tally import BATCHES, SIZE, Tally

NAMES = ("accuracy", "top_k_accuracy", "precision", "recall", "f1", "auc", "mse", "mae")


def tally() -> Tally:
    return Tally({"logits": metrics_of(NAMES, "sparse_categorical_crossentropy", "logits")})


def batches(rows: int, count: int = BATCHES + 5, classes: int = 7) -> Iterator[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(rows, classes, generator=drawn), torch.randint(classes, (rows,), generator=drawn)


def add(to: Tally, outputs: Tensor, targets: Tensor) -> None:
    to.add(outputs.logsumexp(-1).sum(), float(len(targets)), {"logits": outputs}, {"logits": targets})


@pytest.mark.parametrize("rows", [1, 8, SIZE])
def test_it_is_the_same_to_the_bit_whenever_somebody_looks(rows: int) -> None:
    count = 3 if rows == SIZE else BATCHES + 5
    seldom, often, resumed = tally(), tally(), tally()
    for outputs, targets in batches(rows, count):
        add(seldom, outputs, targets)
        add(often, outputs, targets)
        often.values()
        add(resumed, outputs, targets)
        kept, resumed = resumed.kept(), tally()
        resumed.restore(kept, torch.device("cpu"))
    assert seldom.values() == often.values() == resumed.values()
    assert int(seldom.kept()["rows"]) == count * rows


def test_it_is_what_all_rows_as_one_batch_give() -> None:
    parts, whole = tally(), tally()
    for outputs, targets in batches(8):
        add(parts, outputs, targets)
    rows = list(batches(8))
    add(whole, torch.cat([o for o, _ in rows]), torch.cat([t for _, t in rows]))
    assert parts.values() == pytest.approx(whole.values(), rel=1e-6)


def test_arrays_that_a_loader_fills_again_count_as_they_were() -> None:
    fresh, again = tally(), tally()
    outputs, targets = torch.empty(8, 7), torch.empty(8, dtype=torch.int64)
    for o, t in batches(8):
        add(fresh, o, t)
        outputs.copy_(o), targets.copy_(t)
        add(again, outputs, targets)
    assert fresh.values() == again.values()


def test_series_of_different_lengths() -> None:
    apart, one = tally(), tally()
    drawn = torch.Generator().manual_seed(0)
    for steps in (3, 3, 5, 1, 5):
        outputs = torch.randn(4, steps, 7, generator=drawn)
        targets = torch.randint(7, (4, steps), generator=drawn)
        add(apart, outputs, targets)
        add(one, outputs.reshape(-1, 7), targets.reshape(-1))
    found, flat = apart.values(), one.values()
    assert {name: found[name] for name in ("accuracy", "f1", "auc")} == {n: flat[n] for n in ("accuracy", "f1", "auc")}
