"""The interfaces of Pie 0.2 (``sdk/inferlet/wit/pie``) over the same `Calls` that programs of ours use.

A file for each group of interfaces, each with the table of what its functions do.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pie import adapters, contexts, inference, instruct, mcp, models, services
from bakehouse.inferlets.sandbox.pie.locks import Locks


def interfaces() -> Iterator[Interface]:
    return chain(
        models.interfaces(),
        contexts.interfaces(Locks()),
        inference.interfaces(),
        adapters.interfaces(),
        services.interfaces(),
        instruct.interfaces(),
        mcp.interfaces(),
    )
