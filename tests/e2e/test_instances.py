"""Warm instances, sessions and apps of several owners."""

from __future__ import annotations

import pytest

from tests.conftest import StartServer
from tests.e2e.support import APPS, instances, refusal, send
from tests.support.server import COMPLETED, FAILED, Server
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def server(module_servers: StartServer) -> Server:
    server = module_servers(env={"BAKEHOUSE_MAX_INSTANCES": "4"})
    for name in ("probe", "secretive", "open"):
        server.deploy(APPS / name)
    return server


# ---- warm instances ---------------------------------------------------------------------------------------------


def test_the_same_setup_is_not_run_again_and_other_values_get_their_own_instance(server: Server) -> None:
    red, red_again, blue = (server.run("probe", setup={"colour": c})["output"] for c in ("red", "red", "blue"))
    assert (red["value"], blue["value"]) == ("red", "blue")
    assert red_again["instance"] == red["instance"] != blue["instance"]
    assert {output["setups"] for output in (red, red_again, blue)} == {1}
    assert server.run("probe", setup={"colour": "red"})["output"]["instance"] == red["instance"]


def test_setup_s_output_is_in_the_first_call_s_log_only(server: Server) -> None:
    setup = {"colour": "logged"}
    first, second = (server.run("probe", setup=setup) for _ in range(2))
    assert "setting up logged" in first["logs"] and "setting up logged" not in second["logs"]


def test_an_idle_instance_is_stopped_by_age(server: Server) -> None:
    """The app's own ``idle_timeout`` is 1 s."""
    before = server.run("open")["output"]["instance"]
    idle = instances(server)[-1]
    wait_until(lambda: not idle.is_running() or idle.status() == "zombie", "the idle instance to end", 20)
    assert server.run("open")["output"]["instance"] != before


def test_with_room_for_one_instance_two_apps_take_turns(start_server: StartServer) -> None:
    server = start_server(env={"BAKEHOUSE_MAX_INSTANCES": "1"})
    server.deploy(APPS / "probe")
    server.deploy(APPS / "other")
    seen = []
    directories = server.home / "instances"
    for _ in range(2):
        seen.append(server.run("probe")["output"]["instance"])
        assert server.run("other")["status"] == COMPLETED
        wait_until(lambda: len(list(directories.iterdir())) <= 1, "the other instance to make room", 10)
    assert len(set(seen)) == 2
    mixed = [send(server, name) for name in ("probe", "other") * 6]
    assert {server.wait(task["id"])["status"] for task in mixed} == {COMPLETED}
    # An instance of a session makes room for nobody, until the session ends: by hand, or by time.
    for how in ("by hand", "by time"):
        session = server.run("probe", session="new", session_timeout=2)["session_id"]
        behind = send(server, "other")
        if how == "by hand":
            server.data(server.api.delete(f"/sessions/{session}"))
        assert server.wait(behind["id"], 20)["status"] == COMPLETED, how


# ---- sessions ---------------------------------------------------------------------------------------------------


def test_sessions_stick_to_their_instance_and_keep_their_state(server: Server) -> None:
    opened = [server.run("probe:count_up", session="new") for _ in range(2)]
    for task in opened:
        answers = [server.run("probe:count_up", session=task["session_id"])["output"] for _ in range(2)]
        assert [answer["value"] for answer in answers] == [2, 3]
        assert {answer["instance"] for answer in answers} == {task["output"]["instance"]}
    assert opened[0]["output"]["instance"] != opened[1]["output"]["instance"]
    outsider = server.run("probe:count_up")["output"]
    assert outsider["instance"] not in {task["output"]["instance"] for task in opened}
    for task in opened:
        shown = Server.data(server.api.get(f"/sessions/{task['session_id']}"))
        assert (shown["status"], shown["call_count"]) == ("active", 3)
        server.data(server.api.delete(f"/sessions/{task['session_id']}"))


def test_an_ended_session_is_gone_and_so_is_its_instance(server: Server) -> None:
    session = server.run("probe:count_up", session="new")["session_id"]
    ended = Server.data(server.api.delete(f"/sessions/{session}"))
    assert ended["status"] == "ended"
    answer = server.api.post("/apps/run", json={"app": "probe:count_up", "input": {}, "session": session})
    assert answer.status_code == 410 and refusal(answer)["code"] == "SESSION_ENDED"
    assert server.api.post(f"/sessions/{session}/keepalive").status_code == 410


