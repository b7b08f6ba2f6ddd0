"""Endpoints for the tests.

TGI and TEI are Rust programs with weights to download, and can't run here. `stand_in` answers in their shapes, with
their limits and their words where these are broken (TGI router/src/validation.rs, TEI router/src/http); how true it is
of them can be seen in test_witness.py, where Hugging Face's own client talks to it. `pipelines` are transformers' own.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from aiaas_sdk.testing.processes import answers, free_port, server_process

LIMIT = 512
"""Tokens of a prompt and its answer."""


# ---------------------------------------------------------------- TGI
TGI_INFO = {
    "model_id": "bigscience/bloom-560m",
    "model_sha": "e985a63cdc139290c5f700ff1929f0b5942cced2",
    "model_pipeline_tag": "text-generation",
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_stop_sequences": 4,
    "max_input_tokens": 384,
    "max_total_tokens": LIMIT,
    "validation_workers": 2,
    "max_client_batch_size": 4,
    "router": "text-generation-router",
    "version": "3.3.6",
    "sha": None,
    "docker_label": None,
}


def fault_of(prompt: str, given: dict[str, Any]) -> str | None:
    """What TGI says of parameters that it doesn't take."""
    tokens, limit = len(prompt.split()), given.get("max_new_tokens", 32)
    if given.get("temperature", 1) <= 0:
        return "`temperature` must be strictly positive"
    if not 0 < given.get("top_p", 0.5) < 1:
        return "`top_p` must be > 0.0 and < 1.0"
    if given.get("top_k", 1) <= 0:
        return "`top_k` must be strictly positive"
    if len(given.get("stop", ())) > 4:
        return f"`stop` supports up to 4 stop sequences. Given: {len(given['stop'])}"
    if not prompt:
        return "`inputs` cannot be empty"
    if tokens + limit > LIMIT:
        return (
            f"`inputs` tokens + `max_new_tokens` must be <= {LIMIT}. "
            f"Given: {tokens} `inputs` tokens and {limit} `max_new_tokens`"
        )
    return None


