"""`load(address, input=Flower, output=Species)`: records in, records out, and a type checker sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import aiaas_sdk as aiaas

torch = pytest.importorskip("torch")


class Flower(BaseModel):
    petal_length: float
    petal_width: float


class Species(BaseModel):
    label: str
    probability: float


class Patch(BaseModel):
    model_config = {"arbitrary_types_allowed": True}

    pixels: np.ndarray


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> str:
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        module.bias.zero_()
    address: str = aiaas.save(
        module, tmp_path_factory.mktemp("iris") / "iris", example=np.ones((1, 2), np.float32), labels=["long", "short"]
    )
    return address


@pytest.fixture(autouse=True)
def _trusted(iris: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    key = json.loads((Path(iris.removeprefix("torch:").partition("@")[0]) / "1" / "model.sig").read_bytes())["key"]
    monkeypatch.setattr(sys.modules[__name__], "TRUST", {"verify": [key]})


TRUST: dict[str, Any] = {}


def test_one_record_gives_one_and_a_list_gives_a_list(load: Any, iris: str) -> None:
    model = load(iris, input=Flower, output=Species, **TRUST)
    one = model.predict(Flower(petal_length=3, petal_width=1))
    assert isinstance(one, Species)
    assert one.label == "long"
    many = model.predict([Flower(petal_length=-3, petal_width=1), {"petal_length": 2, "petal_width": 0}])
    assert [species.label for species in many] == ["short", "long"]
    assert model.predict([]) == []


def test_arrays_still_give_a_prediction(load: Any, iris: str) -> None:
    pred = load(iris, input=Flower, output=Species, **TRUST).predict(np.ones((2, 2), np.float32))
    assert isinstance(pred, aiaas.Prediction)


def test_records_in_alone_give_rows_of_the_prediction(load: Any, iris: str) -> None:
    model = load(iris, input=Flower, **TRUST)
    assert model.predict(Flower(petal_length=1, petal_width=1))["logits"].shape == (2,)
    assert len(model.predict([Flower(petal_length=1, petal_width=1)] * 3)) == 3


def test_records_out_alone_give_one_a_row(load: Any, iris: str) -> None:
    answers = load(iris, output=Species, **TRUST).predict(np.array([[1, 0], [-1, 0]], np.float32))
    assert [species.label for species in answers] == ["long", "short"]


def test_map_takes_and_gives_records(load: Any, iris: str) -> None:
    model = load(iris, input=Flower, output=Species, **TRUST)
    rows = [Flower(petal_length=length, petal_width=0) for length in (1, -1, 2)]
    assert [species.label for species in model.map(rows, batch_size=2)] == ["long", "short", "long"]
    mixed = [rows[0], Patch(pixels=np.ones(2)), rows[1]]
    answers = list(model.map(mixed, on_error="return"))
    assert isinstance(answers[1], aiaas.InputError)
    assert answers[1].row == 1


def test_records_that_can_not_fit_are_told_at_opening(load: Any, iris: str) -> None:
    class Colour(BaseModel):
        label: int
        colour: str

    with pytest.raises(aiaas.ConfigError, match="colour"):
        load(iris, input=Flower, output=Colour, **TRUST).predict(Flower(petal_length=1, petal_width=1))
    with pytest.raises(aiaas.ConfigError, match="BaseModel"):
        load(iris, input=dict, **TRUST)
    with pytest.raises(aiaas.InputError, match="record 1 is a Patch"):
        load(iris, input=Flower, **TRUST).predict([Flower(petal_length=1, petal_width=1), Patch(pixels=np.ones(2))])


def test_a_view_keeps_its_records(load: Any, iris: str) -> None:
    view = load(iris, input=Flower, output=Species, **TRUST).with_options(timeout=9)
    assert view.predict(Flower(petal_length=1, petal_width=1)).label == "long"
    view = view.with_options(device="cpu")
    assert view.predict(Flower(petal_length=1, petal_width=1)).label == "long"


TYPED = """
from typing import assert_type

import numpy as np
from pydantic import BaseModel

import aiaas_sdk as aiaas


class Flower(BaseModel):
    petal_length: float


class Species(BaseModel):
    label: str


model = aiaas.load("iris", input=Flower, output=Species)
assert_type(model, aiaas.Model[Flower, Species])
assert_type(model.predict(Flower(petal_length=1)), Species)
assert_type(model.predict([Flower(petal_length=1)]), list[Species])
assert_type(model.predict(np.ones((1, 1))), aiaas.Prediction)
assert_type(model.predict({"x": np.ones((1, 1))}), aiaas.Prediction)
assert_type(aiaas.load("iris").predict(np.ones((1, 1))), aiaas.Prediction)


async def main() -> None:
    async with aiaas.load_async("iris", input=Flower, output=Species) as awaited:
        assert_type(await awaited.predict(Flower(petal_length=1)), Species)


aiaas.load("iris", timout=3)  # type: ignore[call-overload]
model.predict(3)  # type: ignore[call-overload]
"""


@pytest.mark.slow
def test_a_type_checker_sees_the_records(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), "user.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
