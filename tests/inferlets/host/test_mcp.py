"""MCP servers that the operator configured: a real one, over its streams and over HTTP."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bakehouse.inferlets.base import McpSession
from bakehouse.inferlets.errors import McpFailed
from bakehouse.inferlets.mcp import METHODS, ConfiguredMcp, McpServer, bounded, configured
from bakehouse.inferlets.mcp.configured import PAUSE
from tests.inferlets.host.support import launch

SERVER = str(Path(__file__).parent / "mcp_server.py")
COMMAND = (sys.executable, SERVER)

ADA, BOB = launch("any", owner="ada"), launch("any", owner="bob")

Make = Callable[..., ConfiguredMcp]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[ConfiguredMcp] = []

    def of(*servers: McpServer, **options: Any) -> ConfiguredMcp:
        made.append(ConfiguredMcp(servers, **options))
        return made[-1]

    yield of
    for mcp in made:
        mcp.close()
        mcp.close()
        assert mcp._thread._thread is None or not mcp._thread._thread.is_alive()


@pytest.fixture(scope="module")
def shared() -> Iterator[ConfiguredMcp]:
    """One server that is started once."""
    os.environ["NOT_HANDED_ON"] = "secret"
    made = ConfiguredMcp([McpServer(name="tried", command=COMMAND, environment={"TRIED": "yes"})])
    yield made
    made.close()
    del os.environ["NOT_HANDED_ON"]


@pytest.fixture
def session(shared: ConfiguredMcp) -> Iterator[McpSession]:
    opened = shared.connect(ADA, "tried").result(60)
    yield opened
    opened.close()


def ask(session: McpSession, method: str, **params: Any) -> Any:
    return session.request(method, params).result(60)


def call(session: McpSession, name: str, **arguments: Any) -> str:
    """The text that a tool answers."""
    result = ask(session, "tools/call", name=name, arguments=arguments)
    return str(result["content"][0]["text"])


def pid_of(session: McpSession) -> int:
    return int(call(session, "process").split()[0])


def test_results_are_what_the_server_said(session: McpSession) -> None:
    tools = ask(session, "tools/list")["tools"]
    assert {"add", "process"} <= {tool["name"] for tool in tools}
    assert next(tool for tool in tools if tool["name"] == "add")["inputSchema"]["required"] == ["a", "b"]
    result = ask(session, "tools/call", name="add", arguments={"a": 2, "b": 3})
    assert result["content"] == [{"type": "text", "text": "5"}]
    assert result["structuredContent"] == {"result": 5}


def test_resources_and_prompts(session: McpSession) -> None:
    assert ask(session, "resources/list")["resources"][0]["uri"] == "recipe://rye"
    assert ask(session, "resources/read", uri="recipe://rye")["contents"][0]["text"] == "patience"
    assert ask(session, "prompts/list")["prompts"][0]["name"] == "order"
    messages = ask(session, "prompts/get", name="order", arguments={"guest": "Ada"})["messages"]
    assert messages[0]["content"]["text"] == "Ada wants bread."


def test_a_tool_that_fails_is_a_result(session: McpSession) -> None:
    result = ask(session, "tools/call", name="fail", arguments={"text": "no flour"})
    assert result["isError"] is True
    assert "no flour" in result["content"][0]["text"]


def test_errors_of_the_server_have_its_code(session: McpSession) -> None:
    with pytest.raises(McpFailed, match=r"^MCP server 'tried': .*\(code -?\d+\)$"):
        ask(session, "resources/read", uri="recipe://none")


def test_what_is_not_a_programs_to_ask(session: McpSession) -> None:
    for method in ("initialize", "tools/none", "logging/setLevel"):
        assert method not in METHODS
        with pytest.raises(McpFailed, match="a program cannot ask for"):
            session.request(method, {})


def test_a_server_gets_its_environment_and_none_of_ours(session: McpSession) -> None:
    assert call(session, "process").split() == [str(pid_of(session)), "yes"]


def test_programs_of_one_owner_share_a_connection(shared: ConfiguredMcp, session: McpSession) -> None:
    again = shared.connect(ADA, "tried").result(60)
    theirs = shared.connect(BOB, "tried").result(60)
    assert pid_of(again) == pid_of(session) != pid_of(theirs)
    again.close()
    theirs.close()
    with pytest.raises(McpFailed, match="closed"):
        eventually(lambda: again.request("tools/list", {}).result(60) is None)


def test_requests_run_at_the_same_time(session: McpSession) -> None:
    requests = [session.request("tools/call", {"name": "add", "arguments": {"a": n, "b": 1}}) for n in range(50)]
    assert [request.result(60)["structuredContent"]["result"] for request in requests] == list(range(1, 51))


def test_so_many_requests_may_be_unanswered(session: McpSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configured, "MOST_OPEN", 1)
    first = session.request("tools/call", {"name": "slow", "arguments": {"seconds": 0.2}})
    with pytest.raises(McpFailed, match="at most 1 requests"):
        ask(session, "tools/list")
    assert first.result(60)["content"][0]["text"] == "done"
    assert ask(session, "tools/list")


def test_a_server_that_died_is_started_again(make: Make) -> None:
    session = make(McpServer(name="tried", command=COMMAND)).connect(ADA, "tried").result(60)
    first = pid_of(session)
    with pytest.raises(McpFailed, match="closed"):
        call(session, "die")
    second = pid_of(session)
    assert second != first
    # One that died while nobody asked is found out when the end of its pipe is read, or by the next request.
    os.kill(second, 9)
    eventually(lambda: not alive(second))
    try:
        third = pid_of(session)
    except McpFailed:
        third = pid_of(session)
    assert third not in (first, second)


def test_a_slow_answer_is_given_up(make: Make, session: McpSession) -> None:
    pid = pid_of(session)
    request = session.request("tools/call", {"name": "slow", "arguments": {"seconds": 0.5}})
    assert request.cancel()
    assert pid_of(session) == pid
    impatient = make(McpServer(name="tried", command=COMMAND, timeout=0.5)).connect(ADA, "tried").result(60)
    with pytest.raises(McpFailed, match="timed out"):
        call(impatient, "slow", seconds=1.5)


def test_a_server_that_does_not_speak(make: Make) -> None:
    mcp = make(
        McpServer(name="mute", command=(sys.executable, "-c", "import sys; sys.stdin.read()"), start_timeout=0.5)
    )
    with pytest.raises(McpFailed, match=r"'mute': .*(did not answer in 0.5 s|timed out)"):
        mcp.connect(ADA, "mute").result(60)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message has a mebibyte at most."""
    monkeypatch.setattr(bounded, "MOST", 1 << 20)


