"""Weights that others trained, in these architectures, against what the others' own code gives (tests/data)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.cnn import CNN
from aiaas_sdk.architectures.rnn import RNN
from tests.peers import weights

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(300)]
DATA = Path(__file__).parent.parent / "data"
GRAPHEMES, PHONEMES = 29, 74


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def filled(module: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    """Every weight is given, and none is left over."""
    module.load_state_dict(state)
    return module.eval()


def test_a_convolutional_network_for_digits(tmp_path: Path) -> None:
    model = CNN(filters=[32, 64, 128], hidden=256, padding=1)
    given = torch.load(weights("digits") / "handwriting_model.pth", weights_only=True, map_location="cpu")
    names = {"conv_layers": "features", "fc_layers": "head"}
    state = {f"{names[part]}.{rest}": tensor for key, tensor in given.items() for part, rest in [key.split(".", 1)]}
    right = golden("digits_cnn")
    x = ((right["in_image"][:, None] / 255 - 0.1307) / 0.3081).astype(np.float32)
    address = aiaas.save(filled(model, state), tmp_path / "digits", example=x[:1], labels=list("0123456789"))
    with aiaas.load(address) as loaded:
        found = loaded.predict(x)
    assert np.abs(found["logits"] - right["out_logits"]).max() < 1e-4
    assert [int(row[0][0]) for row in found.top(1)] == right["label"].tolist()


def test_an_lstm_of_three_layers_for_voices(tmp_path: Path) -> None:
    """The embedding is the logits, cut off below 0 and brought to length 1."""
    model = RNN(kind="lstm", features=40, hidden=256, layers=3, classes=256)
    given = torch.load(weights("voice") / "pretrained.pt", weights_only=True, map_location="cpu")["model_state"]
    names = {"lstm": "cells", "linear": "head"}
    state = {
        f"{names[part]}.{rest}": tensor
        for key, tensor in given.items()
        for part, _, rest in [key.partition(".")]
        if part in names
    }
    right = golden("voice_encoder")
    address = aiaas.save(filled(model, state), tmp_path / "voice", example=right["in_mel"][:, :8])
    with aiaas.load(address) as loaded:
        assert loaded.info().inputs[0].shape == (-1, -1, 40)
        voices = np.maximum(loaded.predict(right["in_mel"]).array, 0)
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    assert np.abs(voices - right["out_embedding"]).max() < 1e-5
    assert abs(float(voices[0] @ voices[1]) - 0.6085) < 1e-4


def test_gated_units_from_spelling_to_sounds(tmp_path: Path) -> None:
    """Words of different lengths in one batch, against what each gives alone."""
    model = RNN(kind="gru", vocabulary=GRAPHEMES, classes=PHONEMES, hidden=256, embedding=256, head="sequence")
    with np.load(weights("g2p") / "checkpoint20.npz", allow_pickle=False) as given:
        state = {"embedding.weight": given["enc_emb"], "decoder_embedding.weight": given["dec_emb"]}
        for here, there in (("cells", "enc"), ("decoder", "dec")):
            for kind in ("w_ih", "w_hh", "b_ih", "b_hh"):
                name = kind.replace("w_", "weight_").replace("b_", "bias_")
                state[f"{here}.{name}_l0"] = given[f"{there}_{kind}"]
        state |= {"head.weight": given["fc_w"], "head.bias": given["fc_b"]}
    right = golden("g2p")
    graphemes, phonemes = right["in_graphemes"], right["in_phonemes"]
    mask = (graphemes >= 0).astype(np.int64)
    x = {"inputs": np.maximum(graphemes, 0), "mask": mask, "decoder_inputs": np.maximum(phonemes, 0)}
    module = filled(model, {name: torch.from_numpy(array) for name, array in state.items()})
    example = {name: array[:1, : 4 + place] for place, (name, array) in enumerate(x.items())}
    example["mask"] = np.ones_like(example["inputs"])
    address = aiaas.save(module, tmp_path / "g2p", example=example)
    with aiaas.load(address) as loaded:
        logits = loaded.predict(x).array
    for row, length in enumerate((phonemes >= 0).sum(1)):
        assert np.abs(logits[row, :length] - right["out_logits"][row, :length]).max() < 1e-4
        said = logits[row, :length].argmax(1)
        assert said[:-1].tolist() == phonemes[row, 1:length].tolist()  # greedy: each answer is the next input
