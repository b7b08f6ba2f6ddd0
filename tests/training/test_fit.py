"""`fit` as its users see it, both faces."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import aiaas_sdk as aiaas
from aiaas_sdk.rows import Rows, astray
from aiaas_sdk.tensors import Tensor, datatype_of
from tests.stopwatch import Stopwatch
from tests.training.modules import Normed, Twofold, Watched, flowers, same, saved, weights
from tests.waiting import until


@pytest.fixture
def where(tmp_path: Path) -> str:
    return saved(tmp_path)


def ended(run: Any) -> str:
    """The address of what a run made."""
    return run.wait(60) and list(run.events())[-1]["address"]


def right(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float((model.predict(x).array.argmax(1) == y).mean())


# ---------------------------------------------------------------- what comes out
def test_it_learns_and_the_model_itself_stays_as_it_was(load: Any, where: str) -> None:
    x, y = flowers()
    with load(where, timeout=60) as model:
        before, asked = weights(f"{where}@1"), model.predict(x).array
        run = model.fit(x, y, epochs=30, learning_rate=0.02, validation=0.2, seed=1)
        assert run.wait(60).status == "succeeded"
        assert np.array_equal(model.predict(x).array, asked)
        assert model.info().version == "1"
        assert all(np.array_equal(before[name], tensor) for name, tensor in weights(f"{where}@1").items())
        better = run.result()
        assert better.info().version == "2"
        assert right(better, x, y) > 0.9 > right(model, x, y)
        assert set(run.history) == {"loss", "accuracy", "validation_loss", "validation_accuracy"}
        assert [len(values) for values in run.history.values()] == [30] * 4
        assert run.history["loss"][-1] < run.history["loss"][0]
        better.close()


def test_the_new_version_says_where_it_comes_from(load: Any, where: str) -> None:
    x, y = flowers(64)
    with load(where) as model:
        run = model.fit(x, y, epochs=2, optimizer="momentum", seed=7)
        lineage = run.result().info().metadata["lineage"]
        assert lineage["parent"] == {"version": "1", "digest": model.info().metadata["digest"]}
        assert lineage["settings"]["optimizer"] == "momentum"
        assert (lineage["settings"]["seed"], lineage["data"]["rows"]) == (7, 64)
        assert lineage["data"]["digest"].startswith("sha256:")
        assert (lineage["training"]["epochs"], lineage["training"]["steps"]) == (2, 4)
        assert lineage["training"]["metrics"]["loss"] == run.history["loss"][-1]
        assert lineage["versions"]["torch"] == torch.__version__


def test_the_same_seed_gives_the_same_bits_and_another_one_others(load: Any, where: str) -> None:
    x, y = flowers(100)
    with load(where) as model:
        torch.manual_seed(3)  # whatever the caller draws, meanwhile and before, has no part in it
        first = ended(model.fit(x, y, epochs=3, seed=5))
        torch.rand(17)
        drawn = torch.get_rng_state()
        second = ended(model.fit(x, y, epochs=3, seed=5))
        assert torch.equal(torch.get_rng_state(), drawn)
        third = ended(model.fit(x, y, epochs=3, seed=6))
    assert same(first, second)
    assert not same(first, third)


def test_two_runs_at_once_do_not_disturb_each_other(where: str) -> None:
    x, y = flowers(100)
    with aiaas.load(where) as model:
        alone = ended(model.fit(x, y, epochs=5, seed=5))
        run, other = model.fit(x, y, epochs=5, seed=5), model.fit(x, y, epochs=5, seed=6)
        assert same(ended(run), alone)
        assert other.wait(60).status == "succeeded"


@pytest.mark.parametrize("making", ["load", "create"])
def test_models_that_are_made_meanwhile_wait_for_the_step_of_a_run(tmp_path: Path, making: str) -> None:
    from aiaas_sdk.backends.torch.training.randomness import Randomness

    address = saved(tmp_path, Watched())
    made = {
        "load": lambda: aiaas.load(address).info(),
        "create": lambda: aiaas.create(f"torch:{tmp_path / 'new'}", architecture="test-watched", labels=list("abc")),
    }
    aiaas.load(address).info()  # what is imported for it is there
    thread = threading.Thread(target=made[making])
    Watched.made.clear()
    with Randomness(0, torch.device("cpu"), everything=False):  # as a run has it in the midst of a step
        thread.start()
        assert not Watched.made.wait(0.5)
    assert Watched.made.wait(30)
    thread.join(30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_child_process_can_train_while_a_run_of_its_parent_has_the_turn(where: str) -> None:
    from aiaas_sdk.backends.torch.training.randomness import Randomness

    x, y = flowers(100)
    with Randomness(0, torch.device("cpu"), everything=False):
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException), aiaas.load(where) as model:
                os._exit(0 if model.fit(x, y, epochs=1, seed=6).wait(60).status == "succeeded" else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_events_tell_how_it_goes(load: Any, where: str) -> None:
    x, y = flowers(100)
    with load(where) as model:
        run = model.fit(x, y, epochs=3, seed=1)
        events = list(run.events())
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-1]) == ("started", "ended")
    assert kinds.count("epoch") == 3
    assert "checkpoint" in kinds
    step = next(event for event in events if event["type"] == "step")
    assert (step["epoch"], step["epochs"], step["steps"]) == (1, 3, 12)
    assert step["rate"] > 0
    assert step["eta"] >= 0
    assert set(step["metrics"]) == {"loss", "accuracy"}
    json.dumps(events)
    assert list(run.events()) == events


def test_waiting_has_a_limit_and_the_run_goes_on(load: Any, where: str) -> None:
    x, y = flowers(1000)
    with load(where) as model:
        watch = Stopwatch()
        run = model.fit(x, y, epochs=100_000, seed=1)
        assert watch.took() < 2
        with pytest.raises(aiaas.DeadlineExceededError, match="The run goes on"):
            run.wait(0.05)
        assert run.status in ("queued", "running")
        assert model.predict(x[:2]).usage.rows == 2  # it takes no slot
        run.cancel()
        assert run.wait(20).status == "cancelled"
        with pytest.raises(aiaas.TrainingError, match=r"cancelled.*resume=True"):
            run.result()
    assert aiaas.load(where).info().versions == ("1",)


def test_a_run_outlives_the_model_that_began_it(load: Any, where: str) -> None:
    x, y = flowers(100)
    with load(where) as model:
        run = model.fit(x, y, epochs=3)
    assert run.result().info().version == "2"


# ---------------------------------------------------------------- what goes in
class Squares(Dataset[Any]):
    def __init__(self, x: Any, y: Any) -> None:
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, place: int) -> Any:
        return self._x[place], int(self._y[place])


def kinds(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """The same rows in every form."""
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    cut = list(zip(tx.split(32), ty.split(32), strict=True))
    return {
        "numpy": (x, y),
        "torch": (tx, ty),
        "lists": (x.tolist(), y.tolist()),
        "mapping": ({"features": x}, y),
        "names": (x, ["abc"[c] for c in y]),
        "named target": (x, {"logits": y}),
        "dataset": (Squares(x, y), None),
        "tensor dataset": (TensorDataset(tx, ty), None),
        "loader": (DataLoader(TensorDataset(tx, ty), batch_size=32), None),
        "batches": (cut, None),
        "rows": (lambda: zip(x, y, strict=True), None),
        "function": (lambda: iter(cut), None),
        "pairs of numpy": ([(a.numpy(), b.numpy()) for a, b in cut], None),
    }


@pytest.mark.parametrize("kind", list(kinds(*flowers(8))))
def test_rows_of_every_kind_are_learned_from_alike(where: str, load: Any, kind: str) -> None:
    x, y = flowers(97)  # the last batch has one row
    given, targets = kinds(x, y)[kind]
    with load(where) as model:
        wanted = ended(model.fit(x, y, epochs=2, seed=1, shuffle=False))
        assert same(ended(model.fit(given, targets, epochs=2, seed=1, shuffle=False)), wanted)


def test_one_hot_targets_and_classes_learn_the_same(where: str, load: Any) -> None:
    x, y = flowers(96)
    with load(where) as model:
        classes = model.fit(x, y, epochs=2, seed=1)
        shares = model.fit(x, np.eye(3, dtype=np.float32)[y], epochs=2, seed=1)
        assert np.allclose(classes.wait(60).history["loss"], shares.wait(60).history["loss"], atol=1e-5)
        assert classes.history["accuracy"] == shares.history["accuracy"]


def test_one_hot_targets_in_whole_numbers_are_classes_too(where: str, load: Any) -> None:
    x, y = flowers(96)
    with load(where) as model:
        shares = model.fit(x, np.eye(3, dtype=np.float32)[y], epochs=2, seed=1).wait(60).history
        assert model.fit(x, np.eye(3, dtype=np.int64)[y], epochs=2, seed=1).wait(60).history == shares


def test_yes_and_no_for_each_class_of_a_row_are_learned_apart(where: str, load: Any) -> None:
    x, _ = flowers(200)
    y = x[:, :3] > 0.3  # any number of them in a row
    with load(where) as model:
        run = model.fit(x, y, epochs=60, learning_rate=0.02, seed=1)
        with run.result() as better:
            right = (better.predict(x).array > 0) == y
            lineage = better.info().metadata["lineage"]
        assert lineage["training"]["losses"] == {"logits": "binary_crossentropy"}
        assert right.mean() > 0.9
        assert run.history["accuracy"][-1] > 0.8
        assert run.history["accuracy"][0] < 0.8
        floats = model.fit(x, y.astype(np.float32), loss="binary_crossentropy", learning_rate=0.02, seed=1).wait(60)
        assert floats.history["accuracy"][0] == run.history["accuracy"][0]


def test_a_loader_s_own_order_is_kept_and_nobody_s_random_numbers_move_on(where: str, load: Any) -> None:
    x, y = flowers(96)

    def loader() -> Any:
        rows = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        return DataLoader(rows, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(4))

    with load(where) as model:
        wanted = ended(model.fit([tuple(batch) for batch in loader()], seed=1))
        drawn = torch.get_rng_state()
        assert same(ended(model.fit(loader(), seed=1)), wanted)
        assert torch.equal(torch.get_rng_state(), drawn)


def test_several_inputs_and_outputs(tmp_path: Path, load: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 4)).astype(np.float32), rng.normal(size=(200, 3)).astype(np.float32)
    kind, size = a[:, :3].argmax(1), b.sum(1, keepdims=True)
    with load(saved(tmp_path, Twofold())) as model:
        run = model.fit({"a": a, "b": b}, {"kind": kind, "size": size}, epochs=40, learning_rate=0.05, seed=1)
        answer = run.result().predict({"a": a, "b": b})
        assert (answer["kind"].argmax(1) == kind).mean() > 0.9
        assert np.abs(answer["size"] - size).mean() < 0.2
        assert set(run.history) == {"loss", "kind_accuracy"}
        with pytest.raises(aiaas.InputError, match="has 2 outputs: kind, size"):
            model.fit({"a": a, "b": b}, kind)


def test_files(where: str, load: Any, tmp_path: Path) -> None:
    x, y = flowers(64)
    np.savez(tmp_path / "rows.npz", features=x, y=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["f0", "f1", "f2", "f3", "label"])
        table.writerows([*map(repr, map(float, row)), "abc"[c]] for row, c in zip(x, y, strict=True))
    with load(where) as model:
        wanted = ended(model.fit(x, y, epochs=2, seed=1))
        assert same(ended(model.fit(tmp_path / "rows.npz", epochs=2, seed=1)), wanted)
        assert same(ended(model.fit(str(tmp_path / "x.npy"), tmp_path / "y.npy", epochs=2, seed=1)), wanted)
        assert same(ended(model.fit(tmp_path / "rows.csv", epochs=2, seed=1)), wanted)
        for own in ("rows.npz", "rows.csv"):
            with pytest.raises(aiaas.InputError, match="has its own targets, and y is an ndarray"):
                model.fit(tmp_path / own, y)
        with pytest.raises(aiaas.InputError, match=r"is no file.*\.npz"):
            model.fit(tmp_path / "none.npz")
        (tmp_path / "bad.csv").write_text("f0,f1,f2,f3,label\n1,2,3,4,a\n1,2,x,4,b\n")
        with pytest.raises(aiaas.InputError, match="'f2' has 'x' in row 1"):
            model.fit(tmp_path / "bad.csv")


def test_a_folder_of_images(load: Any, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for label, value in (("dark", 20), ("light", 230)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(12):
            image.new("L", (20, 10), value + number).save(tmp_path / "images" / label / f"{number}.png")
    config = {"channels": 1, "height": 12, "width": 12, "filters": [4], "hidden": 8, "classes": 2}
    address = f"torch:{tmp_path / 'shades'}"
    aiaas.create(address, architecture="cnn", config=config, labels=["dark", "light"], seed=0).close()
    with load(address) as model:
        better = model.fit(tmp_path / "images", epochs=20, batch_size=8, learning_rate=0.01, seed=1).result()
        shades = np.stack([np.full((1, 12, 12), v / 255, np.float32) for v in (25, 235)])
        assert [row[0][0] for row in better.predict(shades).top()] == ["dark", "light"]


# ---------------------------------------------------------------- what can't be
def with_one(value: float) -> np.ndarray[Any, Any]:
    """Ten rows, with such a number in row 7 and in row 9."""
    x = np.zeros((10, 4), np.float32)
    x[7, 1] = x[9, 0] = value
    return x


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": np.zeros((10, 4))}, r"a float64 array.*astype\(np.float32\)"),
        ({"x": np.zeros((10, 5), np.float32)}, r"shape \[10, 5\]"),
        ({"y": [0] * 9}, r"x has 10 rows, and y for 'logits' has the shape \[9\]"),
        ({"y": [0] * 7 + [3] + [0] * 2}, "class 3 in row 7; 'logits' has 3 classes"),
        ({"y": ["a"] * 4 + ["d"] + ["a"] * 5}, "'d' in row 4, which is none of its labels"),
        ({"y": None}, "no targets"),
        ({"x": np.zeros((0, 4), np.float32), "y": []}, "no rows"),
        ({"x": with_one(np.nan)}, r"input 'features' has nan in row 7\. Mend such rows"),
        ({"x": torch.from_numpy(with_one(-np.inf))}, "input 'features' has -inf in row 7"),
        ({"y": with_one(np.inf)[:, :3]}, "y for 'logits' has inf in row 7"),
        ({"y": [-100] * 10}, "no row would count: each class in y for 'logits' is -100, or has the weight 0"),
    ],
)
def test_rows_that_do_not_fit_are_told_at_once(where: str, load: Any, change: Any, match: str) -> None:
    given = {"x": np.zeros((10, 4), np.float32), "y": [0] * 10, **change}
    with load(where) as model, pytest.raises(aiaas.InputError, match=match):
        model.fit(given["x"], given["y"])


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"epochs": 0}, "epochs is 0.*from 1 on"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"optimizer": "adm"}, "optimizer has 'adm'.*mean 'adam'.*nesterov"),
        ({"loss": "crossentropy"}, "loss has 'crossentropy'.*sparse_categorical"),
        ({"metrics": ["accurate"]}, "metrics has 'accurate'.*mean 'accuracy'"),
        ({"metrics": "accuracy"}, r"Give a list: metrics=\['accuracy'\]"),
        ({"schedule": "cosin"}, "schedule has 'cosin'.*mean 'cosine'"),
        ({"validation": 1.5}, "validation is 1.5.*between 0 and 1"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"acumulate": 2}, "no setting 'acumulate'.*mean 'accumulate'"),
        ({"learning_rate": 0}, "learning_rate is 0.*from 1e-12 on"),
        ({"learning_rate": 1e-30}, "learning_rate is 1e-30.*from 1e-12 on"),
        ({"learning_rate": 10**400}, "learning_rate is 1000.*from 1e-12 on"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"clip_norm": float("inf")}, "clip_norm is inf"),
        ({"checkpoint_seconds": 0}, "checkpoint_seconds is 0.*above 0"),
        ({"validation": float("nan")}, "validation is nan.*between 0 and 1"),
        ({"class_weights": [1, "x", 1]}, "class_weights has 'x' for class 1, which is no weight"),
        ({"class_weights": [1, 1, -1]}, "class_weights has -1 for class 2, which is no weight"),
        ({"class_weights": [1, float("nan"), 1]}, "class_weights has nan for class 1"),
        ({"class_weights": [float("inf"), 1, 1]}, "class_weights has inf for class 0"),
        ({"class_weights": [1, 1, 1e-50]}, "class_weights has 1e-50 for class 2.*their ratio"),
        ({"class_weights": [1, True, 1]}, "class_weights has True for class 1"),
        ({"class_weights": [0, 0, 0]}, "class_weights has no number above 0, so no row would count"),
        ({"class_weights": np.zeros(3)}, "class_weights has no number above 0"),
        ({"class_weights": []}, "class_weights has no numbers"),
        ({"class_weights": {0: 1.0, 1: 2.0, 2: 1.0}}, "class_weights is a dict. Give a list, in the order"),
        ({"class_weights": {1.0, 2.0, 3.0}}, "class_weights is a set. Give a list"),
        ({"resume": 1}, "resume is 1"),
    ],
)
def test_settings_that_can_not_be_are_told_at_once(where: str, load: Any, setting: Any, match: str) -> None:
    x, y = flowers(10)
    with load(where) as model, pytest.raises(aiaas.ConfigError, match=match):
        model.fit(x, y, **setting)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("row", [0, 70_000, 99_999])
def test_a_number_that_is_none_is_found_in_any_row(dtype: Any, row: int) -> None:
    x = np.ones((100_000, 5), dtype)
    assert astray(Rows({"x": Tensor(datatype_of(x), x)}, {})) is None
    x[row, 4] = np.nan
    assert astray(Rows({"x": Tensor(datatype_of(x), x)}, {})) == ("input 'x' has nan", row)


def test_a_number_that_is_none_is_found_in_bfloat16() -> None:
    y = torch.full((9, 2), -3.3e38, dtype=torch.bfloat16)
    assert astray(Rows({}, {"y": Tensor("BF16", y)})) is None
    y[4, 1] = -torch.inf
    assert astray(Rows({}, {"y": Tensor("BF16", y)})) == ("y for 'y' has nan or an infinity", 4)


def test_validation_rows_are_looked_at_and_targets_for_a_function_are_not(where: str, load: Any) -> None:
    x, y = flowers(10)
    odd = np.where(np.arange(30).reshape(10, 3) == 13, np.nan, 1.0).astype(np.float32)

    def loss(outputs: Any, targets: Any) -> Any:
        return ((outputs - targets.nan_to_num(0.5)) ** 2).mean()

    with load(where) as model:
        with pytest.raises(aiaas.InputError, match="input 'features' has nan in row 7"):
            model.fit(x, y, validation=(with_one(np.nan), y))
        with pytest.raises(aiaas.InputError, match="y for 'logits' has nan in row 4"):
            model.fit(x, odd, loss="mse")
        ended(model.fit(x, odd, loss=loss))


class Odd(Dataset[Any]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, place: int) -> Any:
        return torch.full((4,), torch.nan if place == 40 else 1.0), place % 3


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (Odd(), "row 40"),
        (DataLoader(Odd(), batch_size=16), "row 8 of batch 2"),
        ([Odd()[place] for place in range(64)], "row 8 of batch 2"),
    ],
)
def test_rows_that_come_one_by_one_are_told_where_the_loss_becomes_nan(
    where: str, load: Any, rows: Any, told: str
) -> None:
    with load(where) as model:
        run = model.fit(rows, batch_size=16, seed=1).wait(60)
        with pytest.raises(
            aiaas.TrainingError, match=rf"became nan in epoch 1, step \d; input 'features' has nan in {told}\."
        ):
            run.result()


@pytest.mark.parametrize(
    ("setting", "steps"),
    [
        ({}, 1),
        ({"epochs": 3, "batch_size": 4}, 9),
        ({"epochs": 2, "batch_size": 2, "accumulate": 4}, 4),
        ({"epochs": 3, "batch_size": 2, "optimizer": "gd"}, 3),
        ({"epochs": 2, "batch_size": 2, "schedule": "linear"}, 10),
    ],
)
def test_a_warm_up_that_the_run_ends_within_is_told_in_the_log(
    where: str, load: Any, caplog: pytest.LogCaptureFixture, setting: Any, steps: int
) -> None:
    x, y = flowers(10)
    told = (
        f"warmup_steps is {steps + 1}, and epochs like the first make {steps} steps: the rate won't reach learning_rate"
    )
    with load(where) as model:
        for warmup, words in ((steps + 1, [told]), (steps, [])):
            caplog.clear()
            run = model.fit(x, y, warmup_steps=warmup, learning_rate=0.5, **setting).wait(30)
            assert run.status == "succeeded"
            assert [record.message for record in caplog.records if record.name == "aiaas_sdk.training"] == words
        assert [event for event in run.events() if event["type"] == "epoch"][-1]["learning_rate"] == 0.5


def test_so_it_is_where_nobody_knew_the_steps(where: str, load: Any, caplog: pytest.LogCaptureFixture) -> None:
    x, y = flowers(64)
    batches = list(zip(torch.from_numpy(x).split(16), torch.from_numpy(y).split(16), strict=True))
    told = "warmup_steps is 9, and epochs like the first make 8 steps: the rate won't reach learning_rate"
    with load(where) as model:
        for epochs, words in ((2, [told]), (3, [])):
            caplog.clear()
            assert model.fit(lambda: iter(batches), epochs=epochs, warmup_steps=9).wait(30).status == "succeeded"
            assert [record.message for record in caplog.records if record.name == "aiaas_sdk.training"] == words


def test_classes_that_count_nothing_are_told_at_once(where: str, load: Any) -> None:
    x, _ = flowers(10)
    with load(where) as model, pytest.raises(aiaas.InputError, match="no row would count"):
        model.fit(x, [0, 2] * 5, class_weights=[0, 1, 0])


def test_what_is_read_once_can_not_be_read_twice(where: str, load: Any) -> None:
    x, y = flowers(64)
    batches = list(zip(torch.from_numpy(x).split(32), torch.from_numpy(y).split(32), strict=True))
    with load(where) as model:
        assert model.fit((pair for pair in batches), epochs=1).wait(30).status == "succeeded"
        run = model.fit((pair for pair in batches), epochs=2).wait(30)
        with pytest.raises(aiaas.InputError, match="a generator, which can be read once, and epochs is 2"):
            run.result()


def test_a_batch_that_does_not_fit_ends_the_run_with_its_fault(where: str, load: Any) -> None:
    x, y = flowers(64)
    with load(where) as model:
        run = model.fit([(x[:32], y[:32]), (x[32:].astype(np.float64), y[32:])], epochs=1).wait(30)
        assert run.status == "failed"
        with pytest.raises(aiaas.InputError, match="float64"):
            run.result()
        assert "float64" in list(run.events())[-1]["error"]["message"]


@pytest.mark.parametrize(
    ("y", "loss", "error", "match"),
    [
        (np.arange(64.0) % 3, "auto", aiaas.InputError, r"whole numbers: y\.astype\(np\.int64\)"),
        (np.arange(64)[:, None], "auto", aiaas.InputError, r"y has 0 to 63.*one class a row"),
        (np.arange(64) % 3, lambda o, t: 1 / 0, aiaas.ConfigError, "function for the loss raised ZeroDivisionError"),
        (np.arange(64) % 3, lambda o, t: torch.tensor(1.0), aiaas.ConfigError, "no gradient.*from the outputs"),
    ],
)
def test_targets_and_losses_that_mean_nothing_are_told(
    where: str, load: Any, y: Any, loss: Any, error: Any, match: str
) -> None:
    x, _ = flowers(64)
    with load(where) as model:
        run = model.fit(x, y, loss=loss, shuffle=False, batch_size=64).wait(60)
        with pytest.raises(error, match=match):
            run.result()


def test_a_program_can_not_be_trained_and_its_class_can(tmp_path: Path, load: Any) -> None:
    class Own(torch.nn.Sequential):
        def __init__(self) -> None:
            super().__init__(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))

    x, y = flowers()
    address = saved(tmp_path, Own())
    with (
        load(address) as model,
        pytest.raises(aiaas.UnsupportedOperationError, match=r"saved as a program.*architecture=CLASS"),
    ):
        model.fit(x, y)
    with load(address, architecture=Own) as model:
        assert "fit" in model.info().verbs
        ended(model.fit(x, y, epochs=30, learning_rate=0.02, seed=1))
    with load(address) as model:
        assert (model.info().version, model.info().platform) == ("2", "pytorch_exported")
        assert right(model, x, y) > 0.9


# ---------------------------------------------------------------- settings
@pytest.mark.parametrize("optimizer", ["gd", "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"])
def test_r55_a_last_batch_of_one_row_works_with_batch_normalisation(where: str, load: Any, optimizer: str) -> None:
    x, y = flowers(33)
    with load(where) as model:
        run = model.fit(x, y, epochs=2, batch_size=32, optimizer=optimizer, seed=1)
        assert run.wait(60).status == "succeeded"
        assert all(np.isfinite(run.history["loss"]))


def test_accumulated_batches_are_as_one_large_one(tmp_path: Path, load: Any) -> None:
    x, y = flowers(90)
    with load(saved(tmp_path, Normed(dropout=0.0))) as model:
        model.info()
    plain = saved(tmp_path / "plain", torch.nn.Sequential(torch.nn.Linear(4, 3)))
    for weights_of in (None, [1.0, 2.0, 0.5]):
        with load(plain, architecture=lambda: torch.nn.Sequential(torch.nn.Linear(4, 3))) as model:
            large = ended(model.fit(x, y, epochs=3, batch_size=40, seed=1, class_weights=weights_of))
            parts = ended(model.fit(x, y, epochs=3, batch_size=10, accumulate=4, seed=1, class_weights=weights_of))
        one, other = weights(large), weights(parts)
        assert all(np.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_gd_takes_one_step_an_epoch_over_all_rows(where: str, load: Any) -> None:
    x, y = flowers(100)
    with load(where) as model:
        run = model.fit(x, y, epochs=4, optimizer="gd", seed=1).wait(60)
    assert [e["step"] for e in run.events() if e["type"] == "epoch"] == [1, 2, 3, 4]


def test_early_stopping_keeps_the_best_weights(where: str, load: Any) -> None:
    x, y = flowers(60)
    noise = np.random.default_rng(1).integers(0, 3, 60)
    with load(where) as model:
        run = model.fit(x, noise, epochs=200, validation=(x, y), early_stopping=3, learning_rate=0.05, seed=1)
        better = run.result()
        losses = run.history["validation_loss"]
        assert len(losses) < 200
        assert len(losses) - 1 - int(np.argmin(losses)) == 3
        scores = better.predict(x).array.astype(np.float64)
    told = np.log(np.exp(scores).sum(1)) - scores[np.arange(60), y]
    assert told.mean() == pytest.approx(min(losses), rel=1e-4)


def test_a_loss_that_is_no_number_ends_the_run_and_says_where(where: str, load: Any) -> None:
    x, y = flowers(100)
    bad = x.copy()
    bad[40] = np.nan
    with load(where) as model:
        run = model.fit([(bad[at : at + 32], y[at : at + 32]) for at in (0, 32, 64)], epochs=3, seed=1).wait(60)
        with pytest.raises(aiaas.TrainingError, match=r"became nan in epoch 1, step 2.*learning_rate.*clip_norm"):
            run.result()
    assert run.status == "failed"
    assert aiaas.load(where).info().versions == ("1",)


def test_history_is_kept_where_the_run_fails_later(tmp_path: Path, load: Any) -> None:
    plain = saved(tmp_path, torch.nn.Sequential(torch.nn.Linear(4, 1)), labels=None)
    x, _ = flowers(100)
    with load(plain, architecture=lambda: torch.nn.Sequential(torch.nn.Linear(4, 1))) as model:
        run = model.fit(x, 100 * x[:, :1], epochs=500, optimizer="sgd", learning_rate=3.0, loss="mse", seed=1).wait(60)
        with pytest.raises(aiaas.TrainingError, match="epoch"):
            run.result()
        assert len(run.history["loss"]) >= 1


def test_a_functions_loss_and_optimizer(where: str, load: Any) -> None:
    x, y = flowers(100)
    with load(where) as model:
        named = model.fit(x, y, epochs=3, seed=1, optimizer="adam").wait(60)
        own = model.fit(
            x,
            y,
            epochs=3,
            seed=1,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.001),
            loss=torch.nn.functional.cross_entropy,
        ).wait(60)
        assert np.allclose(named.history["loss"], own.history["loss"], atol=1e-5)
        with pytest.raises(aiaas.ConfigError, match=r"no torch\.optim\.Optimizer"):
            model.fit(x, y, optimizer=lambda parameters: 3).wait(60).result()


def test_bfloat16_and_clipping_and_schedules_learn(where: str, load: Any) -> None:
    x, y = flowers()
    with load(where) as model:
        for setting in ({"mixed_precision": True}, {"clip_norm": 1.0}, {"schedule": "onecycle", "warmup_steps": 5}):
            run = model.fit(x, y, epochs=25, learning_rate=0.03, seed=1, **setting)
            assert run.wait(60).history["accuracy"][-1] > 0.85, setting
        rates = [event["learning_rate"] for event in run.events() if event["type"] == "epoch"]
        assert max(rates) > 10 * rates[-1]


def test_metrics_by_name(tmp_path: Path, load: Any) -> None:
    x, y = flowers(200)
    metrics = ["accuracy", "top_k_accuracy", "precision", "recall", "f1", "auc"]
    with load(saved(tmp_path, Normed(dropout=0.0))) as model:
        run = model.fit(x, y, epochs=20, learning_rate=0.02, metrics=metrics, validation=(x, y), seed=1)
        scores = run.result().predict(x).array
    found = scores.argmax(1)
    table = np.array([[((y == a) & (found == b)).sum() for b in range(3)] for a in range(3)], float)
    precision, recall = table.diagonal() / table.sum(0), table.diagonal() / table.sum(1)
    areas = []
    for c in range(3):
        yes, no = scores[y == c, c], scores[y != c, c]
        areas.append((yes[:, None] > no).mean() + (yes[:, None] == no).mean() / 2)
    wanted = {
        "accuracy": (found == y).mean(),
        "top_k_accuracy": 1.0,
        "precision": precision.mean(),
        "recall": recall.mean(),
        "f1": (2 * precision * recall / (precision + recall)).mean(),
        "auc": np.mean(areas),
    }
    assert {name: run.history["validation_" + name][-1] for name in wanted} == pytest.approx(wanted, abs=1e-6)


def test_regression_and_two_classes_by_what_the_targets_are(tmp_path: Path, load: Any) -> None:
    x, _ = flowers(200)
    one = saved(tmp_path, torch.nn.Sequential(torch.nn.Linear(4, 1)), labels=None)
    with load(one, architecture=lambda: torch.nn.Sequential(torch.nn.Linear(4, 1))) as model:
        run = model.fit(x, x.sum(1), epochs=60, learning_rate=0.05, metrics=["accuracy", "mae"], seed=1)
        lineage = run.result().info().metadata["lineage"]
        assert lineage["training"]["losses"] == {"output": "mse"}
        assert set(run.history) == {"loss", "mae"}
        assert run.history["mae"][-1] < 0.1
        yes = (x.sum(1) > 0).astype(np.int64)
        run = model.fit(x, yes, epochs=60, learning_rate=0.05, metrics=["accuracy", "auc"], seed=1).wait(60)
        assert run.history["accuracy"][-1] > 0.95
        assert run.history["auc"][-1] > 0.99


def test_the_history_as_a_picture(where: str, load: Any, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    x, y = flowers(100)
    with load(where) as model:
        run = model.fit(x, y, epochs=3, validation=0.3, seed=1).wait(60)
        assert run.plot(tmp_path / "run.png") == tmp_path / "run.png"
        with pytest.raises(aiaas.ConfigError, match=r"isn't a \.png file"):
            run.plot(tmp_path / "run.txt")
    with image.open(tmp_path / "run.png") as drawn:
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 20)}
    assert {(31, 119, 180), (214, 98, 20)} <= colours  # the two curves


def test_labels_and_numbers_of_threads_stay(where: str) -> None:
    """A run leaves the process as it was."""
    x, y = flowers(100)
    before = threading.active_count()
    with aiaas.load(where) as model:
        model.fit(x, y, epochs=1).wait(60)
        better = aiaas.load(where)
        assert better.info().labels == ("a", "b", "c")
    until(lambda: threading.active_count() <= before + 1)


def test_a_disk_that_is_full_of_checkpoints_does_not_end_the_run(where: str, load: Any, tmp_path: Path) -> None:
    x, y = flowers(100)
    (tmp_path / "file").write_text("")
    with load(where) as model, pytest.raises(aiaas.ConfigError, match="checkpoints can't be kept"):
        model.fit(x, y, checkpoint=tmp_path / "file").wait(60).result()


def test_convolutions_are_trained_with_their_channels_last(tmp_path: Path) -> None:
    from aiaas_sdk.architectures.cnn import CNN
    from aiaas_sdk.backends.torch.training.ranks import Alone

    module = Alone().spread(CNN())
    layouts = [w.is_contiguous(memory_format=torch.channels_last) for w in module.parameters() if w.ndim == 4]
    assert layouts == [True, True]
