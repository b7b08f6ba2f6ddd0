"""The backend of `onnx:` addresses. onnxruntime is imported when a model is opened."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from aiaas_onnx import devices, places
from aiaas_sdk import bundle
from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.errors import BundleError
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Tensor, storage

if TYPE_CHECKING:
    from aiaas_onnx.reading import Loaded

__all__ = ["OnnxBackend"]


class OnnxBackend(LocalBackend):
    """One ONNX model in a session of onnxruntime. An ONNX file is data: it holds no code that could run."""

    scheme = "onnx"
    options_taken: ClassVar[frozenset[str]] = frozenset(("device", "verify"))

    def prepare(self) -> None:
        devices.check(self.options.get("device"))
        self._trust = bundle.Trust.of(self.options.get("verify", True))
        self._place = places.find(self.address)

    # ------------------------------------------------------------ opening
    def open(self) -> ModelInfo:
        from aiaas_onnx import reading, sessions, signatures
        from aiaas_onnx.runtime import onnxruntime

        self._provider = devices.provider(self.options.get("device"), onnxruntime.get_available_providers())
        loaded = reading.read(self._place, self._trust)
        session = sessions.begin(loaded, self._place, self._provider, self._size)
        where, graph = str(self._place.path), loaded.graph.graph
        inputs = signatures.inputs(session, graph, where)
        outputs = signatures.outputs(session, graph, where)
        self._check_manifest(inputs, outputs)
        signatures.check(inputs, outputs, where)
        self._digest, self._guard, self._owner = loaded.digest, threading.Lock(), os.getpid()
        self._session: Any = session
        self._datatypes = {spec.name: spec.datatype for spec in outputs}
        self._names = list(self._datatypes)
        self._plain = all(spec.datatype not in ("BYTES", "BF16") for spec in inputs + outputs)
        return self._told_of(loaded, inputs, outputs)

    def _told_of(self, loaded: Loaded, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelInfo:
        from aiaas_onnx import signatures

        place, manifest = self._place, self._place.manifest
        own = {entry.key: entry.value for entry in loaded.graph.metadata_props}
        told = manifest.labels if manifest is not None and manifest.labels is not None else signatures.labels(own)
        name, options = self._provider
        return ModelInfo(
            name=place.name,
            version=place.version,
            versions=place.versions,
            inputs=inputs,
            outputs=outputs,
            verbs=self.verbs(),
            labels=None if told is None else tuple(told),
            platform="onnxruntime_onnx",
            device="cpu" if name == devices.CPU else f"cuda:{options['device_id']}",
            metadata={
                **{key: value for key, value in own.items() if key not in signatures.LABELS},
                **(manifest.metadata if manifest is not None else {}),
                "digest": loaded.digest,
                **({"signed_by": loaded.signed_by} if loaded.signed_by else {}),
                "provider": name,
                "threads": devices.threads(self._size),
                "opset": {entry.domain or "ai.onnx": entry.version for entry in loaded.graph.opset_import},
                "producer": f"{loaded.graph.producer_name} {loaded.graph.producer_version}".strip(),
                **({"dtype": manifest.dtype, "lineage": dict(manifest.lineage)} if manifest is not None else {}),
            },
        )

    def _check_manifest(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        manifest = self._place.manifest
        if manifest is None:
            return
        said = [tensor.spec() for tensor in (*manifest.inputs, *manifest.outputs)]
        if said != [*inputs, *outputs]:
            raise BundleError(f"{self._place.path} takes or gives something else than its manifest says")

    # ------------------------------------------------------------ predict
    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        session = self._session if self._owner == os.getpid() else self._begun_again()
        names = list(outputs) if outputs else self._names
        if not self._plain:
            return self._predict_others(session, inputs, names)
        found = session.run(names, {name: storage(tensor) for name, tensor in inputs.items()})
        return {name: Tensor(self._datatypes[name], array) for name, array in zip(names, found, strict=True)}

    def _predict_others(self, session: Any, inputs: Mapping[str, Tensor], names: list[str]) -> Mapping[str, Tensor]:
        """With texts or BF16 among inputs or outputs, which numpy and onnxruntime don't share."""
        from aiaas_onnx import values

        kinds = [self._datatypes[name] for name in names]
        if "BF16" in kinds:
            found = session.run_with_ort_values(names, {name: values.to_value(t) for name, t in inputs.items()})
            back: Callable[[Any, str], Any] = values.from_value
        else:
            found = session.run(names, {name: values.to_array(name, tensor) for name, tensor in inputs.items()})
            back = values.from_array
        return {n: Tensor(kind, back(one, kind)) for n, kind, one in zip(names, kinds, found, strict=True)}

    def _begun_again(self) -> Any:
        """The session of a child process: the parent's threads aren't there, and its session would wait for them."""
        from aiaas_onnx import reading, sessions

        with self._guard:
            if self._owner != os.getpid():
                loaded = reading.read(self._place, self._trust)
                if loaded.digest != self._digest:
                    raise BundleError(
                        f"{self._place.path} was changed since the parent process opened it", hint="Load the model anew"
                    )
                self._session = sessions.begin(loaded, self._place, self._provider, self._size)
                self._owner = os.getpid()
        return self._session

    def close(self) -> None:
        super().close()
        self.__dict__.pop("_session", None)
