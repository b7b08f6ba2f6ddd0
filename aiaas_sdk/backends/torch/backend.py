"""The backend of `torch:` addresses."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from aiaas_sdk import bundle
from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.errors import AddressError, BundleError, ConfigError, UnsupportedOperationError
from aiaas_sdk.flow import Flow, run
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Embedded, Spoken
from aiaas_sdk.records.explanation import Explained, Question
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.training import Event, Fit
from aiaas_sdk.rows import Data
from aiaas_sdk.tensors import Tensor, datatype_of, storage

if TYPE_CHECKING:
    import torch

    from aiaas_sdk.backends.torch.embedding import Encoder
    from aiaas_sdk.backends.torch.explanation import Explainer
    from aiaas_sdk.backends.torch.generation import LanguageModel

_DEVICE = re.compile(r"cpu|cuda(:\d+)?|mps")
DTYPES = ("float16", "bfloat16", "float32", "float64")
SPEAKING = frozenset(("generate", "stream"))
LANGUAGE = {"generate": SPEAKING, "embed": frozenset(("embed",))}
"""The verbs of a language model, by its task."""


class TorchBackend(LocalBackend):
    """One version of a bundle, opened once: on its device, in eval mode, under `torch.inference_mode`."""

    scheme = "torch"
    options_taken: ClassVar[frozenset[str]] = frozenset(("device", "dtype", "verify", "architecture"))

    def prepare(self) -> None:
        if not self.address.target:
            raise AddressError(f"{self.address} names no folder", hint="Write torch:PATH or torch:PATH@VERSION")
        device, dtype = self.options.get("device"), self.options.get("dtype")
        if device is not None and not (isinstance(device, str) and _DEVICE.fullmatch(device)):
            raise ConfigError(f"device is {device!r}", hint='Give "cpu", "cuda", "cuda:1" or "mps"')
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(f"dtype is {dtype!r}", hint=f"One of {', '.join(DTYPES)}")
        self._trust = bundle.Trust.of(self.options.get("verify", True))
        self._located = bundle.locate(Path(self.address.target), self.address.version)
        self._manifest = bundle.peek(self._located)
        language = self._manifest.language
        self._verbs = frozenset(("predict",)) | (LANGUAGE[language.task] if language else frozenset())
        if self._manifest.program is None or "architecture" in self.options:
            self._verbs |= {"fit"}
        if dtype and self._manifest.program and "architecture" not in self.options and dtype != self._manifest.dtype:
            raise UnsupportedOperationError(
                f"{self.address} was saved as a program, whose dtype is {self._manifest.dtype}",
                hint="Leave dtype= out, or give the class: load(..., architecture=...)",
            )

    def verbs(self) -> frozenset[str]:  # type: ignore[override]  # of this model, which its manifest tells
        return self._verbs

    def unsupported(self, verb: str) -> UnsupportedOperationError:
        refusal = super().unsupported(verb)
        if verb == "fit" and self._manifest.program is not None:
            refusal.hint = (
                f"{refusal.hint}. It was saved as a program, which can't be trained: give its class, "
                "load(..., architecture=CLASS), or register that with @aiaas.architecture and save it again"
            )
        return refusal

    # ------------------------------------------------------------ opening
    def open(self) -> ModelInfo:
        import torch

        _settle(torch)
        device = self._device()
        self._inference = torch.inference_mode
        self._to = None if device.type == "cpu" else device
        cls = self.options.get("architecture")
        found = bundle.read(self._located, self._trust, program=cls is None)
        manifest = found.manifest
        where = f"{manifest.name}@{manifest.version}"
        self._forward = self._built(found, device, where)
        if (module := getattr(self._forward, "module", None)) is not None and not list(module.parameters()):
            self._verbs -= {"fit"}
        self._speaker, self._encoder = self._language(found, device, where)
        self._inputs = [tensor.name for tensor in manifest.inputs]
        self._outputs = {tensor.name: tensor.datatype for tensor in manifest.outputs}
        dtype = self.options.get("dtype") or manifest.dtype
        self._cast = getattr(torch, dtype) if self.options.get("dtype") not in (None, manifest.dtype) else None
        self._info = ModelInfo(
            name=manifest.name,
            version=manifest.version,
            versions=self._located.versions,
            inputs=tuple(tensor.spec() for tensor in manifest.inputs),
            outputs=tuple(tensor.spec() for tensor in manifest.outputs),
            verbs=self.verbs(),
            labels=None if manifest.labels is None else tuple(manifest.labels),
            platform="pytorch_module" if found.program is None else "pytorch_exported",
            device=str(device),
            metadata={
                **manifest.metadata,
                "digest": found.digest,
                "parameters": found.numbers,
                "size": found.size,
                **({"signed_by": found.signed_by} if found.signed_by else {}),
                "dtype": dtype,
                "precision": _precision(torch, device),
                "created": manifest.created,
                "lineage": dict(manifest.lineage),
                **({"architecture": manifest.architecture.name} if manifest.architecture else {}),
                **({"context": manifest.language.context} if manifest.language else {}),
            },
        )
        return self._info

    def _device(self) -> torch.device:
        import torch

        device = torch.device(self.options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda":
            if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
                raise ConfigError(f"device is {device}, and this machine has no such GPU", hint='Give device="cpu"')
            device = torch.device("cuda", device.index or 0)
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise ConfigError("device is mps, and this machine has none", hint='Give device="cpu"')
        return device

    def _built(self, found: bundle.Bundle, device: torch.device, where: str) -> Callable[..., Any]:
        from aiaas_sdk.backends.torch import layout, programs, rebuilding, weights

        state = weights.from_bytes(found.weights)
        manifest = found.manifest
        if found.program is not None:
            program = programs.restore(found.program, state, where)
            return programs.flat(
                layout.with_channels_last(program) if device.type == "cpu" else programs.moved(program, device)
            )
        from aiaas_sdk.architectures import class_of

        cls = self.options.get("architecture") or class_of(manifest.architecture.name if manifest.architecture else "")
        config = manifest.architecture.config if manifest.architecture else {}
        dtype = "" if "+" in manifest.dtype else manifest.dtype
        module = rebuilding.rebuild(cls, config, state, dtype, where).requires_grad_(False).to(device)
        if wanted := self.options.get("dtype"):
            module = module.to(getattr(sys.modules["torch"], wanted))
        module = layout.channels_last(module)
        return _Eager(module, [tensor.name for tensor in manifest.inputs], [t.name for t in manifest.outputs])

    def _language(
        self, found: bundle.Bundle, device: torch.device, where: str
    ) -> tuple[LanguageModel | None, Encoder | None]:
        """What speaks or embeds, where the bundle is a language model's."""
        language, module = found.manifest.language, getattr(self._forward, "module", None)
        if language is None or module is None:
            return None, None
        from aiaas_sdk.backends.torch.embedding import Encoder
        from aiaas_sdk.backends.torch.generation import LanguageModel

        task, context = getattr(module, "task", None), getattr(module, "context", 0)
        if language.task != task or language.context > context:
            raise BundleError(
                f"{where} says that it can {language.task} texts of {language.context} tokens; its architecture says "
                f"{task or 'neither'}, {context}"
            )
        if language.task == "embed":
            return None, Encoder(language, found.beside, module, device, where)
        return LanguageModel(language, found.beside, module, device, where, self._told), None

    # ------------------------------------------------------------ language
    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        """Answers don't take turns in the model's slots: its engine advances all of them together."""
        if call.verb not in self._verbs and call.verb != "explain":  # which its signature decides
            raise self.unsupported(call.verb)
        return self._speaking(call, *arguments) if call.verb in SPEAKING else super().start(call, *arguments)

    def _speaking(self, call: Call, chat: Chat) -> Flow[Spoken]:
        assert self._speaker is not None
        work = partial(self._guarded, partial(self._speaker.ask, chat, streaming=call.verb == "stream"))
        ask = yield from run(work, self._threads)
        return (yield from self._speaker.speak(call, ask))

    def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        assert self._encoder is not None
        return self._encoder.embed(texts, dimensions)

    # ------------------------------------------------------------ explain
    def lacks(self, method: str) -> str | None:
        return self._explainer().lacks(method)

    def explain(self, question: Question) -> Explained:
        """Attributions by gradients or by attention."""
        return self._explainer().explain(question)

    def _explainer(self) -> Explainer:
        from aiaas_sdk.backends.torch.explanation import Explainer
        from aiaas_sdk.backends.torch.explanation_scores import Texts

        language, speaks = self._manifest.language, self._speaker or self._encoder
        texts = None
        if language is not None and speaks is not None:
            texts = Texts(speaks.tokenizer, language.task, language.context, self._device())
        return Explainer(
            info=self._info,
            program=self._forward,
            module=getattr(self._forward, "module", None),
            called=lambda module, names: _Eager(module, names, list(self._outputs)),
            ready=self._ready,
            texts=texts,
        )

    # ------------------------------------------------------------ fit
    def fit(self, fit: Fit, data: Data, told: Callable[[Event], None], stopped: Callable[[], bool]) -> str | None:
        """Train a copy, read anew from the version that this is; this model goes on as it was."""
        from aiaas_sdk.architectures import class_of
        from aiaas_sdk.backends.torch.training.running import Parent, train

        own = self.options.get("architecture")
        found = bundle.read(self._located, self._trust, program=False)
        described = found.manifest.architecture
        parent = Parent(
            path=Path(self.address.target),
            found=found,
            info=self._info,
            cls=own or class_of(described.name if described else ""),
            registered=found.manifest.program is None,
            device=self._device(),
        )
        return train(parent, fit, data, told, stopped)

    def _free_slots(self) -> None:
        super()._free_slots()
        if (loaded := sys.modules.get("torch")) is not None:
            _settle(loaded)

    # ------------------------------------------------------------ predict
    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        with self._inference():
            given = [self._ready(inputs[name]) for name in self._inputs]
            answer = dict(zip(self._outputs, self._forward(*given), strict=True))
            return {name: self._given(name, answer[name]) for name in outputs or answer}

    def _ready(self, tensor: Tensor) -> torch.Tensor:
        loaded: Any = sys.modules["torch"]
        value: Any = tensor.array
        if not isinstance(value, loaded.Tensor):
            value = _from_numpy(loaded, tensor)
        if self._to is not None or value.device.type != "cpu":
            value = value.to(self._to or "cpu", non_blocking=False)
        if self._cast is not None and value.is_floating_point():
            value = value.to(self._cast)
        return value  # type: ignore[no-any-return]

    def _given(self, name: str, value: torch.Tensor) -> Tensor:
        datatype = self._outputs[name]
        if self._cast is not None and value.is_floating_point() and datatype_of(value) != datatype:
            value = value.to(getattr(sys.modules["torch"], _TORCH[datatype]))
        return Tensor(datatype, value)

    def close(self) -> None:
        super().close()
        if (speaker := getattr(self, "_speaker", None)) is not None:
            speaker.close()
        for name in ("_forward", "_speaker", "_encoder"):
            self.__dict__.pop(name, None)


