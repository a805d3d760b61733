"""A command line of one's own, without the variables of whoever runs the tests."""

from __future__ import annotations

import os

import pytest

from tests.cli.support import Command


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("BAKEHOUSE_", "INFERENCE_")):
            monkeypatch.delenv(name)


@pytest.fixture
def bakehouse(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a ``bakehouse`` command: ``bakehouse("keys", "list").status``."""
    return Command(capsys)
