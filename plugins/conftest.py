"""The plugins' tests have the core's fixtures: an environment of their own, both faces, strangers' servers."""

from tests.conftest import (
    _isolated_environment,
    anyio_backend,
    load,
    mlserver_env,
    peer_python,
    talker,
    transformers_env,
    triton_env,
)

__all__ = [
    "_isolated_environment",
    "anyio_backend",
    "load",
    "mlserver_env",
    "peer_python",
    "talker",
    "transformers_env",
    "triton_env",
]