@pytest.mark.usefixtures("short")
def test_a_server_that_says_too_much_at_one_time_is_ended(make: Make) -> None:
    session = make(McpServer(name="tried", command=COMMAND)).connect(ADA, "tried").result(60)
    first = pid_of(session)
    assert len(call(session, "much", size=1 << 18)) == 1 << 18
    with pytest.raises(McpFailed, match="'tried': it sent a message of more than 1048576 bytes"):
        call(session, "much", size=1 << 20)
    assert pid_of(session) != first
    eventually(lambda: not alive(first))


@pytest.mark.usefixtures("short")
def test_a_server_that_never_ends_its_line(make: Make) -> None:
    flood = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    mcp = make(McpServer(name="flood", command=(sys.executable, "-c", flood), start_timeout=60))
    with pytest.raises(McpFailed, match="'flood': it sent a message of more than"):
        mcp.connect(ADA, "flood").result(60)


class _Flood(BaseHTTPRequestHandler):
    """Answers all with more than a mebibyte, as a hundredth of that where its path says so."""

    def do_POST(self) -> None:
        packed = self.path == "/packed"
        text = b'"' + b"x" * (2 << 20) + b'"'
        body = gzip.compress(text) if packed else text
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if packed:
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        with suppress(ConnectionError):  # nobody reads all of it
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("path", "told"), [("/plain", "it sent a message of more than 1048576 bytes"), ("/packed", "is compressed")]
)
def test_a_server_whose_answer_is_too_long_over_http(make: Make, path: str, told: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Flood) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mcp = make(McpServer(name="flood", url=f"http://127.0.0.1:{server.server_address[1]}{path}"))
        with pytest.raises(McpFailed, match=f"'flood': .*{told}"):
            mcp.connect(ADA, "flood").result(60)
        server.shutdown()


def test_a_server_that_is_not_there(make: Make) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
    mcp = make(McpServer(name="none", command=("/no/such/program",)), McpServer(name="web", url=url))
    with pytest.raises(McpFailed, match=r"'none': it could not be reached: No such file"):
        mcp.connect(ADA, "none").result(60)
    started = time.monotonic()
    with pytest.raises(McpFailed, match="'none'"):
        mcp.connect(ADA, "none").result(60)
    assert time.monotonic() - started < 0.5
    with pytest.raises(McpFailed, match=r"'web': it could not be reached"):
        mcp.connect(ADA, "web").result(60)