_TORCH = {"FP16": "float16", "BF16": "bfloat16", "FP32": "float32", "FP64": "float64"}


_home = os.getpid()


def _settle(torch: Any) -> None:
    """In a child process one thread computes: the parent's are gone, and OpenMP would wait for them for ever."""
    global _home
    if _home != os.getpid():
        _home = os.getpid()
        torch.set_num_threads(1)


class _Eager:
    """A module called with tensors in the signature's order, answering with them in the signature's order."""

    def __init__(self, module: torch.nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        from aiaas_sdk.backends.torch.probing import flat_outputs
        from aiaas_sdk.backends.torch.programs import call

        self.module, self._inputs, self._outputs = module, inputs, outputs
        self._call, self._flat = call, flat_outputs

    def __call__(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        found = self._flat(self._call(self.module, self._inputs, tensors))
        if len(self._outputs) == 1 and len(found) == 1:
            return list(found.values())
        return [found[name] for name in self._outputs]


def _from_numpy(torch: Any, tensor: Tensor) -> torch.Tensor:
    array = tensor.array if type(tensor.array) is np.ndarray else storage(tensor)
    # torch has no read-only tensors, and a module may write into its input; it has no negative strides either
    if not array.flags.writeable or (not array.flags.c_contiguous and min(array.strides) < 0):
        array = array.copy()
    if tensor.datatype == "BF16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)  # type: ignore[no-any-return]
    return torch.from_numpy(array)  # type: ignore[no-any-return]


def _precision(torch: Any, device: torch.device) -> Mapping[str, Any]:
    """The switches that make equal weights give other numbers."""
    found = {"float32_matmul": torch.get_float32_matmul_precision()}
    if device.type == "cuda":
        found |= {"cudnn_allow_tf32": torch.backends.cudnn.allow_tf32, "gpu": torch.cuda.get_device_name(device)}
    return found
