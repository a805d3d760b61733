"""``inferencesh==0.36.0`` from PyPI runs an inferlet, which is an app like others to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.inferlets.platform.conftest import actor, package, with_model
from tests.interop.environments import run_scenario

pytestmark = pytest.mark.interop
__all__ = ["actor", "package"]  # fixtures


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_its_messages_are_outputs_of_the_stream_none_lost(
    module_servers: StartServer, tmp_path: Path, python_client: list[str], package: object, colour: str
) -> None:
    server = module_servers(home=with_model(tmp_path / "home"))
    server.deploy(package())  # type: ignore[operator]
    wanted = [f"message {number}" for number in range(20)]
    config = {
        "base_url": server.base_url,
        "key": server.key,
        "inferlet": "local/actor@1.0.0",
        "messages": wanted,
        "colour": colour,
    }
    found = run_scenario(python_client, "inferlet", config)
    assert found["heard"] == wanted
    assert found["last"]["output"] == {"result": "said"}
