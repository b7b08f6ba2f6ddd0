"""Recurrent networks: the formulas and their gradients by numpy, and rows that answer with others as they do alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aiaas_sdk.architectures.rnn import RNN
from aiaas_sdk.errors import ConfigError, InputError

Weights = dict[str, np.ndarray]


def made(**config: Any) -> RNN:
    torch.manual_seed(0)
    return RNN(**{"features": 3, "classes": 4, "hidden": 5, **config}).eval()


# ---------------------------------------------------------------- by numpy
def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def stepped(kind: str, w: Weights, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step by the formulas; torch keeps the gates' weights below each other, in the order i f g o and r z n."""
    a = w["cells.weight_ih_l0"] @ x + w["cells.bias_ih_l0"]
    b = w["cells.weight_hh_l0"] @ h + w["cells.bias_hh_l0"]
    if kind == "rnn":
        return np.tanh(a + b), c
    if kind == "lstm":
        i, f, g, o = np.split(a + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
    r, z = sigmoid(ar + br), sigmoid(az + bz)
    return (1 - z) * np.tanh(an + r * bn) + z * h, c


def walked(kind: str, w: Weights, x: np.ndarray) -> np.ndarray:
    """The logits after each step of one row."""
    h = c = np.zeros(5)
    found = []
    for step in x:
        h, c = stepped(kind, w, step, h, c)
        found.append(w["head.weight"] @ h + w["head.bias"])
    return np.array(found)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_states_and_gradients_are_the_formula_s(kind: str) -> None:
    """Gradients against central differences of the numpy one, for every weight and the input."""
    model, x = made(kind=kind, head="every").double(), torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    logits = model(x)
    w = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    values = x.detach().numpy()[0].copy()
    assert np.allclose(logits[0].detach().numpy(), walked(kind, w, values), atol=1e-12)
    pull = np.random.default_rng(0).normal(size=(6, 4))
    (logits[0] * torch.from_numpy(pull)).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()} | {"x": x.grad[0] if x.grad is not None else None}
    for name, array in {**w, "x": values}.items():
        numeric = np.empty(array.size)
        for place in range(array.size):
            sides = []
            for change in (1e-6, -2e-6):
                array.flat[place] += change
                sides.append((walked(kind, w, values) * pull).sum())
            array.flat[place] += 1e-6
            numeric[place] = (sides[0] - sides[1]) / 2e-6
        found = grads[name]
        assert found is not None
        assert np.allclose(found.numpy().ravel(), numeric, atol=1e-7), name


def test_the_last_head_is_the_last_of_every() -> None:
    last, every = made(), made(head="every")
    x = torch.randn(2, 7, 3)
    assert torch.equal(last(x), every(x)[:, -1])


def test_both_directions_see_the_ends_of_the_other() -> None:
    """The second network reads from a row's own end, and its last state is that at the first step."""
    model, x = made(bidirectional=True, kind="gru"), torch.randn(1, 7, 3)
    back = made(kind="gru")
    state = model.state_dict()
    back.cells.load_state_dict({name: state[f"cells.{name}_reverse"] for name in back.cells.state_dict()})
    there, here = model.cells(x)[1][0], back.cells(x.flip(1))[1][0]
    assert there.shape == here.shape
    both = torch.cat((there, here), 1)
    assert torch.allclose(model(x), model.head(both), atol=1e-6)


# ---------------------------------------------------------------- rows among others
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("more", [{}, {"bidirectional": True, "layers": 2}, {"head": "every", "bidirectional": True}])
def test_padded_rows_answer_as_they_do_alone(kind: str, more: dict[str, Any]) -> None:
    model, lengths = made(kind=kind, **more), [4, 1, 9]
    rows = [torch.randn(1, n, 3) for n in lengths]
    batch = torch.full((3, 9, 3), 7.0)
    mask = torch.zeros(3, 9, dtype=torch.int64)
    for place, row in enumerate(rows):
        batch[place, : row.shape[1]], mask[place, : row.shape[1]] = row[0], 1
    for given in (mask, mask.bool(), mask.float()):
        logits = model(batch, given)
        for place, row in enumerate(rows):
            found = logits[place] if logits.ndim == 2 else logits[place, : row.shape[1]]
            assert torch.allclose(found, model(row)[0], atol=1e-6)


