"""Text that shows itself to nobody by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

__all__ = ["Hidden"]


class Hidden:
    """Text that shows itself only to who calls `reveal`: what a header carries."""

    __slots__ = ("reveal",)

    def __init__(self, text: str) -> None:
        self.reveal: Callable[[], str] = lambda: text  # not an attribute: who walks through those meets a function

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __reduce__(self) -> NoReturn:
        raise TypeError("hidden text can't be pickled")
