"""`explain` for both faces, here and behind servers: the same lines, the same attributions, the same errors."""

from __future__ import annotations

import pickle
import time
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread

from .conftest import FEATURES, LABELS, images, rows

WHERE = ("here", "server", "plain")
GRADIENTS = ("integrated_gradients", "saliency", "smoothgrad", "grad_cam")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "server"])
@pytest.mark.parametrize("method", ["auto", *GRADIENTS, "occlusion"])
def test_attributions_have_the_shape_of_the_input_and_are_the_same_everywhere(
    load: Any, at: Any, where: str, method: str
) -> None:
    x = images(3)
    found = load(at(where, "digits")).explain(x, method=method)
    reference = aiaas.load(at("here", "digits")).explain(x, method=method)
    assert found.array.shape == x.shape
    assert found.array.dtype == np.float32
    assert np.abs(found.array - reference.array).max() <= 1e-6
    assert np.abs(found.array).max() > 0
    assert (found.method, found.target) == (reference.method, reference.target)
    assert found.target == tuple(aiaas.load(at("here", "digits")).predict(x).array.argmax(1))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(("name", "method"), [("digits", "occlusion"), ("table", "shap"), ("table", "occlusion")])
def test_perturbing_needs_nothing_but_predictions(load: Any, at: Any, where: str, name: str, method: str) -> None:
    x = images(3) if name == "digits" else rows(5)
    found = load(at(where, name)).explain(x, method=method)
    reference = aiaas.load(at("here", name)).explain(x, method=method)
    assert np.abs(found.array - reference.array).max() <= 1e-6
    assert found.array.shape == x.shape


