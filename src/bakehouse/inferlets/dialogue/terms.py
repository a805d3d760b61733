"""What a client may ask for, and what it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from bakehouse.inferlets.base import Limits
from bakehouse.inferlets.dialogue.fields import BadRequest
from bakehouse.inferlets.processes import Process
from bakehouse.inferlets.programs import Program


def tighter(most: Limits, wanted: Mapping[str, float]) -> Limits:
    """*most*, with the values of *wanted* in place of its own. Raises `BadRequest` for an unknown or a larger one."""
    for name, value in wanted.items():
        if name not in _LIMITS:
            raise BadRequest(f"limits: {name} is none of {', '.join(_LIMITS)}", field="limits")
        if not 0 < value <= getattr(most, name):
            raise BadRequest(
                f"limits: {name} may be from above 0 to {getattr(most, name)}, not {value}", field="limits"
            )
        if isinstance(getattr(most, name), int) and value != int(value):
            raise BadRequest(f"limits: {name} is a whole number, not {value}", field="limits")
    return replace(most, **{name: type(getattr(most, name))(value) for name, value in wanted.items()})


_LIMITS = tuple(field.name for field in fields(Limits))


def shown(process: Process) -> dict[str, Any]:
    """One row of a list."""
    return {
        "process": process.launch.id,
        "program": process.launch.program,
        "state": "running" if process.outcome is None else "ended",
        "attached": process.attached,
        "started": process.started_at,
    }


def installed(program: Program) -> dict[str, Any]:
    """One row of a list."""
    return {"program": program.ref, "description": program.manifest.description, "digest": program.digest}
