"""What `hf:` costs over transformers by hand: MiniLM's vectors, and SmolLM2's answers and streams (scripts/models.sh).

Both use the same module's own code, load the same files, and run in turns in one process on one thread. A figure is
the median of the rounds' differences or ratios, of CPU time of the whole process: answers are generated in a thread.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from processes import ROOT
from turns import compared

import aiaas_sdk as aiaas

TEXTS = ["A man is eating food.", "The girl is carrying a baby.", "Two dogs run on a beach.", "It rains."] * 4
QUESTION = [{"role": "user", "content": "Tell me about the sea."}]
TOKENS = 24


def _model(name: str) -> Path:
    command, environment = [ROOT / "scripts" / "models.sh", name], {**os.environ}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


def _show(name: str, ours: Callable[[], object], raw: Callable[[], object], rounds: int, each: int = 1) -> None:
    """Microseconds for `each` part of a call (a token, say), and the ratio."""
    base, over, ratio = compared(ours, raw, rounds, clock=time.process_time)
    print(f"{name:32}{1e6 * base / each:>12.0f}{1e6 * over / each:>+10.0f}{ratio:>8.3f}")


def _embedding(folder: Path) -> None:
    words = transformers.AutoTokenizer.from_pretrained(folder)
    module = transformers.AutoModel.from_pretrained(folder).eval()

    def raw(texts: list[str]) -> Any:
        given = words(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            hidden = module(**given).last_hidden_state
            mask = given["attention_mask"][..., None].to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(mean, dim=-1).numpy()

    with aiaas.load(f"hf:{folder}") as model:
        assert np.allclose(model.embed(TEXTS).array, raw(TEXTS), atol=1e-5)
        for count in (1, 16):
            texts = TEXTS[:count]
            _show(f"embed, {count} texts", lambda t=texts: model.embed(t), lambda t=texts: raw(t), 60)


def _speaking(file: Path) -> None:
    words = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    module = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)

    def raw() -> str:
        given = words.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            out = module.generate(**given, max_new_tokens=TOKENS, do_sample=False)
        return words.decode(out[0, given["input_ids"].shape[1] :], skip_special_tokens=True)

    with aiaas.load(f"hf:{file}") as model:

        def streamed() -> str:
            with model.stream(QUESTION, max_tokens=TOKENS) as stream:
                return "".join(delta.text for delta in stream)

        assert model.generate(QUESTION, max_tokens=TOKENS).text == streamed() == raw()
        _show("generate, a token", lambda: model.generate(QUESTION, max_tokens=TOKENS), raw, 9, TOKENS)
        _show("stream, a token", streamed, raw, 9, TOKENS)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'hf: over transformers':32}{'raw, us':>12}{'over, us':>10}{'ratio':>8}")
    _embedding(_model("minilm"))
    _speaking(next(_model("smollm2").glob("*.gguf")))


if __name__ == "__main__":
    main()