def test_who_may_use_which(make: Make) -> None:
    mcp = make(
        McpServer(name="all", command=COMMAND), McpServer(name="hers", command=COMMAND, owners=frozenset({"ada"}))
    )
    assert mcp.names(ADA) == ["all", "hers"]
    assert mcp.names(BOB) == ["all"]
    for owner, name in ((BOB, "hers"), (ADA, "none")):
        with pytest.raises(McpFailed, match=f"there is no MCP server '{name}'; there are: all"):
            mcp.connect(owner, name)


def test_one_that_nobody_uses_ends(make: Make) -> None:
    mcp = make(McpServer(name="tried", command=COMMAND), idle=0.05)
    session = mcp.connect(ADA, "tried").result(60)
    pid = pid_of(session)
    time.sleep(0.2)
    assert alive(pid)
    session.close()
    session.close()
    eventually(lambda: not alive(pid))


def test_who_gives_up_connecting_holds_nothing(make: Make) -> None:
    mcp = make(McpServer(name="tried", command=COMMAND), idle=0.05)
    assert mcp.connect(ADA, "tried").cancel()
    eventually(lambda: not mcp._connections)


def test_close_ends_the_servers(make: Make) -> None:
    mcp = make(McpServer(name="tried", command=COMMAND))
    session = mcp.connect(ADA, "tried").result(60)
    pid = pid_of(session)
    mcp.close()
    assert not alive(pid)
    for request in (lambda: session.request("tools/list", {}), lambda: mcp.connect(ADA, "tried")):
        with pytest.raises(McpFailed, match=r"stopping|closed"):
            request().result(60)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def listening(port: int) -> Iterator[None]:
    """The server, on HTTP."""
    server = subprocess.Popen([*COMMAND, str(port)])
    try:
        eventually(lambda: reachable(port))
        yield
    finally:
        server.kill()
        server.wait()


@pytest.mark.usefixtures("short")
def test_over_http(make: Make, port: int) -> None:
    url = f"http://127.0.0.1:{port}/mcp"
    mcp = make(
        McpServer(name="web", url=url, headers={"Authorization": "Bearer secret"}), McpServer(name="keyless", url=url)
    )
    with listening(port):
        session = mcp.connect(ADA, "web").result(60)
        assert call(session, "add", a=2, b=3) == "5"
        assert len(call(session, "much", size=1 << 18)) == 1 << 18
        with pytest.raises(McpFailed, match="'web': "):
            call(session, "much", size=1 << 20)
        assert call(session, "add", a=2, b=3) == "5"
        with pytest.raises(McpFailed, match="'keyless': it could not be reached"):
            mcp.connect(ADA, "keyless").result(60)
    with pytest.raises(McpFailed, match="'web': "):
        call(session, "add", a=2, b=3)
    with listening(port):
        time.sleep(PAUSE)
        assert call(session, "add", a=2, b=3) == "5"


def test_a_server_that_was_started_anew_is_asked_again(make: Make, port: int) -> None:
    url = f"http://127.0.0.1:{port}/mcp"
    mcp = make(McpServer(name="web", url=url, headers={"Authorization": "Bearer secret"}))
    with listening(port):
        session = mcp.connect(ADA, "web").result(60)
        first = pid_of(session)
    with listening(port):
        assert pid_of(session) != first


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"name": ""}, "name"),
        ({"name": "a"}, "either a command or a url"),
        ({"name": "a", "command": ("a",), "url": "http://a"}, "either a command or a url"),
        ({"name": "a", "url": "http://a", "environment": {"A": "b"}}, "environment"),
        ({"name": "a", "command": ("a",), "headers": {"A": "b"}}, "headers"),
        ({"name": "a", "command": ("a",), "timeout": 0.0}, "timeout"),
        ({"name": "a", "command": ("a",), "start_timeout": -1.0}, "start_timeout"),
    ],
)
def test_what_cannot_be_configured(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        McpServer(**values)
    twice = McpServer(name="a", command=("a",))
    with pytest.raises(ValueError, match="two MCP servers are named 'a'"):
        ConfiguredMcp([twice, twice])


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def reachable(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
