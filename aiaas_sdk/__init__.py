"""One typed `Model`: the same code runs it here or calls it as a hosted service.

Names are loaded on first use, so that importing the package is quick and loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiaas_sdk._version import __version__ as __version__

if TYPE_CHECKING:
    from aiaas_sdk.api import create as create
    from aiaas_sdk.api import load as load
    from aiaas_sdk.api import load_async as load_async
    from aiaas_sdk.api import save as save
    from aiaas_sdk.architectures import architecture as architecture
    from aiaas_sdk.errors import *  # noqa: F403
    from aiaas_sdk.fetching import fetch as fetch
    from aiaas_sdk.fetching import fetch_async as fetch_async
    from aiaas_sdk.model import AsyncModel as AsyncModel
    from aiaas_sdk.model import Model as Model
    from aiaas_sdk.observing.observers import observe as observe
    from aiaas_sdk.parity import compare as compare
    from aiaas_sdk.records.comparison import Comparison as Comparison
    from aiaas_sdk.records.events import AttemptEvent as AttemptEvent
    from aiaas_sdk.records.events import CallEvent as CallEvent
    from aiaas_sdk.records.explanation import Explanation as Explanation
    from aiaas_sdk.records.fetching import Fetching as Fetching
    from aiaas_sdk.records.language import AsyncStream as AsyncStream
    from aiaas_sdk.records.language import Attachment as Attachment
    from aiaas_sdk.records.language import Delta as Delta
    from aiaas_sdk.records.language import Embeddings as Embeddings
    from aiaas_sdk.records.language import Generation as Generation
    from aiaas_sdk.records.language import Message as Message
    from aiaas_sdk.records.language import Prompt as Prompt
    from aiaas_sdk.records.language import Sampling as Sampling
    from aiaas_sdk.records.language import Stream as Stream
    from aiaas_sdk.records.language import ToolCall as ToolCall
    from aiaas_sdk.records.model import BackendInfo as BackendInfo
    from aiaas_sdk.records.model import ModelInfo as ModelInfo
    from aiaas_sdk.records.model import Stats as Stats
    from aiaas_sdk.records.model import TensorSpec as TensorSpec
    from aiaas_sdk.records.model import Timing as Timing
    from aiaas_sdk.records.model import Usage as Usage
    from aiaas_sdk.records.network import Network as Network
    from aiaas_sdk.records.options import Options as Options
    from aiaas_sdk.records.policies import Breaker as Breaker
    from aiaas_sdk.records.policies import Budget as Budget
    from aiaas_sdk.records.policies import Cache as Cache
    from aiaas_sdk.records.policies import Hedge as Hedge
    from aiaas_sdk.records.policies import Limits as Limits
    from aiaas_sdk.records.policies import Privacy as Privacy
    from aiaas_sdk.records.policies import Retry as Retry
    from aiaas_sdk.records.prediction import Prediction as Prediction
    from aiaas_sdk.records.prediction import Served as Served
    from aiaas_sdk.records.secret import Secret as Secret
    from aiaas_sdk.records.secret import env as env
    from aiaas_sdk.records.training import Training as Training
    from aiaas_sdk.registry import available_backends as available_backends
    from aiaas_sdk.runs import AsyncTrainingRun as AsyncTrainingRun
    from aiaas_sdk.runs import TrainingRun as TrainingRun

_HOMES = {
    "api": ("create", "load", "load_async", "save"),
    "architectures": ("architecture",),
    "fetching": ("fetch", "fetch_async"),
    "parity": ("compare",),
    "model": ("AsyncModel", "Model"),
    "observing.observers": ("observe",),
    "records.comparison": ("Comparison",),
    "records.events": ("AttemptEvent", "CallEvent"),
    "records.explanation": ("Explanation",),
    "records.fetching": ("Fetching",),
    "records.language": (
        "AsyncStream",
        "Attachment",
        "Delta",
        "Embeddings",
        "Generation",
        "Message",
        "Prompt",
        "Sampling",
        "Stream",
        "ToolCall",
    ),
    "records.model": ("BackendInfo", "ModelInfo", "Stats", "TensorSpec", "Timing", "Usage"),
    "records.network": ("Network",),
    "records.options": ("Options",),
    "records.policies": ("Breaker", "Budget", "Cache", "Hedge", "Limits", "Privacy", "Retry"),
    "records.prediction": ("Prediction", "Served"),
    "records.secret": ("Secret", "env"),
    "records.training": ("Training",),
    "registry": ("available_backends",),
    "runs": ("AsyncTrainingRun", "TrainingRun"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return _public()
    home = _HOME.get(name)
    if home is None:
        errors = import_module("aiaas_sdk.errors")
        if name not in errors.__all__:
            raise AttributeError(f"module 'aiaas_sdk' has no attribute {name!r}")
        home = "errors"
    value = getattr(import_module(f"aiaas_sdk.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_public()})


def _public() -> list[str]:
    return sorted({"__version__", *_HOME, *import_module("aiaas_sdk.errors").__all__})
