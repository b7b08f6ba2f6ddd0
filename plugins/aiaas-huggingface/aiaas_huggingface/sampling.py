"""The options of `generate` as `parameters`; what a peer hasn't got is refused, never dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiaas_sdk.errors import UnsupportedOperationError
from aiaas_sdk.records.chat import Chat

__all__ = ["drawn", "prompt_of", "refuse", "stops_of"]

CHAT = "An endpoint of TGI takes messages, tools and output= at openai+https://HOST/v1"


def prompt_of(chat: Chat) -> str:
    """The text to go on with.

    Raises:
        UnsupportedOperationError: it is messages, or wants tools or a schema.
    """
    if chat.text is None or chat.tools or chat.schema is not None:
        raise UnsupportedOperationError("this endpoint continues a text, and that is all", hint=CHAT)
    return chat.text


def refuse(chat: Chat, taken: frozenset[str], peer: str) -> None:
    """Raise UnsupportedOperationError for an option that isn't among `taken`."""
    for name, value in chat.sampling.items():
        if name not in taken and (name, value) != ("n", 1):
            raise UnsupportedOperationError(f"{peer} can't take the option {name!r}")


def drawn(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """How a token is drawn: of the likeliest alone at temperature 0, where neither endpoint takes a 0."""
    options = {name: sampling[name] for name in ("temperature", "top_p", "top_k") if name in sampling}
    if options.get("top_p") == 1:
        del options["top_p"]  # all of them; endpoints want less than 1
    if options.get("temperature") == 0:
        return {"do_sample": False}
    return {"do_sample": True, **options} if options else {}


def stops_of(chat: Chat) -> Sequence[str]:
    stop = chat.sampling.get("stop", ())
    return (stop,) if isinstance(stop, str) else tuple(stop)