def test_a_session_expires_unless_it_is_kept_alive(server: Server) -> None:
    kept, left = (server.run("probe:count_up", session="new", session_timeout=2)["session_id"] for _ in range(2))

    def expired() -> bool:
        server.data(server.api.post(f"/sessions/{kept}/keepalive"))
        return Server.data(server.api.get(f"/sessions/{left}"))["status"] == "expired"

    wait_until(expired, "the idle session to expire", 15, every=0.3)
    answer = server.api.post("/apps/run", json={"app": "probe:count_up", "input": {}, "session": left})
    assert answer.status_code == 410 and refusal(answer)["code"] == "SESSION_EXPIRED"
    assert server.run("probe:count_up", session=kept)["output"]["value"] == 2
    server.data(server.api.delete(f"/sessions/{kept}"))


def test_unknown_and_foreign_sessions_are_not_there(server: Server) -> None:
    body = {"app": "probe:count_up", "input": {}, "session": "sess_00000000000000000000000000"}
    answer = server.api.post("/apps/run", json=body)
    assert answer.status_code == 404 and refusal(answer)["code"] == "SESSION_NOT_FOUND"
    mine = server.run("open", session="new")["session_id"]
    with server.client(server.new_owner("nosy")) as nosy:
        answer = nosy.post("/apps/run", json={"app": "local/open", "input": {}, "session": mine})
        assert answer.status_code == 404 and refusal(answer)["code"] == "SESSION_NOT_FOUND"
        assert nosy.get(f"/sessions/{mine}").status_code == 404
    other_app = server.api.post("/apps/run", json={"app": "probe", "input": {}, "session": mine})
    assert other_app.status_code == 409 and refusal(other_app)["code"] == "APP_MISMATCH"
    server.data(server.api.delete(f"/sessions/{mine}"))


def test_a_lost_instance_ends_its_session(server: Server) -> None:
    opened = server.run("open", session="new")
    session = opened["session_id"]
    instances(server)[-1].kill()

    def over() -> bool:
        return Server.data(server.api.get(f"/sessions/{session}"))["status"] == "ended"

    wait_until(over, "the session to end with its instance", 10)
    answer = server.api.post("/apps/run", json={"app": "open", "input": {}, "session": session})
    assert answer.status_code == 410


# ---- owners and secrets -----------------------------------------------------------------------------------------


def test_a_public_app_runs_for_others_with_everything_staying_theirs(server: Server) -> None:
    mine = server.run("open")
    with server.client(server.new_owner("guest")) as guest:
        body = {"app": "local/open", "input": {}}
        theirs = Server.data(guest.post("/apps/run", json=body, headers={"Prefer": "wait=30"}))
        assert theirs["status"] == COMPLETED
        assert guest.get(f"/tasks/{mine['id']}").status_code == 404
        assert guest.get(f"/tasks/{mine['id']}/stream").status_code == 404
        assert guest.post(f"/tasks/{mine['id']}/cancel").status_code == 404
        own_name = guest.post("/apps/run", json={"app": "open", "input": {}})
        assert own_name.status_code == 404, "a ref without a namespace is one's own"
        private = guest.post("/apps/run", json={"app": "local/probe", "input": {}})
        unknown = guest.post("/apps/run", json={"app": "local/nowhere", "input": {}})
        assert private.status_code == unknown.status_code == 404
        change = guest.post(f"/apps/{mine['app_id']}", json={"description": "mine now"})
        assert change.status_code in (403, 404)
    assert server.api.get(f"/tasks/{theirs['id']}").status_code == 404
    assert theirs["output"]["owner"] == theirs["team_id"] != mine["output"]["owner"] == mine["team_id"]
    assert theirs["output"]["instance"] != mine["output"]["instance"], "instances are not shared between owners"


def test_a_missing_secret_is_412_and_a_changed_one_starts_a_new_instance(server: Server) -> None:
    answer = server.api.post("/apps/run", json={"app": "secretive", "input": {}})
    assert answer.status_code == 412
    problem = refusal(answer)
    assert "E2E_TOKEN" in answer.text and "action" in answer.text, problem
    assert "E2E_EXTRA" not in answer.text
    server.data(server.api.post("/secrets", json={"key": "E2E_TOKEN", "value": "first-value"}))
    first = server.run("secretive")["output"]
    assert (first["token"], first["extra"], first["fixed"]) == ("first-value", None, "7")
    assert server.run("secretive")["output"]["instance"] == first["instance"]
    server.data(server.api.put("/secrets/E2E_TOKEN", json={"value": "second-value"}))
    second = server.run("secretive")["output"]
    assert second["token"] == "second-value" and second["instance"] != first["instance"]
    server.data(server.api.post("/secrets", json={"key": "E2E_EXTRA", "value": "more"}))
    assert server.run("secretive")["output"]["extra"] == "more"
    server.data(server.api.delete("/secrets/E2E_TOKEN"))
    assert server.api.post("/apps/run", json={"app": "secretive", "input": {}}).status_code == 412
    assert "second-value" not in server.log_tail(10**7)


