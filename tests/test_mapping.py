"""`map`: one answer a row, in order, whatever the batches were."""

from __future__ import annotations

import io
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

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


@pytest.mark.parametrize(("batch_size", "concurrency"), [(4, 2), (1, 8), (7, 3), (3, 1)])
def test_the_source_is_read_no_further_than_the_window(load: Any, batch_size: int, concurrency: int) -> None:
    read = 0

    def rows() -> Iterator[Any]:
        nonlocal read
        for row in np.repeat(ROWS, 10, 0):
            read += 1
            yield row

    answers = load(SIGNATURE).map(rows(), batch_size=batch_size, concurrency=concurrency)
    for given, _ in enumerate(answers):
        assert read <= given + batch_size * concurrency
    assert read == 100


def test_whoever_takes_answers_slowly_holds_the_reading_back(load: Any) -> None:
    read = 0

    def rows() -> Iterator[Any]:
        nonlocal read
        for row in np.repeat(ROWS, 100, 0):
            read += 1
            yield row

    answers = iter(load(SIGNATURE).map(rows(), batch_size=4, concurrency=2))
    next(answers)
    time.sleep(0.1)
    assert read <= 8
    answers.close()  # type: ignore[attr-defined]


def test_answers_do_not_wait_for_rows_that_are_slow_to_come(load: Any) -> None:
    reading: list[float] = []

    def rows() -> Iterator[Any]:
        for row in ROWS:
            time.sleep(0.05)
            reading.append(time.monotonic())
            yield row

    answers = iter(load(SIGNATURE).map(rows(), batch_size=1, concurrency=8))
    next(answers)
    assert len(reading) <= 5
    assert len(list(answers)) == 9


def test_what_the_source_raises_comes_after_the_answers_before_it(load: Any) -> None:
    def rows() -> Iterator[Any]:
        yield from ROWS
        raise OSError("the disk is gone")

    for options in ({"concurrency": 1}, {"concurrency": 3}):
        seen: list[Any] = []
        with pytest.raises(OSError, match="the disk is gone"):
            seen.extend(answer.array for answer in load(SIGNATURE).map(rows(), batch_size=4, **options))
        assert np.array_equal(np.stack(seen), ROWS)


def test_an_array_is_cut_and_not_copied(load: Any) -> None:
    for rows in (ROWS, {"x": ROWS}):
        for answer in load(SIGNATURE).map(rows, batch_size=4):
            assert np.shares_memory(answer.array, ROWS)


def test_a_source_may_fill_one_array_again_and_again(load: Any) -> None:
    def rows() -> Iterator[Any]:
        row = np.empty(3, np.float32)
        for values in ROWS:
            row[:] = values
            yield row

    assert np.array_equal(np.stack([answer.array for answer in load(SIGNATURE).map(rows())]), ROWS)


def test_one_bad_row_of_an_array_fails_alone(load: Any) -> None:
    rows = np.array([b"a", b"b", 3, b"d"], object)
    found = list(load("echo:?x=BYTES[-1]").map(rows, batch_size=3, on_error="return"))
    assert isinstance(found.pop(2), aiaas.InputError)
    assert [answer["x"] for answer in found] == [b"a", b"b", b"d"]
    assert all(type(answer["x"]) is bytes for answer in found)


def test_an_array_of_the_wrong_kind_fails_row_by_row(load: Any) -> None:
    found = list(load(SIGNATURE).map(ROWS.astype(np.float64), on_error="return"))
    assert [(type(error), error.row) for error in found] == [(aiaas.InputError, row) for row in range(10)]
    assert len(list(load(SIGNATURE).map({"z": ROWS}, on_error="return"))) == 10


def test_a_large_batch_of_large_rows_one_by_one(load: Any) -> None:
    rows = (np.full(1 << 18, number, np.float32) for number in range(40))  # 40 MiB
    found = [answer.array[-1] for answer in load("echo:?x=FP32[-1,-1]").map(rows, batch_size=10**9)]
    assert found == list(range(40))


class Word(BaseModel):
    x: str


def test_records_of_texts_and_numbers(load: Any) -> None:
    words = [Word(x=word) for word in ("eins", "zwei", "drei")]
    assert list(load("echo:?x=BYTES[-1]", input=Word, output=Word).map(words, batch_size=2)) == words


def test_the_answers_to_rows_are_predictions_like_others(load: Any) -> None:
    answer = list(load(SIGNATURE).map(ROWS))[3]
    assert isinstance(answer, aiaas.Prediction)
    assert (list(answer), len(answer), answer.backend, answer.version) == (["x"], 1, "echo", "1")
    assert answer.usage.rows == 10
    assert "float32[3]" in repr(answer)
    assert np.array_equal(pickle.loads(pickle.dumps(answer))["x"], ROWS[3])
    with pytest.raises(KeyError):
        answer["y"]
    with pytest.raises(AttributeError, match="frozen"):
        answer.labels = ("a",)  # type: ignore[misc]


def test_what_can_not_be_mapped_says_so(load: Any) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match="first axes aren't rows"):
        list(load("echo:?x=FP32[2,3]").map(ROWS))
    with pytest.raises(aiaas.ConfigError, match="on_error is 'ignore'"):
        list(load(SIGNATURE).map(ROWS, on_error="ignore"))
    with pytest.raises(aiaas.ConfigError, match="batch_size is 0"):
        list(load(SIGNATURE).map(ROWS, batch_size=0))
    with pytest.raises(aiaas.ConfigError, match="concurrency is True"):
        list(load(SIGNATURE).map(ROWS, concurrency=True))
    with pytest.raises(aiaas.ConfigError, match="checkpoint is an int"):
        list(load(SIGNATURE).map(ROWS, checkpoint=3))
    for rows, message in (
        ("abc", "a text"),
        (3, "'int' object is not iterable"),
        (np.float32(3), "not iterable"),
        ({"x": iter(ROWS)}, "has no len"),
        ({"x": ROWS, "y": ROWS[:3]}, "different lengths"),
    ):
        with pytest.raises(aiaas.InputError, match=message):
            list(load("echo:").map(rows))


class Frame:
    """As pandas' DataFrame: an array of its values, and an iterable of its columns' names."""

    columns = ("a", "b", "c")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return ROWS

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


def test_a_data_frame_is_told_how_it_gives_rows(load: Any) -> None:
    with pytest.raises(aiaas.InputError, match=r"was given a Frame; it takes rows.*rows\.to_numpy\(\)"):
        list(load(SIGNATURE).map(Frame()))
    assert len(load(SIGNATURE).predict(Frame())["x"]) == 10


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
