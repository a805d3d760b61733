"""The page about hosts says what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

from bakehouse.inferlets.base import MIB, Limits, OwnerLimits
from bakehouse.inferlets.manifest import INTERFACES, Manifest, Parameter, ParameterType, _File, _Package
from bakehouse.inferlets.payload import MAX_PAYLOAD
from bakehouse.inferlets.processes import KEPT_SECONDS, RING, RING_BYTES
from bakehouse.inferlets.programs import MAX_PROGRAMS, MAX_WASM

PAGE = (Path(__file__).parents[3] / "docs" / "inferlet-host.md").read_text(encoding="utf-8")


def test_what_an_owner_has() -> None:
    limits = OwnerLimits()
    text = " ".join(PAGE.split())
    assert f"{limits.instances} at one time, the sum of their `memory` limits {limits.memory >> 30} GiB" in text
    assert f"{limits.topics} topics, and {limits.queued} messages or {limits.queued_bytes // MIB} MiB" in text
    assert f"{limits.memory // Limits().memory} run at one time" in text
    assert f"{RING} entries and {RING_BYTES // MIB} MiB" in text
    assert KEPT_SECONDS == 3600
    assert f"has at most {MAX_WASM // MIB} MiB, of which {MAX_PAYLOAD // MIB} MiB" in text
    assert f"{MAX_PROGRAMS} programs, and {limits.programs >> 30} GiB of them" in text


def test_the_manifest_has_every_field() -> None:
    text = re.search(r"## Pie.toml\n\n```toml file=tasting/Pie.toml\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    found = tomllib.loads(text[1])
    assert found.keys() == _File.model_fields.keys()
    assert found["package"].keys() == _Package.model_fields.keys()
    assert Manifest.parse(text[1]).parameters[1] == Parameter("times", "int", optional=True)
    types = [f"`{name}`" for name in get_args(ParameterType)]
    assert f"Types of parameters are {', '.join(types[:-1])} and {types[-1]};" in PAGE
    for name, version in INTERFACES.items():
        assert f"`{name}`" in PAGE and str(version) in PAGE
