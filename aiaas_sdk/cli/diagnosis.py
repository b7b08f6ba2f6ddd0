"""`aiaas doctor`: from the settings to one real call, each step told with how it went."""

from __future__ import annotations

import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, TypeVar

import numpy as np

from aiaas_sdk import settings
from aiaas_sdk._version import __version__
from aiaas_sdk.api import load
from aiaas_sdk.cli.exits import code_of, told
from aiaas_sdk.cli.printing import clean, table
from aiaas_sdk.errors import AiaasError, ModelNotReadyError
from aiaas_sdk.finding import Member, find
from aiaas_sdk.model import Model
from aiaas_sdk.records.model import ModelInfo, TensorSpec, Timing
from aiaas_sdk.records.options import OPTION_NAMES, VIEW_OPTIONS
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.records.secret import Secret
from aiaas_sdk.registry import available_backends, backend_class
from aiaas_sdk.tensors import DATATYPES

__all__ = ["Diagnosis", "diagnose"]

T = TypeVar("T")
PACKAGES = ("numpy", "torch", "safetensors", "pydantic", "httpx", "httpx2", "starlette", "uvicorn", "cryptography")
MAX_BYTES = 1 << 28
"""A signature may announce any size; more than this isn't built for a test call."""


@dataclass(slots=True)
class Step:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str
    seconds: float
    error: AiaasError | None = None

    def to_dict(self) -> dict[str, Any]:
        failure = told(self.error) if self.error else None
        return {"step": self.name, "ok": self.ok, "detail": self.detail, "seconds": self.seconds, "error": failure}


@dataclass(slots=True)
class Examined:
    """One address: its settings as (name, value, source), and how each step went."""

    address: str
    settings: list[tuple[str, str, str]]
    steps: list[Step] = field(default_factory=list)
    backend: str | None = None
    credential: str | None = None
    model: ModelInfo | None = None
    timing: Timing | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values. `credential` is the name of where it comes from."""
        return {
            "address": self.address,
            "backend": self.backend,
            "credential": self.credential,
            "model": None if self.model is None else asdict(self.model),
            "timing": None if self.timing is None else asdict(self.timing),
            "settings": _documented(self.settings),
            "steps": [step.to_dict() for step in self.steps],
        }


@dataclass(slots=True)
class Diagnosis:
    """All that `aiaas doctor` tells. No value of a credential is in it."""

    environment: dict[str, str]
    steps: list[Step] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    profile: str | None = None
    variables: list[str] = field(default_factory=list)
    serve: list[tuple[str, str, str]] = field(default_factory=list)
    members: list[Examined] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or that of the first failure."""
        errors = (step.error for step in self._all() if step.error is not None)
        return next((code_of(error) for error in errors), 0)

    def _all(self) -> Iterator[Step]:
        yield from self.steps
        for member in self.members:
            yield from member.steps

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.exit_code == 0,
            "exit_code": self.exit_code,
            "environment": self.environment,
            "files": self.files,
            "profile": self.profile,
            "variables": self.variables,
            "steps": [step.to_dict() for step in self.steps],
            "serve": _documented(self.serve),
            "members": [member.to_dict() for member in self.members],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield table(list(self.environment.items()))
        yield ""
        yield f"settings files  {', '.join(self.files) or 'none'}"
        yield f"profile         {self.profile or 'none'}"
        yield f"variables       {', '.join(self.variables) or 'none'}"
        yield from _told(self.steps)
        if self.serve:
            yield ""
            yield "aiaas serve"
            yield _tabled(self.serve)
        for member in self.members:
            yield ""
            yield clean(member.address)
            if member.settings:
                yield _tabled(member.settings)
            yield from _told(member.steps, indent="  ")


def _documented(settings: list[tuple[str, str, str]]) -> list[dict[str, str]]:
    return [dict(zip(("name", "value", "source"), entry, strict=True)) for entry in settings]


def _tabled(settings: list[tuple[str, str, str]]) -> str:
    return table([("setting", "value", "from"), *settings], indent="  ")


def _told(steps: list[Step], indent: str = "") -> Iterator[str]:
    for step in steps:
        mark = "ok    " if step.ok else "FAILED"
        yield f"{indent}{mark}  {step.name}: {clean(step.detail)} ({step.seconds * 1e3:.1f} ms)"
        if step.error is not None and step.error.hint:
            yield f"{indent}        {clean(step.error.hint)}"


# ---------------------------------------------------------------- steps
def diagnose(where: str, options: Mapping[str, Any]) -> Diagnosis:
    """Look at a name or an address from its settings to one real call."""
    diagnosis = Diagnosis(_environment())
    if (read := _try(diagnosis.steps, "settings", settings.read, _read_told)) is None:
        return diagnosis
    diagnosis.files = [str(document.path) for document in read.documents]
    diagnosis.profile = read.profile
    diagnosis.variables = sorted(name for name, value in read.environ.items() if value.strip())
    if any(document.serve.server or document.serve.models for document in read.documents):
        _examine_serving(read, diagnosis)
    found = _try(diagnosis.steps, "address", lambda: find(where, options), lambda found: found.text)
    for member in found.members if found else ():
        examined = Examined(str(member.address), _settings(member))
        diagnosis.members.append(examined)
        _examine(member, examined)
    return diagnosis


