"""What an engine process is told at its start, in one line of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """``specs``: the models to serve. ``drain``: seconds that running work has to end when the process is to stop.

    ``more``: JSON for what runs beside the engine in its process; the engine itself does not look at it.
    """

    specs: tuple[ModelSpec, ...]
    drain: float = 10.0
    more: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        specs = [asdict(spec) for spec in self.specs]
        return orjson.dumps({"specs": specs, "drain": self.drain, "more": dict(self.more)}) + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Config:
        """Raises `BadRequest` for what `line` did not write."""
        try:
            body = orjson.loads(line)
            return cls(specs=read_specs(body["specs"]), drain=float(body["drain"]), more=dict(body["more"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(f"the engine's configuration cannot be read: {error}") from error


def read_specs(bodies: Sequence[dict[str, Any]]) -> tuple[ModelSpec, ...]:
    return tuple(ModelSpec(**body) for body in bodies)
