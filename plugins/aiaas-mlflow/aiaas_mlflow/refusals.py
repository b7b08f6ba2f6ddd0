"""What MLflow says when it says no: `{"error_code", "message", "stack_trace"}`.

What the model itself raises comes as 400, as a wrong request does; and messages repeat the data that was sent.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json

from aiaas_sdk.errors import AiaasError, ModelError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.wire.status import clean

__all__ = ["explained"]

RAISED = "Encountered an unexpected error while evaluating the model"
"""How the message begins where the model raised (mlflow/pyfunc/scoring_server, `invocations`)."""
MAX_WORDS = 500
_SHOWN = re.compile(r".*?'\. \nError: |Failed to enforce schema of data '.*' (?=with schema )", re.DOTALL)
"""Where a message repeats what was sent: all before the error itself, and within it."""


def explained(body: Buffer, error: AiaasError) -> AiaasError:
    """The error in MLflow's words, without what they repeat of the data; the same one where these aren't MLflow's."""
    try:
        document = from_json(bytes(body))
    except ValueError:
        return error
    if not isinstance(document, dict) or not isinstance(document.get("error_code"), str):
        return error
    message = str(document.get("message", ""))
    if message.startswith(RAISED):
        return _of_the_model(document, error)
    words = clean(_without_data(message), MAX_WORDS)
    error.message = f"the server answered {error.status} {clean(document['error_code'], 60)}: {words}"
    error.args = (error.message,)
    return error


def _of_the_model(document: dict[str, Any], error: AiaasError) -> ModelError:
    trace = document.get("stack_trace")
    lines = trace.strip().splitlines() if isinstance(trace, str) else []
    said = f": {clean(lines[-1], MAX_WORDS)}" if lines else ""
    return ModelError(
        f"the model raised{said}",
        hint="The model's own code failed; does it take these inputs, these names and shapes",
        status=error.status,
        request_id=error.request_id,
    )


def _without_data(message: str) -> str:
    return _SHOWN.sub("", message) if message.startswith("Failed to ") else message
