"""PyTorch language models here keep their promises: one that generates, and one that embeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing.conformance import Conformance, Subject

pytest.importorskip("torch")
pytestmark = pytest.mark.slow
SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 256}


def tokens(rows: int, seed: int) -> dict[str, np.ndarray]:
    return {"input_ids": np.random.default_rng(seed).integers(0, 250, (rows, 5))}


def masked(rows: int, seed: int) -> dict[str, np.ndarray]:
    return {**tokens(rows, seed), "attention_mask": np.ones((rows, 5), np.int64)}


def made(folder: Path, **config: object) -> str:
    address = f"torch:{folder / 'model'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder / "home"))
        aiaas.create(address, architecture="transformer", config={**SMALL, **config}, tokenizer="bytes", seed=1).close()
    return address


@pytest.mark.slow
class TestGenerating(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, tmp_path_factory: pytest.TempPathFactory) -> Subject:
        return Subject(made(tmp_path_factory.mktemp("generating")), inputs=tokens)


@pytest.mark.slow
class TestEmbedding(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, tmp_path_factory: pytest.TempPathFactory) -> Subject:
        return Subject(made(tmp_path_factory.mktemp("embedding"), kind="encoder"), inputs=masked)
