"""Who asks, and what he may: found out once at the door, read by whatever answers."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from aiaas_sdk.server.allowances import UNLIMITED, Limits

__all__ = ["ANYONE", "NOBODY", "Caller", "caller", "entering"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. It holds no credential.

    Attributes:
        name: of his key, or the subject of his token; None where nobody has to say who he is.
        models: names of the models that he may use, or patterns of them (`llm-*`); None for all.
        management: he may load and unload models, where the server lets anybody.
        training: he may train the models that he may use, which gives all callers a new version, where the server
            does jobs.
        metrics: he may read `/metrics`, which tells of all models and callers.
        limits: how much he may ask.
    """

    name: str | None
    models: tuple[str, ...] | None = None
    management: bool = False
    training: bool = False
    metrics: bool = False
    limits: Limits = field(default=UNLIMITED)

    def may_use(self, model: str) -> bool:
        """Whether he may use a model. One that he may not isn't there for him: 404, and in no list."""
        return self.models is None or any(fnmatchcase(model, pattern) for pattern in self.models)


ANYONE = Caller(None, management=True, training=True, metrics=True)
"""Whoever reaches a server that asks for no key."""
NOBODY = Caller(None, models=())
"""Whoever shows no key where one is needed: he may ask whether the server lives, and see no name."""

_caller: ContextVar[Caller] = ContextVar("aiaas_caller", default=ANYONE)
caller = _caller.get
"""Who asked for what this task does."""
entering = _caller.set
"""Say who asks, for the rest of this task."""
