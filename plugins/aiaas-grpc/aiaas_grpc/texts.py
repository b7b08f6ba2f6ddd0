"""Models that take text and give text: which they are, how a question becomes tensors, and responses text.

The names are those of Triton's own backends: `text_input`, `stream`, `sampling_parameters` and the counts of
triton-inference-server/vllm_backend (`src/model.py`, `src/utils/request.py`), the single parameters of
triton-inference-server/tensorrtllm_backend (`all_models/inflight_batcher_llm/ensemble/config.pbtxt`), and
`text_input`, `text_output` of the generate extension (Triton's `docs/protocol/extension_generate.md`).
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiaas_sdk.errors import ProtocolError, UnsupportedOperationError
from aiaas_sdk.records.chat import Chat, Choice, Spoken
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import DATATYPES, Tensor

__all__ = [
    "COUNTED",
    "FINISH",
    "KNOWN_VERBS",
    "READ",
    "SAMPLING",
    "SPEAKING_INPUTS",
    "SPEAKING_OUTPUTS",
    "STREAM",
    "TEXT_INPUT",
    "TEXT_OUTPUT",
    "Answer",
    "TextForm",
]

TEXT_INPUT, TEXT_OUTPUT, STREAM, SAMPLING = "text_input", "text_output", "stream", "sampling_parameters"
FINISH, READ, COUNTED = "finish_reason", "num_input_tokens", "num_output_tokens"
KNOWN_VERBS = "verbs"
"""The parameter of a model's metadata that lists its verbs: our server's addition."""
PROMPTS = (TEXT_INPUT, "prompt")
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p", "runtime_top_p"),
    "top_k": ("top_k", "runtime_top_k"),
    "max_tokens": ("max_tokens", "max_new_tokens", "request_output_len"),
    "stop": ("stop", "stop_words"),
    "seed": ("seed", "random_seed"),
}
"""An option of `generate` -> the inputs that mean it. Others (`n`, `logprobs`) no response has a place for."""
ALWAYS = ("exclude_input_in_output", "return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")
"""Inputs of BOOL that are true where the model has them: the prompt isn't said again, and what is known is told."""
SPEAKING_INPUTS = (
    TensorSpec(TEXT_INPUT, "BYTES", (1,)),
    TensorSpec(STREAM, "BOOL", (1,)),
    TensorSpec(SAMPLING, "BYTES", (1,)),
)
SPEAKING_OUTPUTS = (
    TensorSpec(TEXT_OUTPUT, "BYTES", (1,)),
    TensorSpec(FINISH, "BYTES", (1,)),
    TensorSpec(READ, "UINT32", (1,)),
    TensorSpec(COUNTED, "UINT32", (1,)),
)
"""What `aiaas serve` takes and gives for a language model."""
CHAT = "Messages, tools and output= go over HTTP, to an endpoint at openai+https://HOST/v1"


class TextForm:
    """How one model is asked for text.

    Args:
        specs: its inputs.
        outputs: the names of its outputs.
    """

    def __init__(self, specs: Sequence[TensorSpec], outputs: Sequence[str]) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._prompt = next(name for name in PROMPTS if name in self._specs)
        self.outputs = tuple(name for name in (TEXT_OUTPUT, FINISH, READ, COUNTED) if name in outputs)

    @classmethod
    def of(cls, info: ModelInfo) -> TextForm | None:
        """The form of a model with this signature; None where it isn't one of text."""
        inputs = {spec.name: spec for spec in info.inputs}
        prompt = next((inputs[name] for name in PROMPTS if name in inputs), None)
        spoken = next((spec for spec in info.outputs if spec.name == TEXT_OUTPUT), None)
        if prompt is None or spoken is None or not (_of_one_text(prompt) and _of_one_text(spoken)):
            return None
        return cls(info.inputs, [spec.name for spec in info.outputs])

    def asked(self, chat: Chat, *, streamed: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The inputs and the parameters of a request.

        Raises:
            UnsupportedOperationError: it is messages, wants tools or a schema, or an option that there is no place for.
        """
        if chat.text is None or chat.tools or chat.schema is not None:
            raise UnsupportedOperationError("this model continues a text, and that is all", hint=CHAT)
        given: dict[str, Any] = {self._prompt: chat.text}
        if STREAM in self._specs:
            given[STREAM] = streamed
        given |= {name: True for name in ALWAYS if name in self._specs and self._specs[name].datatype == "BOOL"}
        others: dict[str, Any] = {}
        for option, value in chat.sampling.items():
            found = next((name for name in self._inputs_of(option, value) if name in self._specs), None)
            (others if found is None else given)[found or option] = value
        if SAMPLING in self._specs:
            given[SAMPLING] = json.dumps(others)
            others = {}
        return {name: _tensor(self._specs[name], value) for name, value in given.items()}, others

    @staticmethod
    def _inputs_of(option: str, value: Any) -> Sequence[str]:
        if option not in OPTIONS and (option, value) != ("n", 1):
            raise UnsupportedOperationError(f"over gRPC a model of text can't take the option {option!r}")
        return OPTIONS.get(option, ())


def _of_one_text(spec: TensorSpec) -> bool:
    return spec.datatype == "BYTES" and 1 <= len(spec.shape) <= 3 and all(size in (1, -1) for size in spec.shape)


def _tensor(spec: TensorSpec, value: Any) -> Tensor:
    """The value in the shape of its input, free sizes being one, and the last one the number of texts."""
    values = value if isinstance(value, tuple | list) else (value,)
    if spec.datatype == "BYTES":
        flat = np.array([str(one).encode() for one in values], object)
    else:
        flat = np.array(values, DATATYPES[spec.datatype])
    return Tensor(spec.datatype, flat.reshape([1] * (len(spec.shape) - 1) + [-1]))


# ---------------------------------------------------------------- responses
class Answer:
    """The text that a model's responses make, one after the other."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be cut in two
        self._reason = "unknown"
        self._read: int | None = None
        self._counted: int | None = None

    @property
    def text(self) -> str:
        """All that has come."""
        return "".join(self._texts)

    def take(self, outputs: Mapping[str, Tensor]) -> str:
        """The text that a response brings.

        Raises:
            ProtocolError: it isn't one text.
        """
        shown = self._decoder.decode(b"".join(_values(outputs, TEXT_OUTPUT)))
        if found := _values(outputs, FINISH):
            told = found[0].decode("utf-8", "replace")
            self._reason = self._reason if told in ("", "None") else told  # vLLM's before the end
        if found := _values(outputs, READ):
            self._read = int(found[0])
        if found := _values(outputs, COUNTED):  # those of this response
            self._counted = (self._counted or 0) + int(found[0])
        return self._shown(shown)

    def rest(self) -> str:
        """The text of a character that was cut and never completed."""
        return self._shown(self._decoder.decode(b"", True))

    def _shown(self, text: str) -> str:
        self._texts.append(text)
        return text

    def spoken(self) -> Spoken:
        """The whole."""
        return Spoken((Choice(self.text, self._reason),), self._read, self._counted)


def _values(outputs: Mapping[str, Tensor], name: str) -> list[Any]:
    tensor = outputs.get(name)
    if tensor is None:
        return []
    values = tensor.array.ravel().tolist()
    if len(values) > 1:
        raise ProtocolError(f"the output {name!r} has {len(values)} elements in one response, where one text belongs")
    return list(values)
