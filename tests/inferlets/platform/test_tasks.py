"""An inferlet as a task: what it says, writes, sends and returns, what it is told, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from inferencesh import Inference, TaskFailed

from tests.e2e.support import read_all, send, statuses
from tests.inferlets.platform.conftest import Package
from tests.support.server import CANCELLED, COMPLETED, ENTRY, FAILED, NO_TLS, Server
from tests.support.waiting import wait_until


def do(what: str, **values: Any) -> dict[str, Any]:
    return {"do": what, **values}


def sent(updates: list[dict[str, Any]]) -> list[Any]:
    return [message for update in updates for message in update.get("sent") or []]


def until_sent(server: Server, task_id: str, message: str) -> None:
    wait_until(lambda: message in server.task(task_id)["sent"], f"{message!r} from {task_id}", 30, every=0.02)


def test_a_stream_shows_every_message_once_in_order(client: Inference) -> None:
    wanted = [f"message {number}" for number in range(50)]
    stream = client.run({"app": "local/actor@1.0.0", "input": do("say", messages=wanted)}, stream=True)
    updates = list(stream)
    assert sent(updates) == wanted
    assert updates[-1].output == {"result": "said"}
    assert str(updates[-1].status) == "completed"


def test_who_comes_late_gets_them_too(server: Server) -> None:
    task = server.run("actor", do("say", messages=["one", "two", "three"]))
    assert task["sent"] == ["one", "two", "three"]
    assert sent(read_all(server, task["id"])) == ["one", "two", "three"]


def test_readers_that_know_outputs_only_see_them_numbered(server: Server) -> None:
    task = server.run("actor", do("flood", count=40, size=1000))
    seen: list[str] = []
    for update in read_all(server, task["id"]):
        partial = update["partial_output"] or {}
        if "messages" in partial:
            assert update["output"] == partial
            assert partial["first"] == len(seen)
            seen += partial["messages"]
    assert [text.split()[0] for text in seen] == [str(number) for number in range(40)]


def test_much_is_sent_without_loss(client: Inference) -> None:
    updates = list(client.run({"app": "actor", "input": do("flood", count=300, size=20_000)}, stream=True))
    assert [text.split()[0] for text in sent(updates)] == [str(number) for number in range(300)]


def test_more_than_a_task_may_send_fails_it_by_name(server: Server) -> None:
    task = server.run("actor", do("flood", count=40, size=500_000), wait=60)
    assert (task["status"], task["error_code"]) == (FAILED, "limit_exceeded")
    assert task["error"].startswith("messages: ")


def test_a_task_whose_last_message_was_one_too_many_did_not_succeed(server: Server) -> None:
    """Though its program came to its end before it could be stopped."""
    task = server.run("actor", do("flood", count=34, size=500_000), wait=60)
    assert (task["status"], task["error_code"]) == (FAILED, "limit_exceeded")


def test_more_files_than_a_task_may_send_fail_it_by_name(server: Server) -> None:
    task = server.run("actor", do("many_files", count=40, size=1 << 20), wait=60)
    assert (task["status"], task["error_code"]) == (FAILED, "limit_exceeded")
    assert task["error"].startswith("files: ")
    assert len(Server.data(server.api.get(f"/tasks/{task['id']}/files?role=output"))) == 8


def test_prints_are_logs(server: Server) -> None:
    task = server.run("actor", do("print"))
    assert task["output"] == {"printed": 2}
    assert sorted(task["logs"]) == ["to stderr", "to stdout"]
    logs = Server.data(server.api.get(f"/tasks/{task['id']}/logs"))["logs"]
    assert {(entry["stream"], entry["content"]) for entry in logs} == {("stdout", "to stdout"), ("stderr", "to stderr")}


def test_the_model_answers(server: Server) -> None:
    task = server.run("actor", do("generate"))
    assert task["status"] == COMPLETED, task["error"]
    assert task["output"]["result"]


def test_its_inbox_is_what_it_receives(server: Server) -> None:
    task = send(server, "actor", do("echo"))
    for content in ("early", {"text": "as text"}, {"a": 1}, "stop"):
        Server.data(server.api.post(f"/tasks/{task['id']}/inbox", json={"content": content}))
    ended = server.wait(task["id"], 30)
    assert ended["output"] == {"result": "stopped"}
    assert ended["sent"] == ["heard early", "heard as text", 'heard {"a":1}']


def test_a_person_answers_it_from_the_command_line(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENTRY, "tasks", "send"]
    target = ["--url", server.base_url, "--key", server.key]
    task = send(server, "actor", do("echo"))
    for text in ("by hand", "stop"):
        subprocess.run([*command, task["id"], text, *target], check=True, capture_output=True)
    assert server.wait(task["id"], 30)["sent"] == ["heard by hand"]
    task = send(server, "actor", do("file_size"))
    (tmp_path / "letter.txt").write_bytes(b"x" * 12)
    subprocess.run([*command, task["id"], "--file", tmp_path / "letter.txt", *target], check=True, capture_output=True)
    assert server.wait(task["id"], 30)["output"] == {"size": 12}
    for wrong in ([], ["text", "--file", str(tmp_path / "letter.txt")], ["--file", str(tmp_path / "none")]):
        assert subprocess.run([*command, task["id"], *wrong, *target], capture_output=True).returncode == 2


def test_more_letters_than_its_queue_holds_all_arrive_in_order(server: Server) -> None:
    task = send(server, "actor", do("echo"))
    wanted = [f"letter {number}" for number in range(40)]
    for text in [*wanted, "stop"]:
        Server.data(server.api.post(f"/tasks/{task['id']}/inbox", json={"content": text}))
    assert server.wait(task["id"], 30)["sent"] == [f"heard {text}" for text in wanted]


def test_a_file_that_it_sends_is_a_file_of_the_task(server: Server) -> None:
    size = 3_000_000
    task = server.run("actor", do("files", size=size))
    (file,) = Server.data(server.api.get(f"/tasks/{task['id']}/files?role=output"))
    assert (file["size"], file["content_type"]) == (size + 8, "image/png")
    before, told, after = task["sent"]
    assert (before, told["uri"], after) == ("before", file["uri"], "after")
    content = httpx.get(file["uri"], verify=NO_TLS).content
    assert content == b"\x89PNG\r\n\x1a\n" + bytes(size)


def test_a_file_in_its_inbox_is_a_file_it_receives(server: Server) -> None:
    record = server.upload(b"flour" * 1000, "flour.txt")
    task = send(server, "actor", do("file_size"))
    Server.data(server.api.post(f"/tasks/{task['id']}/inbox", json={"content": {"file": record["uri"]}}))
    assert server.wait(task["id"], 30)["output"] == {"size": 5000}


def test_what_cannot_be_delivered_is_said_in_the_log(server: Server) -> None:
    task = send(server, "actor", do("echo"))
    for content in ({"file": "https://elsewhere.example/x"}, "stop"):
        Server.data(server.api.post(f"/tasks/{task['id']}/inbox", json={"content": content}))
    ended = server.wait(task["id"], 30)
    assert ended["status"] == COMPLETED
    assert any("item 1 of the inbox was not delivered" in line for line in ended["logs"])


def test_an_exception_fails_the_task_with_its_text(client: Inference) -> None:
    with pytest.raises(TaskFailed, match="ValueError: the oven is cold") as caught:
        client.run({"app": "actor", "input": do("fail")})
    assert any("do_fail" in line for line in caught.value.task.logs)


@pytest.mark.parametrize(("what", "limit"), [("fill", "memory"), ("loop", "cpu")])
def test_a_limit_fails_the_task_by_name(server: Server, what: str, limit: str) -> None:
    task = server.run("actor", do(what), wait=60)
    assert (task["status"], task["error_code"]) == (FAILED, "limit_exceeded"), task
    assert limit in task["error"]


@pytest.mark.parametrize("what", ["echo", "loop"])
def test_a_cancel_stops_it_at_once(server: Server, what: str) -> None:
    task = send(server, "actor", do(what))
    wait_until(lambda: server.task(task["id"])["status"] >= 7, "it to run", 30, every=0.02)
    began = time.monotonic()
    server.api.post(f"/tasks/{task['id']}/cancel")
    assert server.wait(task["id"], 30)["status"] == CANCELLED
    assert time.monotonic() - began < 1.5


def test_a_deadline_stops_it(server: Server) -> None:
    task = server.run("actor", do("echo"), timeout=0.3)
    assert (task["status"], task["error_code"]) == (FAILED, "deadline_exceeded")


def test_it_goes_straight_from_the_queue_to_running(server: Server) -> None:
    task = server.run("actor", do("nothing"))
    assert statuses(server, task["id"]) == ["received", "queued", "scheduled", "running", "completed"]
    assert (task["kind"], task["output"]) == ("inferlet", {"result": ""})


def test_it_calls_the_tools_that_the_operator_named(server: Server) -> None:
    task = server.run("actor", do("tool"), wait=60)
    assert task["output"] == {"result": "5"}, task["error"]


def test_children_run_beside_it(server: Server) -> None:
    task = server.run("actor", do("spawn", program="actor@1.0.0", input=do("who")))
    assert task["status"] == COMPLETED, task["error"]
    assert task["output"]["username"] == "local"
    assert task["output"]["instance"] != task["id"]


def test_parameters_are_the_schema_of_its_input(server: Server, package: Package) -> None:
    more = (
        '[parameters.do]\ntype = "string"\ndescription = "what to do"\n'
        '[parameters.count]\ntype = "int"\noptional = true\n'
    )
    app = server.deploy(package("picky", "2.1.0", more))
    schema = app["version"]["input_schema"]
    assert schema["properties"]["do"] == {"type": "string", "description": "what to do"}
    assert schema["required"] == ["do"]
    refused = server.api.post("/apps/run", json={"app": "picky@2.1.0", "input": {"do": "who", "count": "many"}})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["path"] == "/input/count"
    assert server.run("picky", do("who", count=1))["status"] == COMPLETED


def test_a_session_of_the_platform_is_refused(server: Server) -> None:
    refused = server.api.post("/apps/run", json={"app": "actor", "input": {}, "session": "new"})
    assert refused.status_code == 400
    assert "/session" in refused.text


def test_owners_see_nothing_of_each_other(server: Server, package: Package) -> None:
    other = server.new_owner("other")
    with server.client(other) as api:
        missing = api.post("/apps/run", json={"app": "local/actor", "input": {}})
        assert missing.status_code == 404
        shared = server.deploy(package("shared"))
        server.data(server.api.post(f"/apps/{shared['id']}/visibility", json={"visibility": "public"}))
        send(server, "shared", do("push", text="of local"))
        call = {"app": "local/shared", "input": do("who")}
        whose = Server.data(api.post("/apps/run", json=call, headers={"Prefer": "wait=30"}))
        assert whose["output"]["username"] == "other"
        pulled = Server.data(api.post("/apps/run", json={"app": "local/shared", "input": do("pull")}))
        Server.data(api.post("/apps/run", json={"app": "local/shared", "input": do("push", text="of other")}))
        ended = wait_until(lambda: _ended(api, pulled["id"]), "the message", 30, every=0.05)
        assert ended["output"] == {"result": "of other"}
    assert server.run("shared", do("pull"))["output"] == {"result": "of local"}


def test_a_public_program_brings_what_its_manifest_names_and_no_more(server: Server, package: Package) -> None:
    server.deploy(package("helper"))
    app = server.deploy(package("leader", more='[dependencies]\nhelper = "1.0.0"\n'))
    server.data(server.api.post(f"/apps/{app['id']}/visibility", json={"visibility": "public"}))
    wait = {"Prefer": "wait=30"}
    with server.client(server.new_owner("follower")) as api:
        call = {"app": "local/leader", "input": do("spawn", program="helper", input=do("who"))}
        assert Server.data(api.post("/apps/run", json=call, headers=wait))["output"]["username"] == "follower"
        call["input"] = do("spawn", program="actor@1.0.0", input=do("who"))
        assert "not installed" in Server.data(api.post("/apps/run", json=call, headers=wait))["error"]


def _ended(api: httpx.Client, task_id: str) -> dict[str, Any] | None:
    task = Server.data(api.get(f"/tasks/{task_id}"))
    return dict(task) if task["status"] >= COMPLETED else None
