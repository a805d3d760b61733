"""Which models an engine of `pie` starts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bakehouse.cli.failures import Failure
from bakehouse.engine.spec import ModelSpec


def served(home: Path, names: Sequence[str], dummy: bool) -> list[ModelSpec]:
    """Those of *names*, or all that are recorded in *home*; with *dummy* engines without weights, called so.

    Raises Failure where there is none, BakehouseError for a name that is not recorded.
    """
    # Imported here, because `wiring` loads much.
    from bakehouse.wiring.local import DUMMY_MODEL
    from bakehouse.wiring.models import Models

    if dummy:
        return [replace(DUMMY_MODEL, name=name) for name in names] or [DUMMY_MODEL]
    models = Models(home)
    specs = [models.get(name) for name in names] or models.list()
    if not specs:
        raise Failure(
            "there is no model here",
            hint="Record one with `pie model add NAME SOURCE`, or try without one: --dummy.",
        )
    return specs
