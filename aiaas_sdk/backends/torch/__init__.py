"""`torch:` runs a bundle on this machine with PyTorch. This module imports no torch; the backend does when it opens."""

from __future__ import annotations

from typing import Any

from aiaas_sdk.hookspecs import hookimpl


@hookimpl
def aiaas_backend(scheme: str) -> type[Any]:
    from aiaas_sdk.backends.torch.backend import TorchBackend

    return TorchBackend
