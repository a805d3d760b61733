"""Examples as tasks of a server: deployed as folders, run with an input, followed to their end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from inferencesh import Inference

from tests.conftest import StartServer
from tests.inferlets.examples.support import EXAMPLES
from tests.inferlets.platform.conftest import with_model
from tests.support.server import Server


@pytest.fixture(scope="module")
def server(module_servers: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return module_servers(home=with_model(tmp_path_factory.mktemp("server") / "home"))


@pytest.fixture
def client(server: Server) -> Iterator[Inference]:
    with Inference(server.key, base_url=server.base_url) as found:
        yield found


def run(client: Inference, app: str, given: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """What the program sent on its way, and the task in the end."""
    sent: list[Any] = []
    for update in client.run({"app": app, "input": given}, stream=True):
        sent += update.get("sent", [])
    return sent, client.get_task(update["id"])


@pytest.mark.timeout(200)
def test_beams_come_as_they_are_found(server: Server, client: Inference) -> None:
    server.deploy(EXAMPLES / "beam-search")
    sent, task = run(client, "local/beam-search@1.0.0", {"width": 2, "depth": 3, "max_tokens": 5})
    output = task["output"]
    assert [f"{beam['score']:8.3f}  {beam['text']}" for beam in output["beams"]] == sent
    assert output["best"] == output["beams"][0]["text"]


@pytest.mark.timeout(200)
def test_an_input_is_checked_against_the_manifest(server: Server, client: Inference) -> None:
    server.deploy(EXAMPLES / "beam-search")
    with pytest.raises(Exception, match="width"):
        client.run({"app": "beam-search", "input": {"width": "wide"}})


@pytest.mark.timeout(200)
def test_a_swarm_of_instances(server: Server, client: Inference) -> None:
    """What a program spawns is what the same owner deployed."""
    server.deploy(EXAMPLES / "agent-swarm")
    jobs = ["rye", "oat", "spelt", "barley"]
    sent, task = run(client, "agent-swarm@1.0.0", {"agents": 2, "jobs": jobs, "max_tokens": 5, "apart": True})
    assert str(task["status"]) == "completed", task.get("error")
    assert sorted(task["output"]["made"]) == sorted(jobs)
    assert len(sent) == 4


@pytest.mark.timeout(200)
def test_a_prompt_that_outlives_its_task(server: Server, client: Inference) -> None:
    server.deploy(EXAMPLES / "prefix-caching")
    given = {"name": "kept", "handbook": "Weigh the flour.", "max_tokens": 5}
    first, second = (run(client, "prefix-caching", given)[1]["output"] for _ in range(2))
    assert (first["found"], second["found"]) == (False, True)
    assert first["answer"] == second["answer"]
