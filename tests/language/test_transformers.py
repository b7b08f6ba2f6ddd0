"""Models that transformers made and saved, in its own environment: imported here, they give its numbers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch.importing import import_model

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(900)]

MADE = """
import sys, torch, transformers, numpy as np
from pathlib import Path
folder = Path(sys.argv[1])
small = dict(vocab_size=288, hidden_size=64, intermediate_size=96, num_hidden_layers=3, max_position_embeddings=256)
heads = dict(num_attention_heads=4, num_key_value_heads=2)
llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64, rope_theta=500.0)
models = {
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**small, **heads, tie_word_embeddings=True)),
    "llama3": (transformers.LlamaForCausalLM,
               transformers.LlamaConfig(**small, **heads, head_dim=24, rms_norm_eps=1e-5, rope_parameters=llama3)),
    "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig(**small, **heads, sliding_window=None)),
    "bert": (transformers.BertModel, transformers.BertConfig(**small, num_attention_heads=4)),
}
ids = torch.randint(2, 288, (2, 90), generator=torch.Generator().manual_seed(1))
answers = {"ids": ids.numpy()}
for name, (cls, config) in models.items():
    torch.manual_seed(0)
    model = cls(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # as drawn, they are so small that attention hardly matters
            if weight.ndim == 2:
                weight.mul_(4)
        answer = model(ids)
    answers[name] = (answer.logits if hasattr(answer, "logits") else answer.last_hidden_state).numpy()
    model.save_pretrained(folder / name)
np.savez(folder / "answers.npz", **answers)
"""


@pytest.fixture(scope="module")
def made(transformers_env: Path, llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([str(transformers_env), "-c", MADE, str(folder)], check=True, timeout=600)
    for name in ("llama", "llama3", "mistral", "bert"):
        (folder / name / "tokenizer.json").write_bytes((llama / "tokenizer.json").read_bytes())
    return folder


@pytest.mark.parametrize("name", ["llama", "llama3", "mistral", "bert"])
def test_it_answers_as_it_did_there(made: Path, tmp_path: Path, name: str) -> None:
    import_model(made / name, tmp_path / name)
    answers: Any = np.load(made / "answers.npz", allow_pickle=False)
    ids, wanted = answers["ids"], answers[name]
    given = {"input_ids": ids} | ({"attention_mask": np.ones_like(ids)} if name == "bert" else {})
    with aiaas.load(f"torch:{tmp_path / name}") as model:
        found = model.predict(given)["hidden" if name == "bert" else "logits"]
    assert np.abs(wanted).max() > 0.5
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert json.loads((tmp_path / name / "1" / "model.json").read_text())["language"]["context"] == 256
