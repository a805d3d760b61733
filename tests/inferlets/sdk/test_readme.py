"""The code of the SDK's README runs as it stands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import inferlet

from bakehouse.inferlets.calls.native import NativeHost
from tests.inferlets.sdk.support import Seen

README = Path(inferlet.__file__).parents[2] / "README.md"


def test_its_code_runs(host: NativeHost, seen: Seen) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert len(blocks) == 3 and len(seen.messages) == 1 and len(names["texts"]) == 4
    assert all(isinstance(text, str) and text for text in names["texts"])
    assert len(asyncio.run(names["main"]()).split("\n")) >= 4
