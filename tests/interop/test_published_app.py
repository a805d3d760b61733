"""An app that requires the published package gets that one, and its files and models work."""

from __future__ import annotations

import httpx
import pytest

from tests.interop.conftest import APPS
from tests.support.server import COMPLETED, Server

pytestmark = pytest.mark.interop


def test_the_published_sdk_wins_in_its_own_environment(bakehouse_server: Server) -> None:
    bakehouse_server.deploy(APPS / "published")
    document = bakehouse_server.upload(b"a recipe", "recipe.txt", "text/plain")
    payload = {"name": "baker", "document": document["uri"]}
    task = bakehouse_server.run("local/interop-published", payload, wait=60)
    assert task["status"] == COMPLETED, task
    output = task["output"]
    assert (output["greeting"], output["sdk"], output["size"]) == ("hello baker", "0.36.0", 8)
    assert httpx.get(output["copy_of_it"]).content == b"a recipe"
