"""Two models given the same inputs: parity, its cause where it fails, and speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.parity import compare

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
ECHO = "echo:?x=FP32[-1,3]"


@pytest.fixture
def scores(tmp_path: Path) -> str:
    """A bundle x FP32 [-1,3] -> scores of three classes, in two versions with other weights."""
    torch = pytest.importorskip("torch")
    from aiaas_sdk.architectures.mlp import MLP

    for seed in (1, 2):
        torch.manual_seed(seed)
        aiaas.save(MLP(features=3, classes=3), tmp_path / "scores", example=X, labels=["cat", "dog", "owl"])
    return f"torch:{tmp_path / 'scores'}"


# ---------------------------------------------------------------- parity
def test_a_model_equals_itself_and_no_cause_is_named() -> None:
    found = compare(ECHO, ECHO, X, repeat=3)
    assert (found.equal, found.max_abs, found.max_rel, found.label_agreement) == (True, 0.0, 0.0, 1.0)
    assert found.causes == ()
    assert found.rows == 2


def test_a_bundle_equals_itself(scores: str) -> None:
    found = compare(scores, f"{scores}@2", X, repeat=1)
    assert found.equal
    assert {fact.name: fact.state for fact in found.facts}["digest"] == "same"


def test_another_version_is_named_with_its_digest(scores: str) -> None:
    found = compare(f"{scores}@1", f"{scores}@2", X, repeat=0)
    assert not found.equal
    assert found.max_abs > 0.01
    assert found.causes[0] == "version: a has 1, b has 2"
    assert found.causes[1].startswith("digest: a has sha256:")
    assert len(found.causes) == 2


def test_another_dtype_is_named(scores: str) -> None:
    with aiaas.load(scores) as exact, aiaas.load(scores, dtype="bfloat16") as rough:
        found = compare(exact, rough, X, repeat=0)
        assert not found.equal
        assert found.causes == ("dtype: a has float32, b has bfloat16",)
        assert compare(exact, rough, X, rtol=0.1, atol=0.1, repeat=0).equal


def test_another_precision_flag_is_named(scores: str) -> None:
    import torch

    with aiaas.load(scores) as exact:
        exact.info()
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            with aiaas.load(scores, dtype="bfloat16") as rough:
                found = compare(exact, rough, X, repeat=0)
        finally:
            torch.set_float32_matmul_precision(before)
    assert "precision float32_matmul: a has highest, b has medium" in found.causes


def test_another_label_map_is_a_difference_although_the_numbers_are_equal(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    a = aiaas.save(layer, tmp_path / "a", example=X, labels=["cat", "dog"])
    b = aiaas.save(layer, tmp_path / "b", example=X, labels=["dog", "cat"])
    found = compare(a, b, X, repeat=0)
    assert found.max_abs == 0.0
    assert not found.equal
    assert found.label_agreement == 0.0
    assert "labels: a has 2 labels, [0] = cat, b has 2 labels, [0] = dog" in found.causes


# ---------------------------------------------------------------- models that differ in one thing


def made(answer: Any, **said: Any) -> aiaas.Model[Any, Any]:
    """A real model over a backend that answers with `answer`, whatever it is given."""
    from aiaas_sdk.address import parse
    from aiaas_sdk.backends.base import LocalBackend
    from aiaas_sdk.engine import Engine
    from aiaas_sdk.records.model import ModelInfo
    from aiaas_sdk.tensors import Tensor, datatype_of

    class Fixed(LocalBackend):
        scheme = "fixed"

        def open(self) -> ModelInfo:
            return ModelInfo(name="fixed", verbs=self.verbs(), **said)

        def predict(self, inputs: Any, names: Any) -> Any:
            arrays = {name: np.asarray(array) for name, array in answer.items()}
            return {name: Tensor(datatype_of(array), array) for name, array in arrays.items()}

    def sender() -> Any:
        return None

    backend = Fixed(parse("fixed:x"), {})
    return aiaas.Model(Engine(backend, sender, sender), {}, lambda options: None, lambda options: None)


def found(a: Any, b: Any, **options: Any) -> Any:
    with made({"y": a}) as first, made({"y": b}) as second:
        return compare(first, second, X, repeat=0, **options)


@pytest.mark.parametrize(
    ("a", "b", "max_abs", "max_rel", "differing"),
    [
        (np.float32([1, 2]), np.float32([1, 2]), 0.0, 0.0, 0),
        (np.float64([1, 2.5]), np.float64([1, 2]), 0.5, 0.25, 1),
        (np.float64([np.nan, np.inf]), np.float64([np.nan, np.inf]), 0.0, 0.0, 0),
        (np.float64([np.nan, 1]), np.float64([1, 1]), np.inf, np.inf, 1),
        (np.float64([np.inf]), np.float64([-np.inf]), np.inf, np.inf, 1),
        (np.float64([1e-9]), np.float64([0]), 1e-9, 0.0, 0),
        (np.float64([1e-3]), np.float64([0]), 1e-3, np.inf, 1),
        (np.int64([5, 2**62 + 1]), np.int64([5, 2**62]), 1.0, 2.0**-62, 1),
        (np.int64([-1]), np.uint64([2**64 - 1]), 2.0**64, 1.0, 1),
        (np.array([True, False]), np.array([True, True]), 1.0, 1.0, 1),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), np.inf, np.inf, 1),
        (np.array([b"a"], object), np.array([b"a"], object), 0.0, 0.0, 0),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 0.0, 0.0, 0),
    ],
)
def test_the_largest_differences_are_found(a: Any, b: Any, max_abs: float, max_rel: float, differing: int) -> None:
    result = found(a, b)
    assert result.max_abs == pytest.approx(max_abs)
    assert result.max_rel == pytest.approx(max_rel)
    assert result.outputs[0].differing == differing
    assert result.equal == (not differing)


def test_the_tolerances_are_those_of_numpy() -> None:
    a, b = np.float64([1.0, 100.0]), np.float64([1.01, 101.0])
    for rtol, atol in ((0.0, 0.0), (0.01, 0.0), (0.0, 0.5), (0.0, 1.0), (0.005, 0.5), (1e-5, 1e-6)):
        assert found(a, b, rtol=rtol, atol=atol).equal == np.allclose(a, b, rtol=rtol, atol=atol)


def test_outputs_of_other_shapes_or_names_are_unequal_and_told() -> None:
    result = found(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
    assert not result.equal
    assert result.outputs[0].problem == "shapes differ: [2, 3] and [2, 4]"
    assert result.max_abs == np.inf
    with made({"y": X, "z": X}) as a, made({"y": X}) as b:
        result = compare(a, b, X, repeat=0)
    assert [output.problem for output in result.outputs] == [None, "only a has it"]
    assert not result.equal


def test_the_only_outputs_are_compared_whatever_their_names_which_is_told() -> None:
    with made({"y": X}) as a, made({"z": X + 1}) as b:
        result = compare(a, b, X, repeat=0)
    assert (result.equal, result.max_abs) == (False, 1.0)
    assert result.outputs[0].problem == "b calls it 'z'"


def test_where_nothing_differs_but_the_numbers_the_report_says_so() -> None:
    result = found(np.float32([1]), np.float32([2]))
    (cause,) = result.causes
    assert cause.startswith("nothing that the models say of themselves differs; not told by both: version, digest")


def test_a_fact_that_one_side_does_not_tell_is_no_cause() -> None:
    with made({"y": X}, version="1", device="cpu") as a, made({"y": X + 1}, version="2") as b:
        result = compare(a, b, X, repeat=0)
    assert result.causes == ("version: a has 1, b has 2",)
    assert next(fact for fact in result.facts if fact.name == "device").state == "unknown"


def test_labels_agree_for_the_share_of_rows_with_the_same_best_class() -> None:
    a = np.float32([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.4]])
    b = np.float32([[0.8, 0.2], [0.9, 0.1], [0.7, 0.3], [0.5, 0.4]])
    assert found(a, b).label_agreement == 0.75
    assert found(np.int64([[1, 2]]), np.int64([[1, 2]])).label_agreement is None
    assert found(np.float32([1, 2]), np.float32([1, 2])).label_agreement is None


# ---------------------------------------------------------------- calling
def test_models_that_are_given_stay_open_and_addresses_are_closed() -> None:
    with aiaas.load(ECHO) as model:
        assert compare(model, ECHO, X, repeat=1).equal
        model.predict(X)
        assert model.stats().calls == 3


def test_speed_is_told_for_both(scores: str) -> None:
    result = compare(scores, scores, X, repeat=5)
    for side in "ab":
        assert 0 < result.latency[side]["p50"] <= result.latency[side]["p99"] < 10
        assert result.latency[side]["rows_per_s"] > 0
    assert compare(ECHO, ECHO, X, repeat=0).latency == {}


def test_more_rows_than_a_model_takes_are_sent_in_parts() -> None:
    from aiaas_sdk.records.model import TensorSpec

    spec = (TensorSpec("y", "FP32", (-1, 3)),)
    with made({"y": X}, inputs=spec, outputs=spec, metadata={"max_batch_size": 2}) as a, aiaas.load(ECHO) as b:
        b_named = made({"y": X}, inputs=spec, outputs=spec)
        result = compare(a, b_named, np.zeros((6, 3), np.float32), repeat=2)
        assert result.rows == 6
        assert a.stats().calls == 3 + 2
        with pytest.raises(aiaas.InputError):
            compare(a, b, {"y": X})


def test_inputs_that_fit_one_model_only_name_what_each_takes() -> None:
    with pytest.raises(aiaas.InputError, match=r"a takes x FP32 \[-1,3\], b takes x FP32 \[-1,4\]"):
        compare(ECHO, "echo:?x=FP32[-1,4]", X)


def test_several_inputs_and_torch_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    two = "echo:?x=FP32[-1,3]&n=INT64[-1]"
    assert compare(two, two, {"x": torch.from_numpy(X), "n": torch.tensor([1, 2])}, repeat=1).equal


def test_a_model_that_writes_into_its_input_cannot_change_what_the_other_gets(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Doubles(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.mul_(2)

    address = aiaas.save(Doubles(), tmp_path / "doubles", example=X)
    given = X.copy()
    assert compare(address, address, given, repeat=0).equal
    assert np.array_equal(given, X)


@pytest.mark.parametrize("options", [{"rtol": -1}, {"atol": float("nan")}, {"repeat": -1}, {"repeat": 1.5}])
def test_impossible_options_are_refused(options: Any) -> None:
    with pytest.raises(aiaas.ConfigError):
        compare(ECHO, ECHO, X, **options)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(aiaas.InputError, match="was given an int"):
        compare(3, ECHO, X)  # type: ignore[arg-type]
    with pytest.raises(aiaas.AddressError):
        compare("nosuchname", ECHO, X)


# ---------------------------------------------------------------- the report
def test_the_table_is_plain_text_with_everything(scores: str) -> None:
    text = str(compare(f"{scores}@1", f"{scores}@2", X, repeat=2))
    assert "NOT EQUAL within rtol 1e-05, atol 1e-06 (2 rows, 2 timed calls each)" in text
    assert "  cause: version: a has 1, b has 2" in text
    assert "p50 ms" in text
    assert "labels agree for" in text
    assert text.isprintable() or set(text) - {"\n"} <= set(map(chr, range(32, 127)))


def test_it_becomes_json() -> None:
    result = found(np.float32([np.nan]), np.float32([1]))
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["equal"] is False
    assert document["max_abs"] is None
    assert document["facts"][0] == {"name": "version", "a": None, "b": None, "state": "unknown"}
