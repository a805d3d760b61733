"""One server with the interop apps deployed, and a way to run a scenario in a published client's environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interop.environments import published_js, published_python, run_scenario
from tests.support.server import Server

APPS = Path(__file__).parent / "apps"
SCRIPTS = Path(__file__).parent / "scripts"
Scenario = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def kit(bakehouse_server: Server) -> str:
    """The ref of the deployed kit app."""
    bakehouse_server.deploy(APPS / "kit")
    return "local/interop-kit"


@pytest.fixture(scope="session")
def python_client() -> list[str]:
    return [str(published_python()), str(SCRIPTS / "client.py")]


@pytest.fixture(scope="session")
def js_client() -> list[str]:
    return published_js()


@pytest.fixture
def config(bakehouse_server: Server, kit: str, tmp_path: Path) -> dict[str, object]:
    return {"base_url": bakehouse_server.base_url, "key": bakehouse_server.key, "app": kit, "folder": str(tmp_path)}


@pytest.fixture(params=["sync", "async"])
def python_scenario(request: pytest.FixtureRequest, python_client: list[str], config: dict[str, object]) -> Scenario:
    """``python_scenario("run")`` runs it with the published Python client, once in each colour."""
    return lambda name: run_scenario(python_client, name, {**config, "colour": request.param})


@pytest.fixture
def js_scenario(js_client: list[str], config: dict[str, object]) -> Scenario:
    return lambda name: run_scenario(js_client, name, config)
