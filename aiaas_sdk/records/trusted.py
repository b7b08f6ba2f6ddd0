"""Keys that the settings trust."""

from __future__ import annotations

__all__ = ["Trusted"]


class Trusted(tuple[str, ...]):
    """The option `verify` where nobody gave it: keys of [trust], whose programs may run. It asks for no signature."""

    __slots__ = ()
