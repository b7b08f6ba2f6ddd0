"""OpenAI's API as it is spoken: requests, answers, streamed chunks.

Source: OpenAI's openapi description, and what its many imitations were seen to do: other ids in each chunk, usage
where it wasn't asked for or all zeros, no `[DONE]`, reasoning under three names, tool calls with any index.
"""

from aiaas_sdk.wire.openai.answers import decode_answer, decode_models
from aiaas_sdk.wire.openai.embeddings import decode_embeddings, joined
from aiaas_sdk.wire.openai.failures import coded_error, event_error, means_model
from aiaas_sdk.wire.openai.requests import (
    MOST_TEXTS,
    PLAIN,
    Dialect,
    encode_chat,
    encode_completion,
    encode_embeddings,
    encoded,
)
from aiaas_sdk.wire.openai.streams import Assembler
from aiaas_sdk.wire.openai.thinking import Thinking

__all__ = [
    "MOST_TEXTS",
    "PLAIN",
    "Assembler",
    "Dialect",
    "Thinking",
    "coded_error",
    "decode_answer",
    "decode_embeddings",
    "decode_models",
    "encode_chat",
    "encode_completion",
    "encode_embeddings",
    "encoded",
    "event_error",
    "joined",
    "means_model",
]
