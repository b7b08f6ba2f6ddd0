"""`map`: one answer a row, in order, whatever the batches were."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas

SIGNATURE = "echo:?x=FP32[-1,3]"
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"batch_size": 3, "concurrency": 4}, {"batch_size": 1}])
def test_answers_are_in_order_and_have_no_batch_axis(load: Any, options: Any) -> None:
    answers = list(load(SIGNATURE).map(ROWS, **options))
    assert [answer["x"].shape for answer in answers] == [(3,)] * 10
    assert np.array_equal(np.stack([answer.array for answer in answers]), ROWS)


def test_rows_may_be_lists_mappings_columns_and_tensors(load: Any) -> None:
    torch = pytest.importorskip("torch")
    model = load(SIGNATURE)
    for rows in (ROWS.tolist(), [{"x": row} for row in ROWS], {"x": ROWS}, iter(ROWS)):
        assert np.array_equal(np.stack([answer.array for answer in model.map(rows)]), ROWS)
    answers = list(model.map(torch.from_numpy(ROWS), batch_size=4))
    assert torch.equal(torch.stack([answer.array for answer in answers]), torch.from_numpy(ROWS))


def test_no_rows_give_no_answers(load: Any) -> None:
    assert list(load(SIGNATURE).map([])) == []
    assert list(load(SIGNATURE).map(np.zeros((0, 3), np.float32))) == []


def test_rows_of_other_lengths_go_into_other_batches(load: Any) -> None:
    rows = [np.full(length, length, np.float32) for length in (2, 2, 5, 2)]
    answers = list(load("echo:?x=FP32[-1,-1]").map(rows))
    assert [answer.array.shape for answer in answers] == [(2,), (2,), (5,), (2,)]


def test_batches_are_as_large_as_asked_for(load: Any) -> None:
    model = load(SIGNATURE, batch_size=4)
    list(model.map(ROWS))
    assert model.stats().calls == 3
    list(model.map(ROWS, batch_size=10))
    assert model.stats().calls == 4


BAD = [*ROWS[:4], np.zeros(2, np.float32), *ROWS[5:]]


def test_a_bad_row_raises_with_its_index_after_the_rows_before_it(load: Any) -> None:
    seen: list[Any] = []
    answers = load(SIGNATURE).map(BAD, batch_size=3)
    with pytest.raises(aiaas.InputError, match=r"row 4") as caught:
        seen.extend(answer.array for answer in answers)
    assert caught.value.row == 4
    assert np.array_equal(np.stack(seen), ROWS[:4])


def test_a_bad_row_can_be_returned_or_skipped(load: Any) -> None:
    answers = list(load(SIGNATURE).map(BAD, on_error="return"))
    assert [type(answer).__name__ for answer in answers].count("InputError") == 1
    assert isinstance(answers[4], aiaas.InputError)
    assert answers[4].row == 4
    assert len(list(load(SIGNATURE).map(BAD, on_error="skip"))) == 9


def test_a_row_that_makes_the_model_fail_does_not_take_its_batch_with_it(load: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(5, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(ids)

    model = load(aiaas.save(Table(), tmp_path / "table", example=torch.zeros(1, 1, dtype=torch.int64)))
    ids = np.array([[0], [1], [7], [3]])
    answers = list(model.map(ids, on_error="return"))
    assert [isinstance(answer, aiaas.ModelError) for answer in answers] == [False, False, True, False]
    assert answers[2].row == 2
    with pytest.raises(aiaas.ModelError, match="row 2"):
        list(model.map(ids))


def test_the_source_is_read_no_further_than_needed(load: Any) -> None:
    read = 0

    def rows() -> Iterator[Any]:
        nonlocal read
        for row in np.repeat(ROWS, 100, 0):
            read += 1
            yield row

    answers = iter(load(SIGNATURE).map(rows(), batch_size=4, concurrency=2))
    next(answers)
    assert read <= 4 * 2 + 1
    close = getattr(answers, "close", None)
    assert close is not None
    close()


def test_what_can_not_be_mapped_says_so(load: Any) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match="first axes aren't rows"):
        list(load("echo:?x=FP32[2,3]").map(ROWS))
    with pytest.raises(aiaas.UnsupportedOperationError, match="checkpoint"):
        list(load(SIGNATURE).map(ROWS, checkpoint="somewhere"))
    with pytest.raises(aiaas.ConfigError, match="on_error is 'ignore'"):
        list(load(SIGNATURE).map(ROWS, on_error="ignore"))
    with pytest.raises(aiaas.ConfigError, match="batch_size is 0"):
        list(load(SIGNATURE).map(ROWS, batch_size=0))
    with pytest.raises(aiaas.InputError, match="a text"):
        list(load("echo:").map("abc"))


def test_progress_is_quiet_unless_stderr_is_a_terminal(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, shown in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        list(load(SIGNATURE).map(ROWS, progress=True))
        assert ("10 of 10 rows" in stream.getvalue()) is shown


def test_32_threads_share_one_model() -> None:
    model = aiaas.load(SIGNATURE)
    wrong: list[int] = []

    def work(index: int) -> None:
        x = np.full((1, 3), index, np.float32)
        for _ in range(50):
            if model.predict(x).array[0, 0] != index:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert model.stats().calls == 32 * 50
