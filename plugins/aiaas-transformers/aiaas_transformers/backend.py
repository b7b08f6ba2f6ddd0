"""The backend of `hf:` addresses. transformers is imported when a model is opened."""

from __future__ import annotations

import re
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.errors import ConfigError, StreamInterruptedError
from aiaas_sdk.flow import Emit, Flow, run, wait
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Embedded, Spoken
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.workers import Workers
from aiaas_transformers import places
from aiaas_transformers.jobs import Job

if TYPE_CHECKING:
    from aiaas_transformers.speaking import Ask

__all__ = ["TransformersBackend"]

DEVICE = re.compile(r"cpu|cuda(:\d+)?|mps")
DTYPES = ("float16", "bfloat16", "float32", "float64")
VERBS = {
    places.GENERATE: frozenset(("generate", "stream")),
    places.EMBED: frozenset(("embed",)),
    places.CLASSIFY: frozenset(("predict",)),
}


class TransformersBackend(LocalBackend):
    """One model of a folder or a GGUF file, opened once: in eval mode, under `torch.inference_mode`."""

    scheme = "hf"
    options_taken: ClassVar[frozenset[str]] = frozenset(("device", "dtype"))

    def prepare(self) -> None:
        device, dtype = self.options.get("device"), self.options.get("dtype")
        if device is not None and not DEVICE.fullmatch(device):
            raise ConfigError(f"device is {device!r}", hint='Give "cpu", "cuda", "cuda:1" or "mps"')
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(f"dtype is {dtype!r}", hint=f"One of {', '.join(DTYPES)}")
        self._place = places.find(self.address)

    def verbs(self) -> frozenset[str]:  # type: ignore[override]  # of this model, which its configuration tells
        return VERBS[self._place.task]

    # ------------------------------------------------------------ opening
    def open(self) -> ModelInfo:
        from aiaas_transformers import loading

        loading.settle()
        self._settle = loading.settle
        place = self._place
        device = loading.device_of(self.options.get("device"))
        tokenizer = loading.tokenizer_of(place)
        module = loading.model_of(place, device, self.options.get("dtype"))
        self._model = _made(place, module, tokenizer, device)
        self._generating = Workers(self._size, "aiaas-hf-generating")
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        model = self._model
        limit = getattr(model, "context", None) or getattr(model, "limit", None)
        return ModelInfo(
            name=place.name,
            inputs=getattr(model, "inputs", ()),
            outputs=getattr(model, "outputs", ()),
            verbs=self.verbs(),
            labels=getattr(model, "labels", None),
            platform="transformers_safetensors" if place.gguf is None else "transformers_gguf",
            device=str(device),
            metadata={
                "architecture": type(module).__name__,
                "dtype": str(module.dtype).removeprefix("torch."),
                "transformers": loading.transformers.__version__,
                **({} if limit is None else {"context": limit}),
            },
        )

    # ------------------------------------------------------------ generate, stream
    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        """Answers are generated in threads of their own, as many at once as `concurrency` says."""
        if call.verb not in self.verbs():
            raise self.unsupported(call.verb)
        return (
            self._speaking(call, *arguments) if call.verb in VERBS[places.GENERATE] else super().start(call, *arguments)
        )

    def at_once(self, call: Call, *arguments: Any) -> Any:
        if call.verb not in self.verbs():
            raise self.unsupported(call.verb)
        self._settle()
        return super().at_once(call, *arguments)

    def _speaking(self, call: Call, chat: Chat) -> Flow[Spoken]:
        job, streaming = Job(), call.verb == "stream"
        ask = yield from run(partial(self._guarded, self._model.ask, chat), self._threads)
        self._jobs.add(job)
        self._generating.submit(self._work, ask, job, streaming)
        said: list[str] = []
        try:
            while True:
                piece = yield from wait(job.next(), "the model", chat.gap if said else call.attempt_timeout)
                if isinstance(piece, Spoken):
                    return piece
                said.append(piece.text)
                yield Emit(piece)
        except Exception as error:
            if not said:
                raise
            raise StreamInterruptedError(
                f"the answer ended early: {error}", partial="".join(said), hint="What had come is in .partial"
            ) from error
        finally:
            job.leave()
            now = time.perf_counter()
            call.queue, call.compute = (job.begun or now) - job.asked, now - (job.begun or now)

    def _work(self, ask: Ask, job: Job, streaming: bool) -> None:
        if job.left:
            return
        self._settle()
        try:
            self._guarded(self._model.speak, ask, job, streaming)
        except BaseException as error:
            job.end(error)

    # ------------------------------------------------------------ embed, predict
    def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        found: Embedded = self._model.embed(texts, dimensions)
        return found

    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = self._model.predict(inputs)
        return found

    def close(self) -> None:
        super().close()
        for job in list(self.__dict__.get("_jobs", ())):
            job.leave()
        if (generating := self.__dict__.get("_generating")) is not None:
            generating.shutdown(wait=False)
        self.__dict__.pop("_model", None)


def _made(place: places.Place, module: Any, tokenizer: Any, device: Any) -> Any:
    """What does the work of this model's task."""
    if place.task == places.GENERATE:
        from aiaas_transformers.speaking import Speaker

        return Speaker(module, tokenizer, device)
    if place.task == places.EMBED:
        from aiaas_transformers.embedding import Encoder

        return Encoder(module, tokenizer, device, place.folder)
    from aiaas_transformers.classifying import Classifier

    return Classifier(module, tokenizer, device, place.folder)
