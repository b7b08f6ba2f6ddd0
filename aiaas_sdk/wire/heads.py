"""The JSON of infer requests, read once.

A client's requests differ in their ids, in how much time is left, and in the bytes of their tensors. `layouts.py` has
the same for responses.
"""

from __future__ import annotations

import re
from dataclasses import replace

from aiaas_sdk import tensors
from aiaas_sdk.wire.inference import InferRequest

__all__ = ["LONGEST", "MOST", "layouts", "remember", "split"]

LONGEST, MOST = 1024, 256  # bytes of a head, and heads that are remembered


def split(head: bytes) -> tuple[bytes, str | None, int | None]:
    """The JSON without what differs in each request, where it stands in front; and that: the id, and the timeout."""
    found = _VARYING.match(head)
    if found is None:
        return head, None, None
    id, seconds = found.groups()
    mark = b"\0" if id is None else b"\1"  # no JSON text begins like this
    rest = mark + (b"\0" if seconds is None else b"\1") + head[found.end() :].rstrip(b" ")
    return rest, None if id is None else id.decode(), None if seconds is None else int(seconds)


_VARYING = re.compile(
    rb'\{(?:"id": ?"([ !#-\[\]-~]*)", ?)?(?:"parameters": ?\{"timeout": ?(0|[1-9][0-9]{0,17})(?=[,}]))?'
)


class _Layout:
    """What the head of a request says that was understood once."""

    __slots__ = ("_request", "_tensors", "size")

    def __init__(self, request: InferRequest, size: int) -> None:
        self._request, self.size = request, size
        self._tensors: list[tuple[str, str, tuple[int, ...], int]] = []
        start = 0
        for name, tensor in request.inputs.items():
            self._tensors.append((name, tensor.datatype, tensor.shape, start))
            start += tensor.nbytes
        request.inputs = {}

    def filled(self, rest: memoryview, id: str | None, timeout: int | None) -> InferRequest:
        like = self._request
        return InferRequest(
            id=id,
            inputs={name: tensors.viewed(kind, shape, rest, start) for name, kind, shape, start in self._tensors},
            outputs=like.outputs,
            binary_default=like.binary_default,
            speaks_binary=like.speaks_binary,
            parameters=like.parameters if timeout is None else {**like.parameters, "timeout": timeout},
        )


layouts: dict[bytes, _Layout] = {}
"""By what `split` leaves of a head. Safe across threads."""


def remember(head: bytes, request: InferRequest, size: int) -> None:
    """Keep the layout of a request whose tensors are all binary, of a fixed size and without forbidden values."""
    kinds = {tensor.datatype for tensor in request.inputs.values()}
    if kinds & {"BYTES", "BOOL"} or sum(tensor.nbytes for tensor in request.inputs.values()) != size:
        return
    if len(layouts) >= MOST:
        layouts.clear()
    layouts[head] = _Layout(replace(request), size)
