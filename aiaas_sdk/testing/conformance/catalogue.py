"""All checks: the modules that hold them, in the order in which they run."""

from __future__ import annotations

from importlib import import_module

from aiaas_sdk.testing.conformance.checks import CHECKS

__all__ = ["CHECKS", "GROUPS"]

GROUPS = (
    "describing",
    "honesty",
    "rows",
    "values",
    "datatypes",
    "layouts",
    "outputs",
    "origins",
    "failures",
    "deadlines",
    "sharing",
    "loops",
    "sameness",
    "speaking",
    "streaming",
    "embedding",
    "explaining",
    "closing",
    "forking",
)

for _group in GROUPS:
    import_module(f"{__package__}.{_group}")
