"""`predict` before MLflow's own scoring server: what the model is given, and what comes of its answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest

import aiaas_sdk as aiaas

pytestmark = pytest.mark.peer


def told(prediction: Any) -> list[str]:
    """What the model `kinds` says that it was given."""
    return [line.decode() for line in prediction["predictions"]]


def test_the_model_is_described(load: Any, scoring: str) -> None:
    with load(f"{scoring}/double/invocations") as model:
        info = model.info()
        assert (info.name, info.platform, info.verbs) == ("double", "mlflow", {"predict"})
        assert info.metadata["mlflow"].startswith("3.")
        assert model.ready()


def test_numbers_come_back(load: Any, scoring: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    with load(f"{scoring}/double") as model:
        named, bare = model.predict({"x": x}), model.predict(x)
        assert named.backend == "mlflow"
        assert named.usage.rows == 3
        # each float32 is told exactly, and is FP64 from there on
        assert named["y"].dtype == np.float64
        assert (named["y"] == 2 * x.astype(np.float64)).all()
        assert (bare["predictions"] == named["y"]).all()


def test_large_integers_are_kept(load: Any, scoring: str) -> None:
    with load(f"{scoring}/same") as model:
        for dtype, value in ((np.int64, -(2**63)), (np.int64, 2**53 + 1), (np.uint64, 2**64 - 1)):
            found = model.predict(np.array([[value]], dtype))["predictions"]
            assert found.tolist() == [[value]]
            assert found.dtype == dtype


@pytest.mark.parametrize("value", [np.array([[True, False]]), np.array([["a", "ü"]], object), 3.5, [1, 2], [[], []]])
def test_kinds_of_values_come_back(load: Any, scoring: str, value: Any) -> None:
    with load(f"{scoring}/same") as model:
        found = model.predict(value)["predictions"]
        wanted = [[text.encode() for text in row] for row in value] if np.asarray(value).dtype == object else value
        assert found.tolist() == np.asarray(wanted).tolist()
        assert found.shape == np.shape(value)


def test_arrays_columns_and_tables(load: Any, scoring: str) -> None:
    with load(f"{scoring}/kinds") as model:
        arrays = model.predict({"x": np.ones((2, 3), np.float32), "n": [1, 2]})
        assert told(arrays) == ["x float64 [2, 3]", "n int64 [2]"]
        assert told(model.predict({"a": [1.0, 2.0], "n": [1, 2]})) == ["frame", "a float64", "n int64"]


def test_a_signature_of_the_server_gives_the_datatypes_back(load: Any, scoring: str) -> None:
    with load(f"{scoring}/typed") as model:
        found = model.predict({"x": np.ones((2, 3), np.float32), "n": np.array([[1], [2]])})
        assert told(found) == ["x float32 [2, 3]", "n int64 [2, 1]"]


def test_a_data_frame_comes_as_its_columns(load: Any, scoring: str) -> None:
    with load(f"{scoring}/table") as model:
        inputs = {"a": np.array([1.5, -9]), "b": np.array([2.0, 1]), "word": ["x", "y"]}
        found = model.predict(inputs)
        assert found["word"].tolist() == [b"x!", b"y!"]
        # pandas' missing number
        assert found["sum"][0] == 3.5
        assert np.isnan(found["sum"][1])
        assert set(model.predict(inputs, outputs=["word"])) == {"word"}
        with pytest.raises(aiaas.ProtocolError, match="'nothing'"):
            model.predict(inputs, outputs=["nothing"])


def test_what_the_model_raises_is_its_own(load: Any, scoring: str) -> None:
    with load(f"{scoring}/double") as model, pytest.raises(aiaas.ModelError) as caught:
        model.predict(np.array([[-999.0]]))
    assert "ValueError: this model's own fault" in str(caught.value)
    assert caught.value.status == 400
    assert caught.value.attempts == 1


def test_a_wrong_shape_is_told_without_the_data(load: Any, scoring: str) -> None:
    with load(f"{scoring}/typed") as model, pytest.raises(aiaas.InvalidRequestError) as caught:
        model.predict({"x": np.array([[31.25, 2]], np.float32), "n": np.array([[77123]])})
    said = str(caught.value)
    assert "INVALID_PARAMETER_VALUE" in said
    assert "Tensor('float32', (-1, 3))" in said
    assert "(1, 2) does not match" in said
    assert "31.25" not in said
    assert "77123" not in said


def test_a_missing_column_is_told(load: Any, scoring: str) -> None:
    with load(f"{scoring}/table") as model, pytest.raises(aiaas.InvalidRequestError, match="missing inputs") as caught:
        model.predict({"a": [31.25]})
    assert "31.25" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array([[np.nan]]), "NaN or infinity"),
        (np.array([[np.inf]], np.float16), "NaN or infinity"),
        (np.zeros((0, 3)), r"shape \[0, 3\]"),
        ([b"\xff"], "UTF-8"),
    ],
)
def test_what_json_cannot_carry_is_refused(load: Any, scoring: str, value: Any, words: str) -> None:
    with load(f"{scoring}/same") as model, pytest.raises(aiaas.InputError, match=words) as caught:
        model.predict({"x": value})
    assert "'x'" in str(caught.value)
    assert caught.value.attempts == 0


@pytest.mark.parametrize("value", [[1], [1, 2]])
def test_an_answer_that_is_no_array_is_told(load: Any, scoring: str, value: Any) -> None:
    with load(f"{scoring}/odd") as model, pytest.raises(aiaas.ProtocolError, match=r"different lengths|no array"):
        model.predict(value)


def test_a_path_without_a_model(load: Any, scoring: str) -> None:
    with pytest.raises(aiaas.ModelNotFoundError, match="is the path right"), load(f"{scoring}/nothing") as model:
        model.info()


def test_map_gives_rows(load: Any, scoring: str) -> None:
    rows = {"a": np.arange(5.0), "b": np.ones(5), "word": [f"w{index}" for index in range(5)]}
    with load(f"{scoring}/table") as model:
        found = list(model.map(rows, batch_size=2))
    assert [float(row["sum"]) for row in found] == [1, 2, 3, 4, 5]
    assert [row["word"] for row in found] == [b"w0!", b"w1!", b"w2!", b"w3!", b"w4!"]


class Item(pydantic.BaseModel):
    a: float
    b: float
    word: str


class Answer(pydantic.BaseModel):
    sum: float
    word: str


def test_records(load: Any, scoring: str) -> None:
    with load(f"{scoring}/table", input=Item, output=Answer) as model:
        assert model.predict(Item(a=1, b=2, word="one")) == Answer(sum=3, word="one!")
        assert [answer.word for answer in model.predict([Item(a=0, b=0, word=word) for word in "xy"])] == ["x!", "y!"]