@pytest.mark.parametrize("where", WHERE)
def test_it_is_among_the_verbs(load: Any, at: Any, where: str) -> None:
    assert "explain" in load(at(where, "table")).info().verbs


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("target", "wanted"),
    [(7, (7, 7)), ("7", (7, 7)), ([1, 7], (1, 7)), (["7", "1"], (7, 1)), (np.array([3, 4]), (3, 4))],
)
def test_a_target_is_an_index_a_label_or_one_a_row(load: Any, at: Any, where: str, target: Any, wanted: Any) -> None:
    found = load(at(where, "digits")).explain(images(2), target=target, method="occlusion")
    assert found.target == wanted
    assert found.labels == tuple(LABELS)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "integrated_gradient"}, "no method 'integrated_gradient'. Did you mean 'integrated_gradients'"),
        ({"method": "shap"}, "shap is for tables.*can be explained by.*occlusion"),
        ({"target": 10}, "no target 10. Its targets are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, or 0 to 9"),
        ({"target": -1}, "from 0 on"),
        ({"target": "ten"}, "no label 'ten'. It has 0, 1, 2"),
        ({"target": [1]}, "1 targets for 2 rows"),
        ({"target": True}, "target is a bool"),
        ({"target": 1.5}, "target is a float"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(
    load: Any, at: Any, where: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(aiaas.InputError, match=says):
        load(at(where, "digits")).explain(images(2), **options)


@pytest.mark.parametrize(
    ("where", "name", "method", "why"),
    [
        ("here", "table", "grad_cam", "grad_cam needs a convolution; this model has none"),
        ("server", "table", "grad_cam", "grad_cam needs a convolution; this model has none"),
        ("plain", "table", "grad_cam", "grad_cam needs gradients, which oip: doesn't give"),
        ("here", "table", "attention_rollout", "needs the attention of a Transformer"),
        ("here", "encoder", "grad_cam", "grad_cam needs a convolution"),
        ("here", "encoder", "shap", "shap is for arrays"),
    ],
)
def test_an_unfit_method_says_why(load: Any, at: Any, where: str, name: str, method: str, why: str) -> None:
    x: Any = "a text" if name == "encoder" else rows(2)
    with pytest.raises(aiaas.InputError, match=why):
        load(at(where, name)).explain(x, method=method)


def test_a_server_made_beside_one_that_cannot_explain_can(at: Any) -> None:
    with serve_in_thread([at("here", "digits")]) as url:
        beside = aiaas.load(f"{url}/v2/models/digits").explain(images(2))
    plain = aiaas.load(at("plain", "digits")).explain(images(2))
    with serve_in_thread([at("here", "digits")]) as url:
        after = aiaas.load(f"{url}/v2/models/digits").explain(images(2))
    assert plain.method == "occlusion"
    assert beside.method == after.method == "integrated_gradients"


@pytest.mark.parametrize("where", WHERE)
def test_arrays_are_checked_as_by_predict(load: Any, at: Any, where: str) -> None:
    with pytest.raises(aiaas.InputError, match=r"wants FP32 \[-1, 4\] and was given shape \[2, 3\]"):
        load(at(where, "table")).explain(rows(2, 3))


@pytest.mark.parametrize("where", WHERE)
def test_no_rows_give_no_attributions(load: Any, at: Any, where: str) -> None:
    for name, x in (("table", rows(0)), ("digits", np.zeros((0, 1, 12, 12), np.float32))):
        assert load(at(where, name)).explain(x).array.shape == x.shape


@pytest.mark.parametrize("where", WHERE)
def test_more_rows_than_one_request_takes(load: Any, at: Any, where: str) -> None:
    x = rows(150)
    found = load(at(where, "table")).explain(x)
    alone = aiaas.load(at("here", "table")).explain(x[140:141])
    assert found.array.shape == x.shape
    assert np.allclose(found.array[140:141], alone.array, atol=1e-6)
    assert found.usage.rows == 150


def test_a_table_may_be_too_wide_for_shap_values(load: Any) -> None:
    x = np.ones((1, 5000), np.float32)
    model = load("echo:?x=FP32[-1,5000]")
    with pytest.raises(aiaas.InputError, match="shap is for tables of up to 1024 columns; this one has 5000"):
        model.explain(x, method="shap")
    found = model.explain(x, target=4321)
    assert found.method == "occlusion"
    assert found.array[0, 4321] == found.array.max() > 0


def test_torch_in_gives_torch_out(load: Any, at: Any) -> None:
    import torch

    found = load(at("here", "table")).explain(torch.from_numpy(rows(2)))
    assert isinstance(found.array, torch.Tensor)


@pytest.mark.parametrize("where", WHERE)
def test_it_says_who_answered(load: Any, at: Any, where: str) -> None:
    found = load(at(where, "table")).explain(rows(2))
    assert (found.model, found.version) == ("table", "1")
    assert found.backend == ("torch" if where == "here" else "oip")
    assert (found.attempts > 0) == (where != "here")
    assert found.timing.total > 0
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.array, found.array)
    assert (again.method, again.model, again.features) == (found.method, "table", found.features)


@pytest.mark.parametrize("where", WHERE)
def test_importance_ranks_features_by_name(load: Any, at: Any, where: str) -> None:
    found = load(at(where, "table")).explain(rows(9))
    ranked = found.importance()
    assert sorted(ranked) == sorted(FEATURES)
    assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
    assert ranked["income"] == pytest.approx(np.abs(found.array[:, 1]).mean(), rel=1e-6)
    with pytest.raises(aiaas.InputError, match="no table"):
        load(at(where, "digits")).explain(images(1), method="occlusion").importance()


@pytest.mark.parametrize("where", WHERE)
def test_a_deadline_is_kept(load: Any, at: Any, where: str) -> None:
    model = load(at(where, "digits"))
    model.info()
    begun = time.monotonic()
    with pytest.raises(aiaas.DeadlineExceededError):
        model.explain(images(64), method="occlusion", timeout=0.05)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("where", ["here", "server"])
def test_the_same_question_has_the_same_answer(load: Any, at: Any, where: str) -> None:
    for name, x, method in (("digits", images(2), "smoothgrad"), ("linear", rows(2, 20), "shap")):
        first, second = (load(at(where, name)).explain(x, method=method) for _ in range(2))
        assert np.array_equal(first.array, second.array)


def test_batches_are_those_of_map(load: Any, at: Any) -> None:
    model = load(at("here", "table"), batch_size=3)
    model.explain(rows(1), method="shap")
    stats = model.stats()
    # one call for the answer itself, 16 sets by threes, and the explanation
    assert (stats.calls, stats.rows) == (1 + 6 + 1, 1 + 16 + 1)


def test_what_has_no_signature_or_no_numbers_is_not_explained(load: Any) -> None:
    for address, x in (("echo:", [[1.0]]), ("echo:?x=BYTES[-1]", ["a"]), ("echo:?x=FP32[3]", [1.0, 2.0, 3.0])):
        model = load(address)
        assert "explain" not in model.info().verbs
        with pytest.raises(aiaas.UnsupportedOperationError, match="explain isn't available for echo:"):
            model.explain(x)


@pytest.mark.parametrize("where", WHERE)
def test_records_are_explained_as_arrays_are(load: Any, at: Any, where: str) -> None:
    from pydantic import BaseModel, ConfigDict

    name = aiaas.load(at("here", "table")).info().inputs[0].name
    config = ConfigDict(arbitrary_types_allowed=True)
    row = type("Row", (BaseModel,), {"__annotations__": {name: np.ndarray}, "model_config": config})
    x = rows(2)
    model = load(at(where, "table"), input=row)
    assert np.array_equal(model.explain([row(**{name: one}) for one in x]).array, model.explain(x).array)


# ---------------------------------------------------------------- several outputs, axes and kinds of inputs
WHOLE = "echo:?x=FP32[-1,3]&state=FP32[2,-1,4]&rate=FP32[1]"


def test_rows_need_not_be_the_first_axis(load: Any) -> None:
    """A state of (2, rows, 4), and a rate that all rows share: the model can't be mapped, and is explained."""
    model = load(WHOLE, batch_size=5)
    state = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    given = {"x": rows(3, 3) + 5, "state": state, "rate": np.ones(1, np.float32)}
    found = model.explain(given, target=[0, 1, "x[2]"])
    assert (found.method, found.output, found.target) == ("occlusion", "x", (0, 1, 2))
    assert np.array_equal(found["x"], np.diag(np.diag(given["x"])))
    assert found["state"].shape == (2, 3, 4)
    assert not found["state"].any()
    assert found["rate"].tolist() == [0]
    with pytest.raises(aiaas.InputError, match=r"different numbers of rows: \[2, 3\]"):
        model.explain({**given, "state": state[:, :2]})


def test_a_target_is_a_place_in_an_output(load: Any) -> None:
    model = load("echo:?x=FP32[-1,3]&map=FP32[-1,2,-1]")
    given = {"x": rows(2, 3), "map": rows(16).reshape(2, 2, 16)}
    found = model.explain(given, target=["map[1,5]", "map[0,2]"])
    assert (found.output, found.target, found.labels) == ("map", (21, 2), None)
    assert np.abs(found["map"][0, 1, 5]) > 0
    assert not found["map"][0, 0].any()
    assert not found["x"].any()
    again = model.explain(given, target=["map[1,5]", "map[0, 2]"])
    assert all(np.array_equal(again[name], found[name]) for name in given)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("map", r"'map' of echo gives \[2, 16\] numbers a row, of which none is what it predicts.*Give target='map\["),
        ("map[2,0]", r"'map' of echo has no place 'map\[2,0\]'. It is \[-1, 2, -1\]"),
        ("map[1,16]", r"no target 'map\[1,16\]'.*'map' has \[2, 16\] numbers a row"),
        ("map[1]", r"no target 'map\[1\]'"),
        ("map[-1,0]", r"no labels. Give an index, an output \(x, map\), or a place in one: 'x\[0\]'"),
        (["map[1,0]", "x[0]"], "targets are in several outputs, map, x. Ask for each alone"),
    ],
)
def test_a_place_that_is_not_there(load: Any, target: Any, says: str) -> None:
    with pytest.raises(aiaas.InputError, match=says):
        load("echo:?x=FP32[-1,3]&map=FP32[-1,2,-1]").explain(
            {"x": rows(2, 3), "map": rows(16).reshape(2, 2, 16)}, target=target
        )


def test_what_says_which_tokens_there_are_is_not_left_out(load: Any) -> None:
    given = {"ids": np.array([[3, 4, 5]]), "ids_mask": np.array([[1, 1, 0]]), "y": np.array([[7.0]], np.float32)}
    found = load("echo:?ids=INT64[-1,3]&ids_mask=INT64[-1,3]&y=FP32[-1,1]").explain(given, method="shap")
    assert (found.target, found["y"].tolist()) == (None, [[7.0]])
    assert not found["ids_mask"].any()
