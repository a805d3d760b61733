"""Programs that run inside the serving engine, next to the model.

Everything here is synchronous; `inferlet.aio` has the same for `async def` programs. In the sandbox the program is
connected to its host from the start; under plain CPython `connect` does that.
"""

from __future__ import annotations

from inferlet import mcp, messaging, runtime, session, zo
from inferlet._connect import Connection, connect
from inferlet.adapter import Adapter
from inferlet.context import Context
from inferlet.decoder import Decoder
from inferlet.events import Event
from inferlet.forward import ForwardPass, Output
from inferlet.generation import Penalties, PromptLookup
from inferlet.grammar import Grammar, Matcher
from inferlet.masks import Mask
from inferlet.model import Model, Tokenizer
from inferlet.sampler import Sampler
from inferlet.streams import EventStream, TokenStream

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

__version__ = "0.1.0"
