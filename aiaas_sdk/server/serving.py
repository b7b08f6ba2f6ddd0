"""How a server serves: its own options, beside those of the models.

They have the same names in `serve`, `serve_in_thread`, `create_app`, the table [serve] of aiaas.toml and, with
dashes, on the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

from aiaas_sdk import machine
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.options import OPTION_NAMES, Options
from aiaas_sdk.server.bodies import MAX_BODY, MAX_INFLATED

__all__ = ["ServeOptions", "Serving", "parted"]


class ServeOptions(Options, total=False):
    """The options of a server, and those of the models it serves. `Serving` says what each means."""

    max_body: int
    max_bodies: int | None
    max_inflated: int
    max_connections: int
    hosts: Collection[str] | None
    queue: int
    max_batch_rows: int
    max_batch_delay: float
    warm_up: bool
    memory: int | None
    watch: float | None
    management: bool
    drain_delay: float
    grace: float
    workers: int
    jobs: str | PathLike[str] | None
    grpc_port: int | None
    api_keys: str | PathLike[str] | None
    jwt: Mapping[str, Any] | None
    cors: Collection[str]
    tls_cert: str | PathLike[str] | None
    tls_key: str | PathLike[str] | None
    public: bool
    access_log: bool
    metrics: bool
    page: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A server's options, checked.

    Attributes:
        max_body: bytes of a request's body that are taken; more is 413.
        max_bodies: bytes that the bodies of all requests under way may take together; more is 503. None: half of the
            memory, shared by all workers. A body alone is taken, up to max_body.
        max_inflated: bytes that a compressed body may become.
        max_connections: connections held at once; at more the longest idle one is closed.
        hosts: names under which it may be called (the header Host); None for any.
        queue: calls of one model that may wait or run at once; more is 503.
        max_batch_rows: rows of several requests that share one forward pass; 1 for no sharing.
        max_batch_delay: seconds for which a request may wait for others. 0 takes together what waits already.
        warm_up: run a model that is here once, before it is ready.
        memory: bytes that the models here may take together; the least recently used are unloaded. None: no limit.
        watch: seconds between two looks for new versions in the folders of bundles; None for none.
        management: clients may load and unload models (`/v2/repository/models/NAME/load`).
        drain_delay: seconds for which the server goes on accepting after SIGTERM, not ready any more.
        grace: seconds for which running requests may go on after that.
        workers: processes that serve, on one port.
        jobs: a folder for training jobs, and the files that clients upload for them; None for no training.
        grpc_port: the port of the same protocol over gRPC, from the plugin aiaas-grpc.
        api_keys: a file of API keys, hashed, as `aiaas keys` writes it; None for no keys.
        jwt: how JSON Web Tokens are checked (`issuer`, `audience`, `key` or `jwks`); None for none.
        cors: origins whose pages may call the server.
        tls_cert: a certificate (PEM) and tls_key: its key, for HTTPS.
        public: serve on a public address although anybody may then use the models.
        access_log: write a line (JSON) for each request, without its body.
        metrics: serve `/metrics` for Prometheus.
        page: serve the page at `/`.
    """

    max_body: int = MAX_BODY
    max_bodies: int | None = None
    max_inflated: int = MAX_INFLATED
    max_connections: int = 1000
    hosts: Collection[str] | None = None
    queue: int = 256
    max_batch_rows: int = 64
    max_batch_delay: float = 0.0
    warm_up: bool = True
    memory: int | None = None
    watch: float | None = 5.0
    management: bool = False
    drain_delay: float = 0.0
    grace: float = 25.0
    workers: int = 1
    jobs: str | PathLike[str] | None = None
    grpc_port: int | None = None
    api_keys: str | PathLike[str] | None = None
    jwt: Mapping[str, Any] | None = None
    cors: Collection[str] = ()
    tls_cert: str | PathLike[str] | None = None
    tls_key: str | PathLike[str] | None = None
    public: bool = False
    access_log: bool = False
    metrics: bool = True
    page: bool = True

    def __post_init__(self) -> None:
        for name, check, wanted in _CHECKS:
            value = getattr(self, name)
            if not check(value):
                raise ConfigError(f"{name} is {value!r}", hint=f"Give {wanted}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("one of tls_cert and tls_key was given", hint="Give both, or none of them")
        if isinstance(self.cors, str) or isinstance(self.hosts, str):
            raise ConfigError("cors and hosts are lists", hint='Give a list: ["https://example.com"]')

    @property
    def room(self) -> int:
        """Bytes that the bodies of one worker's requests may take."""
        return self.max_bodies or max(1, machine.memory() // 2 // self.workers)


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")


_COUNT = "a whole number from 1 on"
_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    *((name, _whole(1), "bytes, from 1 on") for name in ("max_body", "max_inflated")),
    *((name, _whole(1), _COUNT) for name in ("queue", "max_connections", "max_batch_rows", "workers")),
    *((name, _seconds, "seconds, 0 or more") for name in ("max_batch_delay", "drain_delay", "grace")),
    ("watch", lambda value: value is None or (_seconds(value) and value > 0), "seconds above 0, or None for none"),
    ("memory", lambda value: value is None or _whole(1)(value), "bytes, or None for no limit"),
    ("max_bodies", lambda value: value is None or _whole(1)(value), "bytes, or None for half of the memory"),
)
_NAMES = frozenset(field.name for field in fields(Serving))


def parted(options: Mapping[str, Any]) -> tuple[Serving, dict[str, Any]]:
    """The server's options, and those of its models.

    Raises:
        ConfigError: one of the server's is impossible, or is misspelt.
    """
    mine = {name: value for name, value in options.items() if name in _NAMES}
    theirs = {name: value for name, value in options.items() if name not in _NAMES}
    for name in theirs.keys() - OPTION_NAMES:
        if near := difflib.get_close_matches(name, [*_NAMES, *OPTION_NAMES], 1):
            raise ConfigError(f"unknown option {name!r}", hint=f"Did you mean {near[0]!r}?")
    return Serving(**mine), theirs