def _examine_serving(read: settings.Settings, diagnosis: Diagnosis) -> None:
    try:
        from aiaas_sdk.cli.serving_settings import serve_settings
    except ModuleNotFoundError as error:
        # Who only calls may share the file with who serves, so that this is no failure.
        why = f'serving needs the package {error.name}: pip install "aiaas-sdk[serve]"'
        diagnosis.steps.append(Step("serve", True, f"its settings weren't looked at; {why}", 0.0))
        return
    serve = _try(diagnosis.steps, "serve", lambda: serve_settings(read), lambda _: "its settings can be used")
    diagnosis.serve = serve or []


def _try(steps: list[Step], name: str, work: Callable[[], T], tell: Callable[[T], str]) -> T | None:
    """Do it and note how it went; None where it failed."""
    begun = time.perf_counter()
    try:
        outcome = work()
        steps.append(Step(name, True, tell(outcome), time.perf_counter() - begun))
        return outcome
    except AiaasError as error:
        text = str(error).removesuffix(f". {error.hint}") if error.hint else str(error)
        steps.append(Step(name, False, text, time.perf_counter() - begun, error))
        return None


def _environment() -> dict[str, str]:
    found = {"aiaas-sdk": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"executable": sys.executable}


def _read_told(read: settings.Settings) -> str:
    count = len(read.documents)
    return f"{count or 'no'} file{'' if count == 1 else 's'} read" if count else "no file, the environment only"


def _settings(member: Member) -> list[tuple[str, str, str]]:
    """Each setting with its source; a credential and the values of headers are never shown."""
    found = [("address", str(member.address), member.sources.get("address", "argument"))]
    for name in OPTION_NAMES:
        if name in member.options:
            value, source = member.options[name], member.sources.get(name, "argument")
            if name == "api_key" and value is not None:
                source = Secret.of(value).source
            found.append((name, _shown(name, value), source))
    return found


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name == "api_key":
        return "***"
    if name == "headers":
        return ", ".join(f"{header}: ***" for header in value)
    if name == "verify" and not isinstance(value, bool):
        return f"{len(value)} trusted key{'' if len(value) == 1 else 's'}"
    return str(value)


def _examine(member: Member, examined: Examined) -> None:
    scheme, address, steps = member.address.scheme, str(member.address), examined.steps
    cls = _try(steps, "backend", lambda: backend_class(scheme, address), lambda _: _origin(scheme))
    if cls is None:
        return
    examined.backend = scheme
    if member.address.origin:
        examined.credential = _try(steps, "credential", lambda: _credential(member), str)
    model = _try(steps, "load", lambda: _loaded(member, cls), lambda _: "the address and options fit the backend")
    if model is None:
        return
    try:
        info = examined.model = _try(steps, "open", model.info, _opened)
        if info is not None:
            _try(steps, "ready", lambda: _ready(model), lambda _: "it serves")
            answer = _call(model, info, steps)
            examined.timing = answer.timing if answer else None
    finally:
        model.close()


def _origin(scheme: str) -> str:
    info = available_backends()[scheme]
    return f"{scheme}, from {info.distribution} {info.version}"


def _credential(member: Member) -> str:
    """Where the credential comes from; it is read, and shown nowhere."""
    key = member.options.get("api_key")
    if key is None:
        return "none, so none is sent"
    secret = Secret.of(key)
    secret.reveal()
    return secret.source


def _loaded(member: Member, cls: Any) -> Model[Any, Any]:
    taken = cls.options_taken | VIEW_OPTIONS | {"concurrency"} | member.asked
    options: Any = {name: value for name, value in member.options.items() if name in taken}
    return load(str(member.address), **options)


def _opened(info: ModelInfo) -> str:
    parts = [info.name, f"version {info.version or 'unknown'}", f"device {info.device or 'unknown'}"]
    return ", ".join([*parts, info.platform] if info.platform else parts)


def _ready(model: Model[Any, Any]) -> None:
    if not model.ready():
        raise ModelNotReadyError("the model is there and isn't ready", hint="Look at the server's log")


def _call(model: Model[Any, Any], info: ModelInfo, steps: list[Step]) -> Prediction | None:
    if "predict" not in info.verbs:
        steps.append(Step("call", True, f"not tried: it can {', '.join(sorted(info.verbs)) or 'nothing'}", 0.0))
        return None
    inputs = {spec.name: _zeros(spec) for spec in info.inputs if _possible(spec)}
    if not inputs or len(inputs) < len(info.inputs):
        why = "its inputs are too large for a test" if info.inputs else "it doesn't say what it takes"
        steps.append(Step("call", True, f"not tried: {why}", 0.0))
        return None
    return _try(steps, "call", lambda: model.predict(inputs), _answered)


def _answered(answer: Prediction) -> str:
    outputs = ", ".join(f"{name} {list(array.shape)}" for name, array in answer.items())
    timing = answer.timing
    parts = (("total", timing.total), ("queue", timing.queue), ("compute", timing.compute), ("network", timing.network))
    told = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in parts if seconds is not None)
    return f"zeros in, {outputs} out; {told}; {answer.attempts} requests; version {answer.version or 'unknown'}"


def _possible(spec: TensorSpec) -> bool:
    return spec.datatype in DATATYPES and 8 * math.prod(max(size, 1) for size in spec.shape) <= MAX_BYTES


def _zeros(spec: TensorSpec) -> Any:
    """Zeros, or empty texts; a free axis has size 1."""
    shape = [1 if size == -1 else size for size in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, b"", object)
    return np.zeros(shape, np.float32 if spec.datatype == "BF16" else DATATYPES[spec.datatype].dtype)