def written(prompt: str, given: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The tokens of an answer, the prompt's words once more, and why it ends."""
    words = prompt.split()
    if given.get("do_sample"):
        random.Random(given.get("seed")).shuffle(words)
    tokens, text = [], ""
    for place, word in enumerate([*words, "</s>"]):
        end = word == "</s>"
        token = {"id": place, "text": word if end else f" {word}", "logprob": -0.5 * place, "special": end}
        tokens.append(token)
        if end:
            return tokens, "eos_token"
        text += token["text"]
        if any(re.search(f"{re.escape(stop)}$", text) for stop in given.get("stop", ())):
            return tokens, "stop_sequence"
        if len(tokens) == given.get("max_new_tokens", 32):
            return tokens, "length"
    raise AssertionError


def likeliest(token: dict[str, Any], count: int) -> list[dict[str, Any]]:
    return [{**token, "text": f"{token['text']}{place or ''}", "logprob": -1.0 * place} for place in range(count)]


async def generate(request: Request) -> Response:
    """`/generate`, `/generate_stream`, and `/`, where `stream` tells which is meant and the whole comes in a list."""
    asked = await request.json()
    prompt, given = asked["inputs"], {k: v for k, v in asked.get("parameters", {}).items() if v is not None}
    compatible = not request.url.path.endswith(("/generate", "_stream"))
    if (fault := fault_of(prompt, given)) is not None:
        said = {"error": f"Input validation error: {fault}", "error_type": "validation"}
        return JSONResponse(said, 422)
    if prompt == "fail":
        return JSONResponse({"error": "Request failed during generation: CUDA", "error_type": "generation"}, 424)
    tokens, reason = written(prompt, given)
    text = "".join(token["text"] for token in tokens if not token["special"])
    if request.url.path.endswith("_stream") or (compatible and asked.get("stream")):
        return StreamingResponse(events(prompt, given, tokens, text, reason), media_type="text/event-stream")
    if given.get("return_full_text"):
        text = prompt + text
    details = {
        "finish_reason": reason,
        "generated_tokens": len(tokens),
        "seed": given.get("seed"),
        "prefill": [],
        "tokens": tokens,
    }
    if count := given.get("top_n_tokens"):
        details["top_tokens"] = [likeliest(token, count) for token in tokens]
    headers = {"x-prompt-tokens": str(len(prompt.split())), "x-queue-time": "2", "x-inference-time": "40"}
    whole = {"generated_text": text} | ({"details": details} if given.get("details") else {})
    return JSONResponse([whole] if compatible else whole, headers=headers)


async def events(prompt: str, given: dict[str, Any], tokens: Any, text: str, reason: str) -> AsyncIterator[bytes]:
    for place, token in enumerate(tokens):
        last = token is tokens[-1]
        event: dict[str, Any] = {"index": place + 1, "token": token, "generated_text": None, "details": None}
        if count := given.get("top_n_tokens"):
            event["top_tokens"] = likeliest(token, count)
        if last:
            event["generated_text"] = text
            event["details"] = {
                "finish_reason": reason,
                "generated_tokens": len(tokens),
                "seed": given.get("seed"),
                "input_length": len(prompt.split()),
            }
        if "overload" in token["text"]:
            event = {"error": "Model is overloaded", "error_type": "overloaded"}
        if "vanish" in token["text"]:
            return
        # old servers leave the blank out
        yield b"data:%s\n\n" % json.dumps(event).encode() if place % 2 else b"data: %s\n\n" % json.dumps(event).encode()


# ---------------------------------------------------------------- TEI
BATCH = 4
LABELS = {"0": "sadness", "1": "joy", "2": "fear"}


def tei_info(kind: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_id": "thenlper/gte-base",
        "model_sha": "fca14538aa9956a46526bd1d0d11d69e19b5a101",
        "model_dtype": "float16",
        "served_model_name": "thenlper/gte-base",
        "model_type": kind,
        "max_concurrent_requests": 512,
        "max_input_length": 16,
        "max_batch_tokens": 16384,
        "max_batch_requests": None,
        "max_client_batch_size": BATCH,
        "auto_truncate": False,
        "tokenization_workers": 4,
        "version": "1.8.0",
    }


def refused(texts: list[str]) -> Response | None:
    if not texts:
        return JSONResponse({"error": "`inputs` cannot be empty", "error_type": "Empty"}, 400)
    if len(texts) > BATCH:
        said = f"batch size {len(texts)} > maximum allowed batch size {BATCH}"
        return JSONResponse({"error": said, "error_type": "Validation"}, 422)
    if any("fail" in text for text in texts):
        return JSONResponse({"error": "CUDA error", "error_type": "Backend"}, 424)
    longest = max(len(text.split()) for text in texts)
    if longest > 16:
        said = f"`inputs` must have less than 16 tokens. Given: {longest}"
        return JSONResponse({"error": said, "error_type": "Validation"}, 413)
    return None


def letters(text: str) -> list[float]:
    return [round(text.count(letter) / len(text), 6) if text else 0.0 for letter in "abcdefgh"]


async def embed(request: Request) -> Response:
    asked = await request.json()
    texts = [asked["inputs"]] if isinstance(asked["inputs"], str) else asked["inputs"]
    tokens = {"x-compute-tokens": str(sum(len(text.split()) + 2 for text in texts))}
    return refused(texts) or JSONResponse([letters(text)[: asked.get("dimensions")] for text in texts], headers=tokens)


def classes(text: str) -> list[dict[str, Any]]:
    """Probabilities, best first."""
    counts = {label: text.count(label[0]) + 1 for label in LABELS.values()}
    rows = [{"score": count / sum(counts.values()), "label": label} for label, count in counts.items()]
    return sorted(rows, key=lambda row: -float(row["score"]))


async def classify(request: Request) -> Response:
    """Of one text its classes; of a list of lists of one text each a list of them."""
    inputs = (await request.json())["inputs"]
    if isinstance(inputs, str):
        return refused([inputs]) or JSONResponse(classes(inputs))
    texts = [text for (text,) in inputs]
    return refused(texts) or JSONResponse([classes(text) for text in texts])


async def rerank(request: Request) -> Response:
    asked = await request.json()
    ranks = [
        {"index": place, "score": len({*asked["query"].split()} & {*text.split()}) / (1 + len(text))}
        for place, text in enumerate(asked["texts"])
    ]
    return refused(asked["texts"]) or JSONResponse(sorted(ranks, key=lambda rank: -rank["score"]))


# ---------------------------------------------------------------- task JSON
async def sentences(request: Request) -> Response:
    """huggingface-inference-toolkit with a model of sentence-transformers: vectors, or a CrossEncoder's scores."""
    inputs = (await request.json())["inputs"]
    if isinstance(inputs[0], list):
        return JSONResponse({"scores": [float(len(text)) for _, text in inputs]})
    return JSONResponse({"embeddings": [letters(text) for text in inputs]})


async def loading(request: Request) -> Response:
    return JSONResponse({"error": "Model x is currently loading", "estimated_time": 0.2}, 503)


def answering(document: Any) -> Any:
    async def answer(request: Request) -> Response:
        return JSONResponse(document) if document is not None else Response("Ok")

    return answer


def mounted(name: str, info: Any, **posts: Any) -> Mount:
    """An endpoint: what it does is at its root, too, as TGI and TEI have it."""
    routes = [Route("/health", answering(None)), *(Route("/", act, methods=["POST"]) for act in [*posts.values()][:1])]
    if info is not None:
        routes.append(Route("/info", answering(info)))
    return Mount(f"/{name}", routes=routes + [Route(f"/{path}", act, methods=["POST"]) for path, act in posts.items()])


APP = Starlette(
    routes=[
        mounted("tgi", TGI_INFO, generate=generate, generate_stream=generate),
        mounted("embedder", tei_info({"embedding": {"pooling": "cls"}}), embed=embed),
        mounted("classifier", tei_info({"classifier": {"id2label": LABELS, "label2id": {}}}), predict=classify),
        mounted("reranker", tei_info({"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {}}}), rerank=rerank),
        mounted("other", None),
        mounted("newer", tei_info({"sparse": {}})),
        Mount("/sentences", routes=[Route("/health", answering(None)), Route("/", sentences, methods=["POST"])]),
        Route("/loading/info", loading),
        # Hugging Face's router has no /health, and the task in its path
        Route("/hf-inference/models/org/name/pipeline/sentence-embeddings", sentences, methods=["POST"]),
    ]
)


@pytest.fixture(scope="session")
def stand_in() -> Iterator[str]:
    """`huggingface+http://HOST:PORT` of what answers as TGI, TEI and others do, each below a path of its own."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(APP, host="127.0.0.1", port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    assert server.started
    yield f"huggingface+http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


PIPELINES = '''
"""transformers' pipelines at the routes of huggingface-inference-toolkit, which does no more than this."""
import sys


import torch
import transformers
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
made = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
made.add_special_tokens([AddedToken("<pad>", special=True), AddedToken("<end>", special=True)])
words = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")
sizes = dict(
    vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=256, pad_token_id=words.pad_token_id,
)
torch.manual_seed(0)
torch.set_num_threads(1)  # small models, and tests beside them
labels = {0: "bad", 1: "fair", 2: "good"}
bert = transformers.BertConfig(**sizes, id2label=labels)
llama = transformers.LlamaConfig(**sizes, num_key_value_heads=2, bos_token_id=None, eos_token_id=words.eos_token_id)
pipelines = {
    "text-classification": transformers.BertForSequenceClassification(bert),
    "feature-extraction": transformers.BertModel(bert),
    "text-generation": transformers.LlamaForCausalLM(llama),
}


def routes(task, model):
    pipeline = transformers.pipeline(task, model=model.eval(), tokenizer=words)

    async def answer(request):
        asked = await request.json()
        try:
            return JSONResponse(pipeline(asked["inputs"], **asked.get("parameters", {})))
        except Exception as error:
            return JSONResponse({"error": str(error)}, 400)

    return [Route("/", answer, methods=["POST"]), Route("/health", lambda request: PlainTextResponse("Ok"))]


mounts = [Mount(f"/{task}", routes=routes(task, model)) for task, model in pipelines.items()]
uvicorn.run(Starlette(routes=mounts), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", ws="none")
'''


@pytest.fixture(scope="session")
def pipelines(transformers_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`huggingface+http://HOST:PORT` of real pipelines, small and untrained, below the names of their tasks."""
    folder = tmp_path_factory.mktemp("pipelines")
    (folder / "server.py").write_text(PIPELINES)
    port = free_port()
    ready = answers(f"http://127.0.0.1:{port}/text-generation/health")
    with server_process([transformers_env, "server.py", str(port)], folder, ready):
        yield f"huggingface+http://127.0.0.1:{port}"
