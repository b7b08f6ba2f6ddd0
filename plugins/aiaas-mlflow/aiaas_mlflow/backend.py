"""Models behind an MLflow scoring server, or another that answers `/invocations` as SageMaker wants it, with JSON.

`mlflow+https://HOST[/PATH][/invocations]`. The protocol: `GET /ping` tells whether it serves, `GET /version` MLflow's
version, `POST /invocations` is the one question (mlflow/pyfunc/scoring_server; Amazon SageMaker, "Custom inference code
with hosting services").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from aiaas_mlflow.answers import decode
from aiaas_mlflow.questions import encode
from aiaas_mlflow.refusals import explained
from aiaas_sdk.backends.base import RemoteBackend
from aiaas_sdk.errors import (
    AddressError,
    AiaasError,
    ModelNotFoundError,
    PermissionDeniedError,
    ServerError,
    StatusError,
)
from aiaas_sdk.flow import Flow, Reply, Request
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Tensor

__all__ = ["MlflowBackend", "aiaas_backend"]

INVOCATIONS = "/invocations"
ABSENT = frozenset((404, 405, 501))
"""Statuses of a path that isn't there."""
REFUSALS = frozenset((400, 405, 415, 422))
"""Statuses for a GET of what is there, and wants a POST."""
REQUEST_IDS = ("x-request-id", "x-amzn-requestid")
HEADERS = {"content-type": "application/json", "accept": "application/json"}
_VERSION = re.compile(rb"\s*(\d+\.\d[\w.+-]{0,40})\s*")


class MlflowBackend(RemoteBackend):
    """The one model of a server. It doesn't tell its signature: what comes is what is expected."""

    scheme = "mlflow"
    options_taken: ClassVar[frozenset[str]] = frozenset(("api_key", "headers", "network"))

    def prepare(self) -> None:
        """The address names a server, with or without `/invocations` at its end, and no version."""
        if self.address.version is not None:
            raise AddressError(
                f"{self.address} names a version, and a scoring server has one model of one version",
                hint="Leave out what stands behind @",
            )
        self._base = self.address.target.rstrip("/").removesuffix(INVOCATIONS)
        self._mlflow = False

    # ------------------------------------------------------------ opening
    def opening(self, call: Call) -> Flow[ModelInfo]:
        yield from self._ping(call)
        version = yield from self._version(call)
        self._mlflow = version is not None
        parts = urlsplit(self._base)
        return ModelInfo(
            name=unquote(parts.path.rpartition("/")[2]) or parts.netloc,
            verbs=self.verbs(),
            platform="mlflow" if version else "invocations",
            metadata={"mlflow": version} if version else {},
        )

    def readiness(self, call: Call) -> Flow[bool]:
        try:
            yield from self._ping(call)
        except (StatusError, ModelNotFoundError) as error:
            if error.status in (404, 503):
                return False
            raise
        return True

    def _ping(self, call: Call) -> Flow[None]:
        """Raise unless it serves. A host that has no /ping (Databricks) is known by what it says of /invocations."""
        try:
            yield from self.send(call, self._get("/ping"))
        except (ModelNotFoundError, StatusError, ServerError) as error:
            if error.status not in ABSENT:
                raise
            yield from self._look(call)

    def _look(self, call: Call) -> Flow[None]:
        """Raise where /invocations isn't there: a GET of it is refused by method where it is."""
        try:
            yield from self.send(call, self._get(INVOCATIONS))
        except ModelNotFoundError as error:
            error.hint = f"Nothing answers {self._base}/ping and {self._base}{INVOCATIONS}; is the path right"
            raise
        except StatusError as error:
            if error.status not in REFUSALS:
                raise

    def _version(self, call: Call) -> Flow[str | None]:
        """MLflow's version; None of a server that isn't MLflow's, or tells none."""
        try:
            reply = yield from self.send(call, self._get("/version"))
        except (ModelNotFoundError, StatusError, ServerError) as error:
            if error.status in ABSENT | REFUSALS:
                return None
            raise
        found = _VERSION.fullmatch(bytes(reply.body[:100]))
        return found[1].decode() if found else None

    # ------------------------------------------------------------ predict
    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        body = encode(inputs, tables=self._mlflow)
        reply = yield from self.send(
            call, Request("POST", self._base + INVOCATIONS, HEADERS, (body,), network=self._network)
        )
        call.request_id = next((reply.headers[name] for name in REQUEST_IDS if name in reply.headers), None)
        found = decode(reply.body)
        # all outputs always come; what is missing among those that were asked for is told by who asked
        return {name: found[name] for name in outputs} if outputs and found.keys() >= set(outputs) else found

    def refused(self, call: Call, reply: Reply) -> AiaasError:
        """As every peer's, in MLflow's words."""
        error = explained(reply.body, super().refused(call, reply))
        host = urlsplit(self._base).hostname or ""
        if isinstance(error, PermissionDeniedError) and host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            error.hint = "AWS wants each request signed (SigV4), which isn't done here: put a signing proxy before it"
        return error

    # ------------------------------------------------------------ requests
    @property
    def _network(self) -> Any:
        return self.options.get("network")

    def _get(self, path: str) -> Request:
        return Request("GET", self._base + path, network=self._network)


@hookimpl
def aiaas_backend(scheme: str) -> type[MlflowBackend]:
    return MlflowBackend