def test_a_sequence_begins_where_the_other_ends() -> None:
    """Sources of different lengths; the decoder sees what is before it alone."""
    model = made(features=None, vocabulary=11, classes=8, head="sequence", kind="gru", layers=2)
    sources = [torch.randint(0, 11, (1, n)) for n in (3, 6)]
    batch, mask = torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 6, dtype=torch.int64)
    for place, row in enumerate(sources):
        batch[place, : row.shape[1]], mask[place, : row.shape[1]] = row[0], 1
    other = torch.randint(0, 8, (2, 5))
    logits = model(batch, mask, other)
    assert logits.shape == (2, 5, 8)
    for place, row in enumerate(sources):
        assert torch.allclose(model(row, decoder_inputs=other[place : place + 1])[0], logits[place], atol=1e-6)
    changed = other.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 8
    later = model(batch, mask, changed)
    assert torch.equal(later[:, :3], logits[:, :3])
    assert not torch.allclose(later[:, 3], logits[:, 3])


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"kind": "rnn", "activation": "relu", "bidirectional": True, "head": "every"},
        {"features": None, "vocabulary": 9, "kind": "gru", "layers": 2},
        {"features": None, "vocabulary": 9, "head": "sequence"},
    ],
)
def test_gradients_reach_every_weight(config: dict[str, Any]) -> None:
    model = made(**config).train()
    x = torch.arange(18).view(2, 9) % 9 if config.get("vocabulary") else torch.randn(2, 9, 3)
    other = {"decoder_inputs": torch.randint(0, 4, (2, 5))} if config.get("head") == "sequence" else {}
    model(x, torch.ones(2, 9), **other).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


@pytest.mark.parametrize("head", ["last", "every"])
def test_no_rows_are_answered_by_none(head: str) -> None:
    assert made(head=head)(torch.zeros(0, 4, 3)).shape[0] == 0


def test_dropout_of_one_layer_is_that_into_the_head() -> None:
    """Torch warns of dropout between layers where there is one; a warning fails this test."""
    model, x = made(dropout=0.5).train(), torch.randn(1, 4, 3)
    assert not torch.equal(model(x), model(x))
    assert isinstance(model.cells, nn.LSTM)
    assert made(dropout=0.5, layers=2).cells.dropout == 0.5


# ---------------------------------------------------------------- what can't be
@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"kind": "elman"}, "kind is 'elman'"),
        ({"head": "first"}, "head is 'first'"),
        ({"features": None}, "one of the two"),
        ({"vocabulary": 9}, "one of the two"),
        ({"features": 0}, "features is 0"),
        ({"hidden": 1 << 30}, "hidden is"),
        ({"layers": 1 << 20}, "at most 1024"),
        ({"layers": True}, "layers is True"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"bidirectional": 1}, "bidirectional is 1"),
        ({"activation": "relu"}, "activation is 'relu'"),
        ({"head": "sequence", "bidirectional": True}, "goes on from one state"),
        ({"features": None, "vocabulary": 1 << 40}, "vocabulary is"),
    ],
)
def test_arguments_that_cannot_be(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told), torch.device("meta"):
        made(**config)


@pytest.mark.parametrize(
    ("inputs", "mask", "told"),
    [
        (torch.zeros(2, 4), None, "a series of shape"),
        (torch.zeros(2, 4, 2), None, r"\(rows, steps, 3\)"),
        (torch.zeros(2, 0, 3), None, "a series of shape"),
        (torch.zeros(2, 4, 3), torch.ones(2, 3), "mask has the shape"),
        (torch.zeros(2, 2, 3), torch.tensor([[1, 0], [0, 0]]), "one at least"),
        (torch.zeros(2, 2, 3), torch.tensor([[1, 1], [0, 1]]), "one at least"),
    ],
)
def test_inputs_that_cannot_be(inputs: Tensor, mask: Tensor | None, told: str) -> None:
    with pytest.raises(InputError, match=told):
        made()(inputs, mask)


def test_ids_that_cannot_be() -> None:
    model = made(features=None, vocabulary=9, head="sequence")
    ids = torch.ones(1, 3, dtype=torch.int64)
    for given, told in (
        ({"inputs": ids * 9, "decoder_inputs": ids}, "inputs: a token id isn't from 0 to 8"),
        ({"inputs": ids, "decoder_inputs": ids * 4}, "decoder_inputs: a token id isn't from 0 to 3"),
        ({"inputs": ids}, "takes decoder_inputs"),
        ({"inputs": ids.float(), "decoder_inputs": ids}, "whole numbers"),
    ):
        with pytest.raises(InputError, match=told):
            model(**given)
