"""The app that ``infsh app init`` writes: small, and it runs."""

from __future__ import annotations

import re
from pathlib import Path

INF_YML = """\
name: {name}
description: Says hello, word by word
category: text
kernel: python-3.11
resources:
  gpu:
    count: 0
  ram: 0.5
"""

INFERENCE_PY = """\
import asyncio
from typing import AsyncGenerator

from infsh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup


class AppSetup(BaseAppSetup):
    greeting: str = "Hello"


class AppInput(BaseAppInput):
    name: str = "world"
    times: int = 3


class AppOutput(BaseAppOutput):
    text: str


class App(BaseApp):
    async def setup(self, config: AppSetup):
        # Load models here: it happens once, not once per call.
        self.greeting = config.greeting

    async def run(self, app_input: AppInput) -> AsyncGenerator[AppOutput, None]:
        self.logger.info("greeting %s", app_input.name)
        words = []
        for step in range(app_input.times):
            words.append(f"{self.greeting}, {app_input.name}!")
            self.report_progress(step + 1, app_input.times)
            # Every yield is shown while the task runs; the last one is the result.
            yield AppOutput(text=" ".join(words))
            await asyncio.sleep(0)

    async def unload(self):
        pass
"""

REQUIREMENTS = "# The app's own packages, one per line. The SDK is added when the app is deployed.\n"
IGNORE = "__pycache__/\n.venv/\n"


class InitError(Exception):
    """The app cannot be made there."""


def write_template(name: str, folder: Path) -> list[str]:
    """Make ``folder`` with an app called ``name``; returns the files. Raises `InitError` rather than overwrite."""
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", name):
        raise InitError(f"{name!r} is no app name: use lower-case letters, digits and dashes")
    files = {"inf.yml": INF_YML.format(name=name), "inference.py": INFERENCE_PY}
    files.update({"requirements.txt": REQUIREMENTS, ".gitignore": IGNORE})
    taken = [file for file in files if (folder / file).exists()]
    if taken:
        raise InitError(f"{folder} already has {', '.join(taken)}")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return sorted(files)
