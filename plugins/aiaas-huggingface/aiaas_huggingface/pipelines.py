"""Task JSON: `{"inputs", "parameters"}` to one URL, which answers as the pipeline of the task does.

Sources: huggingface.js packages/tasks/src/tasks/*/spec, huggingface-inference-toolkit, transformers' pipelines. What
an endpoint serves can't be asked, so the address says it: `…/pipeline/TASK`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from aiaas_huggingface.door import Door
from aiaas_huggingface.sampling import drawn, prompt_of, refuse
from aiaas_huggingface.texts import floats, matrix, texts_of, words
from aiaas_sdk.errors import ProtocolError, UnsupportedOperationError
from aiaas_sdk.flow import Flow
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Choice, Embedded, Spoken
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor

__all__ = ["TASKS", "Pipeline"]

TEXT = TensorSpec("text", "BYTES", (-1,))


class Pipeline:
    """One task at one path."""

    verbs: ClassVar[frozenset[str]]
    inputs: ClassVar[tuple[TensorSpec, ...]] = ()
    outputs: ClassVar[tuple[TensorSpec, ...]] = ()

    def __init__(self, door: Door, task: str, path: str) -> None:
        self._door, self._task, self._path = door, task, path

    def _ask(self, call: Call, inputs: Any, parameters: Mapping[str, Any] | None = None) -> Flow[Any]:
        document = {"inputs": inputs, "parameters": parameters} if parameters else {"inputs": inputs}
        return (yield from self._door.ask(call, self._path, document))[0]


class Writing(Pipeline):
    """A text from a text. Why it ended isn't told, nor how many tokens it took."""

    verbs = frozenset(("generate",))
    taken: ClassVar[frozenset[str]] = frozenset(("temperature", "top_p", "top_k", "max_tokens"))
    members: ClassVar[Mapping[str, str]] = {"summarization": "summary_text", "translation": "translation_text"}

    def generate(self, call: Call, chat: Chat) -> Flow[Spoken]:
        refuse(chat, self.taken, f"an endpoint of {self._task}")
        parameters = drawn(chat.sampling)
        if "max_tokens" in chat.sampling:
            parameters["max_new_tokens"] = chat.sampling["max_tokens"]
        if self._task == "text-generation":
            parameters["return_full_text"] = False
        found = yield from self._ask(call, prompt_of(chat), parameters)
        while isinstance(found, list) and found:
            found = found[0]
        member = self.members.get(self._task, "generated_text")
        text = found.get(member) if isinstance(found, dict) else None
        if not isinstance(text, str):
            raise ProtocolError(f"the answer has no {member}; is the endpoint one of {self._task}")
        return Spoken((Choice(text, "unknown"),))


class Embedding(Pipeline):
    """Texts as vectors: `[[...]]`, or `{"embeddings": [[...]]}` as sentence-transformers has it."""

    verbs = frozenset(("embed",))

    def embed(self, call: Call, texts: Sequence[str], dimensions: int | None) -> Flow[Embedded]:
        if dimensions is not None:
            raise UnsupportedOperationError(f"an endpoint of {self._task} can't take dimensions", hint="Leave it out")
        found = yield from self._ask(call, list(texts))
        return Embedded(matrix(found.get("embeddings") if isinstance(found, dict) else found, len(texts)))


class Classifying(Pipeline):
    """Texts to labels and their scores, best first. Which labels there are isn't told before."""

    verbs = frozenset(("predict",))
    inputs = (TEXT,)
    outputs = (TensorSpec("label", "BYTES", (-1, -1)), TensorSpec("score", "FP32", (-1, -1)))

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        texts = texts_of(inputs["text"], "text")
        rows = _rows((yield from self._ask(call, texts, {"top_k": None})), len(texts)) if texts else []
        shape = (len(rows), len(rows[0]) if rows else 0)
        scores = [[score for _, score in row] for row in rows]
        found = {
            "label": words([[label for label, _ in row] for row in rows]),
            "score": floats(scores, shape, "the answer") if rows else Tensor("FP32", np.empty(shape, np.float32)),
        }
        return {name: found[name] for name in outputs or found}


class Ranking(Pipeline):
    """How well texts answer a query, a row each: pairs to `{"scores": [...]}` (a CrossEncoder)."""

    verbs = frozenset(("predict",))
    inputs = (TensorSpec("query", "BYTES", (-1,)), TEXT)
    outputs = (TensorSpec("score", "FP32", (-1,)),)

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        pairs = list(zip(texts_of(inputs["query"], "query"), texts_of(inputs["text"], "text"), strict=True))
        if not pairs:
            return {"score": Tensor("FP32", np.empty(0, np.float32))}
        found = yield from self._ask(call, pairs)
        scores = found.get("scores") if isinstance(found, dict) else None
        if not isinstance(scores, list) or len(scores) != len(pairs):
            raise ProtocolError(f"the answer has no score for each of {len(pairs)} pairs")
        return {"score": floats(scores, (len(pairs),), "the answer")}


def _rows(found: Any, count: int) -> list[list[tuple[str, Any]]]:
    """The labels of each text, from `[[{}, ...], ...]`, or from a flat list: of one text, or of one label each."""
    if isinstance(found, list) and found and all(isinstance(entry, dict) for entry in found):
        found = [found] if count == 1 else [[entry] for entry in found]
    try:
        rows = [[(str(entry["label"]), entry["score"]) for entry in row] for row in found]
    except (KeyError, TypeError):
        raise ProtocolError(
            "the answer has no labels with scores; is the endpoint one of text-classification"
        ) from None
    if len(rows) != count or len({len(row) for row in rows}) > 1:
        raise ProtocolError(f"the answer doesn't have the same labels for each of {count} texts")
    return rows


TASKS: Mapping[str, type[Pipeline]] = {
    "text-generation": Writing,
    "text2text-generation": Writing,
    "summarization": Writing,
    "translation": Writing,
    "feature-extraction": Embedding,
    "sentence-embeddings": Embedding,
    "text-classification": Classifying,
    "sentence-ranking": Ranking,
}
"""By the names that the hub has for them."""
