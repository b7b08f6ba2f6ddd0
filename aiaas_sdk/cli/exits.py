"""Exit codes, and errors as people and programs read them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from aiaas_sdk import errors
from aiaas_sdk.cli.printing import clean, document

__all__ = ["CODES", "code_of", "guarded", "say", "told"]

OK, UNEQUAL, USAGE, ABSENT, UNREACHED, FAILED = range(6)
INTERRUPTED = 130
BROKEN_PIPE = 141
"""As a shell tells SIGPIPE: whoever read the output went away."""

CODES = """0  ok
1  compare: the models aren't equal
2  the command, a setting, the address, the credential or the input is wrong
3  the model isn't there, or isn't ready
4  the peer wasn't reached, or the time ran out
5  the model or the peer failed
130  interrupted (Ctrl-C)"""

_TABLE: tuple[tuple[int, tuple[type[errors.AiaasError], ...]], ...] = (
    (ABSENT, (errors.ModelNotFoundError, errors.ModelNotReadyError)),
    (
        UNREACHED,
        (
            errors.ConnectError,
            errors.ConnectionLostError,
            errors.DeadlineExceededError,
            errors.CircuitOpenError,
        ),
    ),
    (
        USAGE,
        (
            errors.AddressError,
            errors.ConfigError,
            errors.InputError,
            errors.UnsupportedOperationError,
            errors.BackendNotInstalledError,
            errors.PluginLoadError,
            errors.BudgetExceededError,
            errors.PrivacyError,
            errors.InvalidRequestError,
            errors.AuthenticationError,
            errors.PermissionDeniedError,
        ),
    ),
)


def code_of(error: errors.AiaasError) -> int:
    """The exit code for an error."""
    return next((code for code, kinds in _TABLE if isinstance(error, kinds)), FAILED)


def told(error: errors.AiaasError) -> dict[str, Any]:
    """An error as plain values."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "address": error.address,
        "status": error.status,
        "row": error.row,
        "attempts": error.attempts,
        "request_id": error.request_id,
        "retryable": error.retryable,
        "exit_code": code_of(error),
    }


@contextmanager
def guarded(*, as_json: bool, debug: bool) -> Iterator[None]:
    """What fails inside becomes one or two lines on stderr and an exit code; with `as_json` a document too."""
    try:
        yield
        sys.stdout.flush()
    except typer.Exit:
        raise
    except errors.AiaasError as error:
        _say(error, as_json=as_json, debug=debug)
        raise typer.Exit(code_of(error)) from None
    except KeyboardInterrupt:
        _line("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes
        raise typer.Exit(BROKEN_PIPE) from None
    except Exception as fault:
        _say(_unexpected(fault), as_json=as_json, debug=debug)
        raise typer.Exit(FAILED) from None


def _unexpected(fault: Exception) -> errors.AiaasError:
    name = type(fault).__name__
    return errors.AiaasError(f"aiaas itself failed with {name}", hint="Run it again with --debug, and report that")


def _say(error: errors.AiaasError, *, as_json: bool, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    say(error)
    if as_json:
        print(document({"error": told(error)}))


def say(error: errors.AiaasError) -> None:
    """One or two lines on stderr: what happened, and what to do."""
    text = str(error)
    _line(text.removesuffix(f". {error.hint}") if error.hint else text)
    if error.hint:
        print(f"  {clean(error.hint)}", file=sys.stderr)


def _line(text: str) -> None:
    print(f"aiaas: {clean(text)}", file=sys.stderr)
