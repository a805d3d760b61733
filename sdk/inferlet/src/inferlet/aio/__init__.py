"""The same as `inferlet`, for `async def` programs: what waits is awaited, and other tasks go on meanwhile.

``await asyncio.gather(a.generate_text(s), b.generate_text(s))`` runs both in one batch of the model.
"""

from __future__ import annotations

from inferlet._connect import Connection, connect
from inferlet.aio import mcp, messaging, runtime, session, zo
from inferlet.aio.adapter import Adapter
from inferlet.aio.context import Context
from inferlet.aio.forward import ForwardPass, Output
from inferlet.aio.grammar import Grammar, Matcher
from inferlet.aio.streams import EventStream, TokenStream
from inferlet.decoder import Decoder
from inferlet.events import Event
from inferlet.generation import Penalties, PromptLookup
from inferlet.masks import Mask
from inferlet.model import Model, Tokenizer
from inferlet.sampler import Sampler

__all__ = [
    "Adapter",
    "Connection",
    "Context",
    "Decoder",
    "Event",
    "EventStream",
    "ForwardPass",
    "Grammar",
    "Mask",
    "Matcher",
    "Model",
    "Output",
    "Penalties",
    "PromptLookup",
    "Sampler",
    "TokenStream",
    "Tokenizer",
    "connect",
    "mcp",
    "messaging",
    "runtime",
    "session",
    "zo",
]
