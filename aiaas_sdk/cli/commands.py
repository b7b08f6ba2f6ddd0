"""The commands of `aiaas`: ours, and those that plugins bring, which are imported when they are run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from aiaas_sdk.cli.exits import guarded
from aiaas_sdk.errors import BackendNotInstalledError

__all__ = ["Commands"]

_ELSEWHERE = {"export": "aiaas-onnx"}
"""Commands that the documentation names, and the package that brings each."""


class Commands(TyperGroup):
    """Ours come first, and no plugin can take the place of one. A broken plugin fails whoever runs its command."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.commands, *self._brought()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """For the list of commands: one that a plugin brings is told by who brings it."""
        if (own := self.commands.get(cmd_name)) is not None:
            return own
        who = self._brought().get(cmd_name)
        return None if who is None else TyperCommand(cmd_name, help=f"Brought by {who}.")

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """For running one."""
        if args and args[0] in self._brought():
            return args[0], _loaded(args[0]), args[1:]
        if args and (package := _ELSEWHERE.get(args[0])):
            with guarded(as_json="--json" in args, debug=False):
                raise BackendNotInstalledError(
                    f"the command {args[0]!r} is in the package {package}", hint=f"Install it: pip install {package}"
                )
        return super().resolve_command(ctx, args)

    def _brought(self) -> dict[str, str]:
        from aiaas_sdk.registry import commands

        return {name: who for name, who in commands().items() if name not in self.commands}


def _loaded(name: str) -> Any:
    from aiaas_sdk.registry import command

    with guarded(as_json=False, debug=False):
        function = command(name)
        holder = typer.Typer(add_completion=False, rich_markup_mode="rich")
        holder.command(name)(_guarded(function))
        return typer.main.get_command(holder)


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """What it raises becomes a line on stderr and an exit code, as ours; so do its options `as_json` and `debug`."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        with guarded(as_json=bool(options.get("as_json")), debug=bool(options.get("debug"))):
            return function(*args, **options)

    return run