def test_secrets_do_not_reach_an_app_that_does_not_ask_for_them(server: Server) -> None:
    server.data(server.api.post("/secrets", json={"key": "E2E_UNASKED", "value": "hidden"}))
    assert "E2E_UNASKED" not in server.run("probe:surroundings")["output"]["value"]["env"]


def test_keys_do_what_their_scopes_say_and_nothing_after_their_end(server: Server) -> None:
    made = Server.data(server.api.post("/apikeys", json={"name": "runner", "scopes": ["run"]}))
    with server.client(made["key"]) as runner:
        assert runner.post("/apps/run", json={"app": "probe", "input": {}}).is_success
        assert runner.post("/secrets/list").status_code == 403
        assert runner.post("/apps", json={"version": {"package_uri": "x"}}).status_code == 403
        server.data(server.api.delete(f"/apikeys/{made['id']}"))
        assert runner.post("/apps/run", json={"app": "probe", "input": {}}).status_code == 401
    database = (server.home / "bakehouse.db").read_bytes()
    wal = server.home / "bakehouse.db-wal"
    everything = database + (wal.read_bytes() if wal.exists() else b"")
    assert made["key"].encode() not in everything and server.key.encode() not in everything


# ---- what an instance sees --------------------------------------------------------------------------------------


def test_an_instance_s_environment_is_clean(module_servers: StartServer) -> None:
    server = module_servers(env={"E2E_SERVER_SECRET": "do-not-tell", "BAKEHOUSE_IDLE_TIMEOUT": "60"})
    server.deploy(APPS / "probe")
    value = server.run("probe:surroundings")["output"]["value"]
    assert not [name for name in value["env"] if name.startswith("E2E_") or "SECRET" in name]
    assert "do-not-tell" not in str(value)
    targets = [target for number, target in value["fds"].items() if int(number) > 2]
    assert not [target for target in targets if str(server.home / "bakehouse") in target], targets
    assert sum(target.startswith("socket:") for target in targets) <= 3  # messages, and the loop's own wake-up pair
    assert str(server.home / "instances") in value["cwd"] or value["cwd"].startswith("/")
    task = server.run("probe:surroundings")
    assert task["output"]["value"]["context"]["task_id"] == task["id"]
    assert task["output"]["value"]["context"]["owner_id"] == task["team_id"]
    assert task["output"]["value"]["context"]["attempt"] == 1


# ---- kinds of functions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["generates", "generates_too"])
def test_the_last_yield_is_the_output_and_no_yield_fails(server: Server, function: str) -> None:
    task = server.run(f"probe:{function}", {"n": 4})
    assert (task["status"], task["output"]["value"]) == (COMPLETED, 3)
    nothing = server.run(f"probe:{function}", {"n": 0})
    assert (nothing["status"], nothing["error_code"]) == (FAILED, "no_output")


def test_functions_are_chosen_by_ref_or_field(server: Server) -> None:
    assert server.run("probe", {"text": "default"})["output"]["value"] == "default"
    assert server.run("local/probe@latest:count_up")["function"] == "count_up"
    assert server.run("probe", function="blocking")["output"]["value"] is False, "sync code runs beside the loop"
    both = server.api.post("/apps/run", json={"app": "probe:echo", "function": "blocking", "input": {}})
    assert both.status_code == 400 and "/function" in both.text
    for hook in ("setup", "on_cancel", "answer"):
        answer = server.api.post("/apps/run", json={"app": f"probe:{hook}", "input": {}})
        assert answer.status_code == 404, hook


def test_lines_of_every_kind_keep_their_order(server: Server) -> None:
    task = server.run("probe:prints", {"n": 5})
    kinds = ("stdout", "stderr", "logging", "logger")
    printed = [line for line in task["logs"] if line.split(" ")[-1] in kinds]
    shown = [f"{line.split(' ')[-2]} {line.split(' ')[-1]}" for line in printed]
    assert [line.split()[-2:] for line in shown] == [[str(n), kind] for n in range(5) for kind in kinds], printed
    assert "from a child process" in task["logs"]
    typed = Server.data(server.api.get(f"/tasks/{task['id']}/logs"))["logs"]
    assert {"stdout", "stderr", "log"} <= {entry["stream"] for entry in typed}
    levels = {entry["level"] for entry in typed if entry["stream"] == "log"}
    assert {level.lower() for level in levels if level} == {"warning", "info"}


def test_a_setup_value_of_the_wrong_kind_is_refused_at_once(server: Server) -> None:
    answer = server.api.post("/apps/run", json={"app": "probe", "input": {}, "setup": {"delay": "long"}})
    assert answer.status_code == 400 and "/setup/delay" in answer.text
