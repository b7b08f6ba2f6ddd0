"""`embed` and `predict`: vectors and classes, as transformers gives them by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import aiaas_sdk as aiaas

Load = Any
TEXTS = ["a cat", "Zürich is a town in Switzerland", "", "x" * 600]


def hidden(address: str, text: str) -> Any:
    folder = address.removeprefix("hf:")
    words = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**words(text, return_tensors="pt", truncation=True, max_length=256)).last_hidden_state[0].numpy()


# ---------------------------------------------------------------- embed
def test_a_vector_is_the_mean_of_length_1(load: Load, small: SimpleNamespace) -> None:
    with load(small.encoder) as model:
        assert model.info().verbs == {"embed"}
        found = model.embed(TEXTS)
        assert found.array.dtype == np.float32
        assert found.array.shape == (4, 32)
        assert found.usage.input_tokens == 7 + 34 + 2 + 256
        for row, text in zip(found.array, TEXTS, strict=True):
            mean = hidden(small.encoder, text).mean(0)
            np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
        with pytest.raises(aiaas.UnsupportedOperationError, match="32 dimensions"):
            model.embed(["x"], dimensions=8)
        with pytest.raises(aiaas.UnsupportedOperationError, match="generate"):
            model.generate("x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "pooled"),
    [
        ("mean_tokens", lambda rows: rows.mean(0)),
        ("cls_token", lambda rows: rows[0]),
        ("lasttoken", lambda rows: rows[-1]),
        ("max_tokens", lambda rows: rows.max(0)),
    ],
)
def test_pooling_is_what_the_folder_says(small: SimpleNamespace, tmp_path: Path, mode: str, pooled: Any) -> None:
    folder = with_modules(small, tmp_path, ["Transformer", "Pooling"], f"pooling_mode_{mode}")
    with aiaas.load(f"hf:{folder}") as model:
        found = model.embed(TEXTS).array
    for row, text in zip(found, TEXTS, strict=True):
        np.testing.assert_allclose(row, pooled(hidden(small.encoder, text)), atol=1e-4)


def with_modules(small: SimpleNamespace, tmp_path: Path, kinds: list[str], mode: str) -> Path:
    folder = tmp_path / "encoder"
    shutil.copytree(small.encoder.removeprefix("hf:"), folder)
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": f"{at}_{kind}"} for at, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True, "word_embedding_dimension": 32}))
    return folder


@pytest.mark.parametrize(
    ("kinds", "mode", "text"),
    [
        (["Transformer", "Pooling", "Dense"], "pooling_mode_mean_tokens", "the layer Dense"),
        (["Transformer", "Pooling"], "pooling_mode_weightedmean_tokens", "pools by pooling_mode_weighted"),
    ],
)
def test_layers_that_arent_known_are_refused(
    small: SimpleNamespace, tmp_path: Path, kinds: Any, mode: str, text: str
) -> None:
    folder = with_modules(small, tmp_path, kinds, mode)
    with pytest.raises(aiaas.UnsupportedOperationError, match=text), aiaas.load(f"hf:{folder}") as model:
        model.embed(["x"])


# ---------------------------------------------------------------- predict
def test_texts_are_classified_as_by_the_pipeline(load: Load, small: SimpleNamespace) -> None:
    folder = small.classifier.removeprefix("hf:")
    pipeline = transformers.pipeline("text-classification", folder, device="cpu")
    texts = TEXTS[:3]
    with load(small.classifier) as model:
        info = model.info()
        assert info.labels == ("bad", "fair", "good")
        assert [(s.name, s.datatype, s.shape) for s in info.inputs] == [("text", "BYTES", (-1,))]
        found = model.predict(texts)
        assert found["probabilities"].dtype == np.float32
        assert model.predict([])["probabilities"].shape == (0, 3)
        assert len(list(model.map(texts, batch_size=2))) == 3
    for answer, best in zip(found.top(3), pipeline(texts, top_k=3), strict=True):
        assert [label for label, _ in answer] == [entry["label"] for entry in best]
        assert [p for _, p in answer] == pytest.approx([entry["score"] for entry in best], abs=1e-5)


def test_several_labels_at_once_have_a_probability_each(small: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    shutil.copytree(small.classifier.removeprefix("hf:"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    with aiaas.load(small.classifier) as one, aiaas.load(f"hf:{folder}") as many:
        softmax, sigmoid = one.predict(TEXTS[:3]).array, many.predict(TEXTS[:3]).array
    logits = np.log(sigmoid / (1 - sigmoid))
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), softmax, rtol=1e-3)


def test_bytes_that_are_no_text_are_refused(load: Load, small: SimpleNamespace) -> None:
    with load(small.classifier) as model, pytest.raises(aiaas.InputError, match="UTF-8"):
        model.predict([b"\xff"])
