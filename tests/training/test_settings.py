"""`Fit` as a record, and settings that need something of the machine."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aiaas_sdk as aiaas
from aiaas_sdk.records.training import Fit
from aiaas_sdk.runprogress import RunProgress
from tests.training.modules import Normed, flowers, saved


def test_settings_travel_as_json() -> None:
    fit = Fit(epochs=3, metrics=["accuracy", "f1"], class_weights=np.array([1.0, 2.0]), checkpoint=Path("a"))  # type: ignore[arg-type]
    assert Fit.of(json.loads(json.dumps(fit.document()))) == fit
    assert Fit.of({}) == Fit()


@pytest.mark.parametrize("face", [aiaas.Model, aiaas.AsyncModel])
def test_each_setting_is_an_argument(face: Any) -> None:
    named = set(inspect.signature(face.fit).parameters) - {"self", "x", "y", "progress", "training"}
    assert named.isdisjoint(aiaas.Training.__annotations__)
    assert named | set(aiaas.Training.__annotations__) == {field.name for field in fields(Fit)}


@pytest.mark.parametrize("name", ["optimizer", "loss"])
def test_a_function_does_not_travel(name: str) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match=f"{name} is a function"):
        Fit(**{name: torch.optim.Adam}).document()  # type: ignore[arg-type]


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(aiaas.ConfigError, match=r"no setting 'epoch'.*mean 'epochs'"):
        Fit.of({"epoch": 3})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_compiled_module_learns_the_same(tmp_path: Path) -> None:
    """Or says that it couldn't be compiled, where there is no compiler."""
    x, y = flowers(96)
    with aiaas.load(saved(tmp_path, Normed(dropout=0.0))) as model:
        run = model.fit(x, y, epochs=2, seed=1, compile=True)
        assert run.wait(280).status == "succeeded"
        plain = model.fit(x, y, epochs=2, seed=1).wait(60)
    assert np.allclose(run.history["loss"], plain.history["loss"], atol=1e-4)


def test_where_nothing_compiles_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler was found")

    monkeypatch.setattr(torch, "compile", compile)
    x, y = flowers(64)
    with aiaas.load(saved(tmp_path)) as model:
        run = model.fit(x, y, epochs=2, seed=1, compile=True)
        assert "no compiler was found" in next(iter(run.events()))["left_out"]
        assert run.wait(60).history == model.fit(x, y, epochs=2, seed=1).wait(60).history


def test_tensorboard_where_it_is_installed(tmp_path: Path) -> None:
    x, y = flowers(64)
    with aiaas.load(saved(tmp_path)) as model:
        run = model.fit(x, y, epochs=2, seed=1, tensorboard=tmp_path / "board").wait(60)
        if run.status == "succeeded":
            assert list((tmp_path / "board").glob("events.out.tfevents.*"))
        else:
            with pytest.raises(aiaas.BackendNotInstalledError, match="package tensorboard"):
                run.result()


def test_progress_is_a_line_a_step_and_stays_for_each_epoch(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = RunProgress()
    event = {
        "type": "step", "epoch": 2, "epochs": 5, "step": 30, "steps": 100, "metrics": {"loss": 0.25, "accuracy": 0.9},
        "rate": 1234.5, "eta": 75.0,
    }  # fmt: skip
    progress.tell(event)
    progress.tell({**event, "type": "epoch", "eta": 4000})
    progress.tell({"type": "ended", "status": "failed", "error": {"message": "the loss became nan"}})
    told = capsys.readouterr().err
    assert "\repoch 2 of 5, step 30 of 100, loss 0.25, accuracy 0.9, 1234 rows/s, 75 s left\x1b[K\r" in told
    assert "1 h 07 min left\x1b[K\n" in told
    assert told.endswith("failed: the loss became nan\n")


def test_progress_is_silent_where_stderr_is_no_terminal(tmp_path: Path, capsys: Any) -> None:
    x, y = flowers(64)
    with aiaas.load(saved(tmp_path)) as model:
        model.fit(x, y, epochs=2, progress=True).wait(60)
    assert capsys.readouterr().err == ""
