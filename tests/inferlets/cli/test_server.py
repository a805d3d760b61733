"""``pie serve`` and the commands that speak to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from inferlet.client import Unauthorized, connect

from bakehouse.cli.app import main as bakehouse
from bakehouse.cli.bakery import main as bakery
from tests.inferlets.cli.conftest import Ended, Pie
from tests.inferlets.client.support import PieServer, manifest
from tests.support.inferlets import keep_builds
from tests.support.server import free_port
from tests.support.waiting import wait_until


def test_install_and_uninstall(served: Pie) -> None:
    wasm = served.folder / "program" / "tool.wasm"
    other = served.folder / "other.toml"
    other.write_text(manifest("other", "2.1.0"))
    assert served.here("install", wasm, "--manifest", other, "--json").json == {"program": "other@2.1.0"}
    assert [row["program"] for row in served.here("programs", "--json").json] == ["other@2.1.0", "tool@1.0.0"]
    assert served.here("uninstall", "other@2.1.0").status == 0
    assert "not installed" in served.here("submit", "other").err


PROVE = """from inferlet import runtime

def main(input: dict) -> str:
    return f"{runtime.username()} proves for {input['hours']} h"
"""


def test_bakery_publishes_to_a_server_that_builds_nothing(served: Pie) -> None:
    keep_builds(served.home)
    folder = served.folder / "prove"
    folder.mkdir()
    (folder / "main.py").write_text(PROVE)
    parameters = '[parameters]\nhours = { type = "int", description = "How long" }\n'
    (folder / "Pie.toml").write_text(manifest("prove") + f'description = "Proves dough"\n{parameters}')

    def inferlet(*arguments: object) -> Ended:
        return served.here("inferlet", *arguments, command=bakery)

    assert inferlet("publish", folder).out == "local/prove@1.0.0\n"
    assert [row["program"] for row in inferlet("search", "dough", "--json").json] == ["prove@1.0.0"]
    assert inferlet("search", "nothing-like-it", "--json").json == []
    told = inferlet("info", "local/prove").out
    assert told == "prove@1.0.0\nProves dough\n  --hours  integer  How long\n"
    assert served("submit", "prove", "--", "--hours", "3").out == "[Result] local proves for 3 h\n"
    (folder / "main.py").write_text("print(1)")
    again = inferlet("publish", folder)
    assert (again.status, "raise its version" in again.err) == (2, True)
    assert "namespace 'local'" in inferlet("publish", folder, "--namespace", "others").err
    assert "not installed" in inferlet("info", "gone").err
    assert served.here("uninstall", "prove@1.0.0").status == 0


def test_what_pie_serve_has_not_is_said(served: Pie) -> None:
    ended = served.here("apps", "list", command=bakehouse)
    assert ended.status == 2
    assert "`bakehouse serve` has" in ended.err


def test_submit_follows_a_program_to_its_end(served: Pie) -> None:
    ended = served("submit", "tool", "--", "echo", "2", lines="a\nb\n")
    assert (ended.status, ended.out) == (0, "[Message] a\n[Message] b\n[Result] b\n")
    assert served("submit", "tool@1.0.0", "--", "fail").status == 1


def test_what_is_typed_in_a_terminal_is_sent_when_somebody_says_so(served: Pie) -> None:
    keyboard, terminal = os.openpty()
    try:
        running = served.start("submit", "-i", "tool", "--", "echo", "1", stdin=terminal)
        os.write(keyboard, b"typed\n")
        assert running.communicate(timeout=60)[0] == "[Message] typed\n[Result] typed\n"
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_what_was_left_to_itself_can_be_attached(served: Pie) -> None:
    process = detached(served, "talk_when_told", "2")
    assert state(served, process) == ("running", False)
    ended = served("attach", process, lines="go\nend\n")
    assert ended.out == "[Message] 0\n[Message] 1\n[Result] told\n"
    assert state(served, process) == ("ended", False)


def test_terminate(served: Pie) -> None:
    process = detached(served, "wait")
    assert served.here("terminate", process).status == 0
    ended = served("attach", process)
    assert ended.status == 1
    assert "terminated" in ended.err
    assert process in served.here("list").out


def detached(served: Pie, *arguments: str) -> str:
    """The id of a process that nobody listens to."""
    return str(served.here("submit", "tool", "--detach", "--json", "--", *arguments).json["process"])


def state(served: Pie, process: str) -> tuple[str, bool]:
    """Whether it runs, and whether it is attached."""
    (row,) = [row for row in served.here("list", "--json").json if row["process"] == process]
    return row["state"], row["attached"]


def test_what_a_server_has_installed_can_be_run_beside_it(served: Pie) -> None:
    assert served("run", "--dummy", "tool", "--", "say", "hi").out == "[Result] hi\n"


@pytest.mark.parametrize(("command", "then"), [("submit", "ended"), ("attach", "running")])
def test_ctrl_c_terminates_what_was_submitted_and_leaves_what_was_attached(
    served: Pie, command: str, then: str
) -> None:
    before = {row["process"] for row in served.here("list", "--json").json}
    words = ["talk_when_told", "1"]
    if command == "submit":
        running = served.start("submit", "tool", "--", *words)
    else:
        running = served.start("attach", detached(served, *words))
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write("go\n")
    running.stdin.flush()
    assert running.stdout.readline() == "[Message] 0\n"
    assert served.interrupt(running).status == 130
    rows = served.here("list", "--json").json
    assert [row["state"] for row in rows if row["process"] not in before] == [then]


def test_no_server_is_said(pie: Pie) -> None:
    ended = pie.here("list", "--url", f"http://127.0.0.1:{free_port()}", "--key", "x")
    assert ended.status == 3
    assert "cannot reach" in ended.err
    assert pie.here("list").status == 3


def test_a_wrong_key_is_said(served: Pie) -> None:
    url = json.loads((served.home / "endpoint.json").read_text())["url"]
    ended = served.here("list", "--url", url, "--key", "inf_wrong")
    assert ended.status == 3
    assert "not known" in ended.err


def test_a_key_that_is_revoked_ends_its_connections(served: Pie) -> None:
    key = served.here("auth", "add", "ada", "--json").json["key"]
    url = json.loads((served.home / "endpoint.json").read_text())["url"]

    async def cut_off() -> None:
        async with connect(url, token=key) as ada:
            assert await ada.processes() == []
            await asyncio.to_thread(served.here, "auth", "remove", "ada")
            async with asyncio.timeout(20):
                while True:
                    await ada.ping()
                    await asyncio.sleep(0.1)

    with pytest.raises(Unauthorized, match="revoked"):
        asyncio.run(cut_off())


def test_one_server_per_data_directory(served: Pie) -> None:
    ended = served.here("serve", "--dummy", "--port", "0")
    assert ended.status == 2
    assert "another server is running" in ended.err


def test_a_server_stops_when_it_is_told_and_keeps_its_programs(pie: Pie, server: PieServer, component: Path) -> None:
    pie.here("install", component)
    detached(pie, "spin")
    listening = pie.start("submit", "tool", "--", "talk_when_told", "1")
    assert listening.stdin is not None
    assert listening.stdout is not None
    listening.stdin.write("go\n")
    listening.stdin.flush()
    assert listening.stdout.readline() == "[Message] 0\n"
    assert server.stop() == 0
    _, err = listening.communicate(timeout=60)
    assert listening.returncode == 3
    assert "connection" in err
    server.start()
    assert [row["program"] for row in pie.here("programs", "--json").json] == ["tool@1.0.0"]


def test_without_auth_nobody_shows_a_key(pie: Pie) -> None:
    server = PieServer(pie.home, arguments=["--no-auth", "--monitor", "--verbose"])
    try:
        server.start()

        async def hello() -> str:
            async with connect(server.address) as client:
                return str((await client.hello())["username"])

        assert asyncio.run(hello()) == "local"
        assert pie.here("list", "--json").json == []
        told = "instances: 0 run, 0 launched; dummy: 0 tokens/s, 0 contexts, 0 of "
        wait_until(lambda: told in server.log_path.read_text(), "what runs to be shown", 10)
    finally:
        server.kill()


def test_without_auth_other_machines_are_kept_out(pie: Pie) -> None:
    ended = pie.here("serve", "--dummy", "--no-auth", "--host", "0.0.0.0", "--allow-public", "--port", "0")
    assert ended.status == 2
    assert "must show a key" in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_where_it_is(pie: Pie, number: signal.Signals) -> None:
    process = pie.start("serve", "--dummy", "--port", "0")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Pie is serving dummy on ws://127.0.0.1:")
    assert "shown once" in process.stdout.readline()
    known = json.loads((pie.home / "endpoint.json").read_text())
    assert known["pid"] == process.pid
    process.send_signal(number)
    assert process.wait(30) == 0
