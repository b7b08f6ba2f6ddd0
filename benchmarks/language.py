"""Tokens a second of the local decoder, against transformers' `generate` with the same weights and prompts.

SmolLM2-135M in float32, greedy, one conversation at a time and eight together. Ours is called as users call it:
`Model.generate`, for eight conversations from eight threads. The peer has them as one padded batch in an environment of
its own (scripts/peers.sh transformers). Both have the same number of torch's threads, and run in turns; a figure is
the median of the rounds. That both say the same tokens is checked.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from processes import ROOT, Worker

TOKENS = 48
"""Of each answer."""
ROUNDS = 3
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SUBJECTS = ("a dog", "the sea", "two robots", "a lighthouse", "my grandmother", "a lost key", "winter", "the moon")
PROMPTS = [f"Tell me a long story about {subject}." for subject in SUBJECTS]


# ---------------------------------------------------------------- the peer, in its own process
def peer(folder: str) -> None:
    """For each line of token ids on stdin, a line with the seconds and the tokens on stdout."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(THREADS)
    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for line in sys.stdin:
        rows = json.loads(line)
        longest = max(map(len, rows))
        ids = torch.tensor([[2] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        begun = time.perf_counter()
        found = model.generate(
            ids, attention_mask=mask, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, pad_token_id=2
        )
        seconds = time.perf_counter() - begun
        print(json.dumps([seconds, found[:, longest:].tolist()]), flush=True)


def written(bundle: Path, folder: Path) -> None:
    """The bundle's weights as transformers reads them."""
    from safetensors.torch import load_file, save_file

    manifest = json.loads((bundle / "model.json").read_text())
    config = manifest["architecture"]["config"]
    names = {
        "embedding.tokens": "model.embed_tokens", "stack.norm": "model.norm", "stack.blocks": "model.layers",
        "attention_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm",
        "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj", "attention.output": "self_attn.o_proj",
        "feedforward.gate": "mlp.gate_proj", "feedforward.up": "mlp.up_proj", "feedforward.down": "mlp.down_proj",
    }  # fmt: skip
    state = {}
    for name, tensor in load_file(bundle / "weights.safetensors").items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": config["vocabulary"],
                "hidden_size": config["width"], "num_hidden_layers": config["layers"],
                "num_attention_heads": config["heads"], "num_key_value_heads": config["kv_heads"],
                "head_dim": config["head_width"], "intermediate_size": config["feedforward"],
                "max_position_embeddings": config["context"], "rms_norm_eps": config["norm_eps"],
                "rope_parameters": {"rope_type": "default", "rope_theta": config["theta"]},
                "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32",
                "bos_token_id": 1, "eos_token_id": 2,
            }
        )
    )  # fmt: skip


def started(folder: Path) -> Worker:
    """The other process."""
    python = ROOT / ".peers" / "transformers" / "bin" / "python"
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    return Worker([python, __file__, "--peer", folder], environment=quiet)


# ---------------------------------------------------------------- ours
def ours(model: Any, prompts: list[str]) -> float:
    begun = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(lambda prompt: model.generate(prompt, max_tokens=TOKENS), prompts))
    seconds = time.perf_counter() - begun
    assert all(answer.usage.output_tokens == TOKENS for answer in answers), "an answer ended early"
    return seconds


def main() -> None:
    import torch

    import aiaas_sdk as aiaas
    from aiaas_sdk.backends.torch.importing import import_model
    from aiaas_sdk.records.chat import Chat

    torch.set_num_threads(THREADS)
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts" / "peers.sh", "transformers"], env=environment, check=True)
    fetched = subprocess.run(
        [ROOT / "scripts" / "models.sh", "smollm2"], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    source = next(Path(fetched.stdout.strip()).glob("*.gguf"))
    with tempfile.TemporaryDirectory() as folder:
        theirs = Path(folder) / "hf"
        theirs.mkdir()
        located = import_model(source, Path(folder) / "smollm2")
        written(located.folder, theirs)
        with started(theirs) as other, aiaas.load(f"torch:{folder}/smollm2") as model:
            model.info()
            speaker = model._engine.backend._speaker
            asks = [speaker.ask(Chat((aiaas.Message("user", text),)), streaming=False) for text in PROMPTS]
            ids = [list(ask.prompt) for ask in asks]
            said = [model.generate(text, max_tokens=TOKENS).text for text in PROMPTS]
            words = speaker._engine.spelling
            spelled = [b"".join(words[token] for token in row).decode(errors="ignore") for row in other.turn(ids)[1]]
            assert said == spelled, "the two say different things"
            print(f"{'tokens/s, SmolLM2-135M, float32':36}{'ours':>8}{'theirs':>8}{'ratio':>8}")
            for count in (1, 8):
                pairs = [(ours(model, PROMPTS[:count]), other.turn(ids[:count])[0]) for _ in range(ROUNDS)]
                mine, its = (count * TOKENS / statistics.median(pair[side] for pair in pairs) for side in (0, 1))
                ratio = statistics.median(b / a for a, b in pairs)
                print(f"{f'{count} conversation' + 's' * (count > 1):36}{mine:>8.1f}{its:>8.1f}{ratio:>8.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        peer(sys.argv[2])
    else:
        main()
