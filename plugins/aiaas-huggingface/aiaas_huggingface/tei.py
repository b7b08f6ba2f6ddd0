"""text-embeddings-inference: `POST /embed`, `/predict` and `/rerank` (its docs/openapi.json).

A model does one of the three, as `model_type` of its `/info` says. A request takes `max_client_batch_size` texts at
most, so more of them travel in several requests, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from aiaas_huggingface.door import Door
from aiaas_huggingface.texts import floats, matrix, texts_of
from aiaas_sdk.errors import ProtocolError, UnsupportedOperationError
from aiaas_sdk.flow import Flow
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Embedded
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Tensor

__all__ = ["Classifier", "Embedder", "Reranker", "tei"]

BATCH = 32
"""Texts of a request where the server tells no limit: its default."""
KEPT = ("model_dtype", "max_input_length", "max_batch_tokens", "max_client_batch_size", "auto_truncate", "version")


class Tei:
    """What the three share."""

    verbs: ClassVar[frozenset[str]]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    labels: tuple[str, ...] | None = None

    def __init__(self, door: Door, told: Mapping[str, Any]) -> None:
        self._door = door
        size = told.get("max_client_batch_size")
        self._size = size if type(size) is int and size > 0 else BATCH

    def info(self, told: Mapping[str, Any]) -> ModelInfo:
        kept = {name.removeprefix("model_"): told[name] for name in KEPT if name in told}
        (kind, about), *_ = told["model_type"].items()
        pooling = about.get("pooling") if isinstance(about, dict) else None
        return ModelInfo(
            name=str(told["model_id"]),
            version=told["model_sha"] if isinstance(told.get("model_sha"), str) else None,
            inputs=self.inputs,
            outputs=self.outputs,
            verbs=self.verbs,
            labels=self.labels,
            platform="text-embeddings-inference",
            metadata={"type": kind, **kept, **({"pooling": pooling} if pooling else {})},
        )

    def _batches(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        return (items[first : first + self._size] for first in range(0, len(items), self._size))


def tei(door: Door, told: Mapping[str, Any]) -> Embedder | Classifier | Reranker:
    """What serves a model of this `/info`.

    Raises:
        UnsupportedOperationError: it is of a type that isn't known here.
    """
    kinds = told["model_type"]
    for name, kind in (("embedding", Embedder), ("classifier", Classifier), ("reranker", Reranker)):
        if name in kinds:
            return kind(door, told)
    raise UnsupportedOperationError(f"the endpoint has a model of the type {', '.join(map(str, kinds))[:100]}")


class Embedder(Tei):
    """Texts as vectors."""

    verbs = frozenset(("embed",))

    def embed(self, call: Call, texts: Sequence[str], dimensions: int | None) -> Flow[Embedded]:
        wanted = {} if dimensions is None else {"dimensions": dimensions}
        found, tokens = [], 0
        for some in self._batches(texts):
            answer, headers = yield from self._door.ask(call, "/embed", {"inputs": list(some), **wanted})
            found.append(matrix(answer, len(some)))
            told = headers.get("x-compute-tokens", "")
            tokens += int(told) if told.isdecimal() else 0
        array = np.concatenate(found)
        if dimensions is not None and array.shape[1] != dimensions:
            raise UnsupportedOperationError(
                f"the endpoint gave vectors of {array.shape[1]} dimensions, though {dimensions} were asked for",
                hint="Leave dimensions= out",
            )
        return Embedded(array, tokens or None)


class Classifier(Tei):
    """Texts to the probabilities of their classes."""

    verbs = frozenset(("predict",))
    inputs = (TensorSpec("text", "BYTES", (-1,)),)

    def __init__(self, door: Door, told: Mapping[str, Any]) -> None:
        super().__init__(door, told)
        self.labels = _labels(told["model_type"]["classifier"])
        self.outputs = (TensorSpec("probabilities", "FP32", (-1, len(self.labels))),)

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        assert self.labels is not None
        texts, rows = texts_of(inputs["text"], "text"), []
        for some in self._batches(texts):
            # a list of texts would be a pair; each in a list of its own is a batch
            answer, _ = yield from self._door.ask(call, "/predict", {"inputs": [[text] for text in some]})
            if not isinstance(answer, list) or len(answer) != len(some):
                raise ProtocolError(f"the answer isn't one for each of {len(some)} texts")
            rows += [_scores(row, self.labels) for row in answer]
        return {"probabilities": floats(rows, (len(texts), len(self.labels)), "the answer") if rows else self._none()}

    def _none(self) -> Tensor:
        return Tensor("FP32", np.empty((0, len(self.labels or ())), np.float32))


class Reranker(Tei):
    """How well texts answer a query: a row is a pair of them. Rows of one query travel together."""

    verbs = frozenset(("predict",))
    inputs = (TensorSpec("query", "BYTES", (-1,)), TensorSpec("text", "BYTES", (-1,)))
    outputs = (TensorSpec("score", "FP32", (-1,)),)

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        texts = texts_of(inputs["text"], "text")
        places: dict[str, list[int]] = {}
        for place, query in enumerate(texts_of(inputs["query"], "query")):
            places.setdefault(query, []).append(place)
        scores = np.empty(len(texts), np.float32)
        for query, own in places.items():
            for some in self._batches(own):
                asked = {"query": query, "texts": [texts[place] for place in some]}
                answer, _ = yield from self._door.ask(call, "/rerank", asked)
                scores[list(some)] = _ranked(answer, len(some))
        return {"score": Tensor("FP32", scores)}


def _labels(about: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        found = {int(place): str(label) for place, label in about["id2label"].items()}
        return tuple(found[place] for place in range(len(found)))
    except (KeyError, ValueError, AttributeError, TypeError):
        raise ProtocolError("the endpoint's /info has no classes numbered from 0") from None


def _scores(row: Any, labels: Sequence[str]) -> list[Any]:
    """In the order of the labels; they come best first."""
    try:
        found = {entry["label"]: entry["score"] for entry in row}
        return [found[label] for label in labels]
    except (KeyError, TypeError):
        raise ProtocolError("the answer doesn't have a score for each class that /info names") from None


def _ranked(answer: Any, count: int) -> Any:
    """In the order of the texts; they come best first."""
    try:
        found = {entry["index"]: entry["score"] for entry in answer}
        values = [found[place] for place in range(count)]
    except (KeyError, TypeError):
        raise ProtocolError(f"the answer doesn't have a score for each of {count} texts") from None
    return floats(values, (count,), "the answer").array
