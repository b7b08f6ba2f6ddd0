"""`replay:calls.jsonl` as a model's address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing import Script, recording

X = np.ones((2, 3), np.float32)
VERBS = {"predict", "generate", "stream", "embed", "explain"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recording of one model with a signature: two answers to one question."""
    script = Script(inputs={"x": ("FP32", (-1, 3))}, outputs={"y": ("FP32", (-1, 2))}, labels=["cat", "dog"])
    script.answer([[0, 1], [1, 0]]).answer([[1, 0], [1, 0]])
    path = tmp_path / "calls.jsonl"
    with recording(path, "record"), aiaas.load(script.address) as model:
        model.predict(X)
        model.predict(X)
    return path


def test_a_recording_is_a_model(load: Any, file: Path) -> None:
    with load(f"replay:{file}", timeout=5) as model:
        info = model.info()
        assert (info.name, info.labels, info.verbs) == ("scripted", ("cat", "dog"), VERBS)
        assert info.inputs == (aiaas.TensorSpec("x", "FP32", (-1, 3)),)
        first, *rest = [model.predict(X) for _ in range(3)]
        assert model.ready()
    assert [row[0][0] for row in first.top(1)] == ["dog", "cat"]
    assert [answer["y"].tolist() for answer in rest] == [[[1, 0], [1, 0]]] * 2
    assert first.backend == "scripted"


def test_each_model_plays_from_the_beginning(load: Any, file: Path) -> None:
    answers = [load(f"replay:{file}").predict(X)["y"].tolist() for _ in range(2)]
    assert answers[0] == answers[1]


def test_what_was_not_recorded_is_told(load: Any, file: Path) -> None:
    with load(f"replay:{file}") as model:
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"calls\.jsonl has no call like this.*6 of 6 elem"):
            model.predict(X * 2)
        with pytest.raises(aiaas.InputError):  # the signature holds as it did
            model.predict(np.ones((2, 4), np.float32))
        with pytest.raises(aiaas.UnsupportedOperationError, match="generate"):
            model.generate("hello")


def test_a_name_may_stand_for_a_recording_beside_the_settings(load: Any, file: Path, monkeypatch: Any) -> None:
    (file.parent / "aiaas.toml").write_text('[models]\ndemo = "replay:calls.jsonl"\n')
    (file.parent / "below").mkdir()
    monkeypatch.setenv("AIAAS_CONFIG", str(file.parent / "aiaas.toml"))
    monkeypatch.chdir(file.parent / "below")
    assert load("demo").predict(X)["y"].shape == (2, 2)


def test_of_several_models_the_option_says_which(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    with recording(path, "record"):
        for address in ("echo:", "echo:?x=FP32[-1,3]"):
            aiaas.load(address).predict(X)
    with pytest.raises(aiaas.ConfigError, match=r"echo:, echo:\?x=FP32.*Give model="):
        load(f"replay:{path}").info()
    with pytest.raises(aiaas.ModelNotFoundError, match="'digits'; it has those of echo:"):
        load(f"replay:{path}", model="digits").info()
    assert load(f"replay:{path}", model="echo:").info().inputs == ()
    assert len(load(f"replay:{path}", model="echo:?x=FP32[-1,3]").info().inputs) == 1


@pytest.mark.parametrize("target", ["replay:", "replay:calls.jsonl@3"])
def test_an_address_without_a_file_or_with_a_version_is_refused(load: Any, target: str) -> None:
    with pytest.raises(aiaas.AddressError, match="replay:PATH"):
        load(target)


def test_no_file_is_told_by_load_and_a_broken_one_by_opening(load: Any, tmp_path: Path) -> None:
    with pytest.raises(aiaas.ModelNotFoundError, match="there is no recording"):
        load(f"replay:{tmp_path / 'none.jsonl'}")
    (tmp_path / "bad.jsonl").write_text('{"aiaas_recording": 1}\n{"address": "d"}\n')
    model = load(f"replay:{tmp_path / 'bad.jsonl'}", timeout=5)
    with pytest.raises(aiaas.ProtocolError, match=r"bad\.jsonl line 2"):
        model.info()
    (tmp_path / "bad.jsonl").write_text('{"aiaas_recording": 1}\n{"address": "d", "verb": "ready", "answer": true}\n')
    with pytest.raises(aiaas.UnsupportedOperationError, match="Of d it has ready"):  # read again: it was mended
        model.info()


def test_options_of_real_models_mean_nothing_to_a_recording(load: Any, file: Path) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match="device"):
        load(f"replay:{file}", device="cuda")
