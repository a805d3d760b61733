"""Whether a model's source can be served, asked without loading its weights."""

from __future__ import annotations

import re
from pathlib import Path

from bakehouse.engine.errors import ModelRefused
from bakehouse.engine.spec import DUMMY, ModelSpec

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def is_hub_id(source: str) -> bool:
    """Whether *source* names a model of the hub and no folder that is here."""
    return _HUB_ID.fullmatch(source) is not None and not Path(source).expanduser().exists()


def check_source(spec: ModelSpec) -> str:
    """The architecture of *spec*'s folder; ``dummy``; or an empty text for a hub id, which is looked at at its load.

    Reads configuration and the headers of the weights. Raises `ModelRefused`, which names the file or the architecture,
    and where the libraries for it are missing says what to install.
    """
    if spec.is_dummy:
        return DUMMY
    if is_hub_id(spec.source):
        return ""
    try:
        from bakehouse.engine.runner.torch import load
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] == "bakehouse":
            raise
        raise ModelRefused(
            f"{missing.name} is not installed; local models need the extra: pip install 'bakehouse[engine]'"
        ) from missing
    folder = load.find_folder(spec)
    config = load.read_config(folder)
    load.check_weights(folder)
    device = load.choose_device(spec)
    load.choose_dtype(spec, config, device)
    return ", ".join(config.architectures or ()) or str(config.model_type)
