"""What an app can see of the server, of other owners and of the machine: nothing that is not its own."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakehouse.core.executor import Finished, Logged
from tests.launch.support import ECHO, Bench, bench

TRY = """
class App(BaseApp):
    async def run(self, data: In) -> Out:
        try:
            return Out(text=repr(eval(data.text)))
        except BaseException as error:
            return Out(text=f"refused: {type(error).__name__}: {error}")
"""


async def attempt(bench: Bench, expression: str) -> str:
    """What *expression* gives inside a new app's call."""
    text = (await bench.call(bench.app(TRY), text=expression).output())["text"]
    assert isinstance(text, str)
    return text


@pytest.fixture
def neighbours(one: Bench) -> Iterator[Bench]:
    """A bench whose home holds what no app may touch."""
    for name in (
        "blobs/aa/file_other",
        "instances/inst_other/work/note",
        "envs/key/lib/x.py",
        "versions/ver_other/app/a.py",
    ):
        path = one.home / name
        path.parent.mkdir(parents=True)
        path.write_text("theirs")
    yield one
    shutil.rmtree(one.home / "instances" / "inst_other")


@pytest.mark.parametrize(
    "expression",
    [
        "open('{home}/bakehouse.db').read()",
        "open('{home}/bakehouse.db', 'r+').write('x')",
        "open('{home}/blobs/aa/file_other').read()",
        "open('{home}/instances/inst_other/work/note').read()",
        "open('{home}/versions/ver_other/app/a.py').read()",
        "open('{home}/envs/key/lib/x.py').read()",
        "os.link('{home}/bakehouse.db', 'link')",
        "os.rename('{home}/bakehouse.db', 'gone')",
        "open('/etc/shadow').read()",
        "os.listdir(os.path.expanduser('~root'))",
        "open('/proc/1/environ').read() if 'BAKEHOUSE' not in open('/proc/1/environ').read() else 1/0",
        "open('/proc/{pid}/environ').read()",
        "open('/proc/{pid}/mem', 'rb')",
        "os.kill({pid}, 0)",
        "os.mknod('disk', 0o60600, os.makedev(254, 0))",
        "ctypes.CDLL(None, use_errno=True).mount(b'none', b'/mnt', b'tmpfs', 0, None) and 1/0",
        "open(os.path.join(os.path.dirname(__file__), 'new.py'), 'w')",
        "open(os.path.join(sys.prefix, 'new.py'), 'w')",
        "open('/usr/new', 'w')",
        "os.unlink(__file__)",
    ],
)
async def test_what_is_not_the_apps_own_is_refused(neighbours: Bench, expression: str) -> None:
    told = await attempt(neighbours, expression.format(home=neighbours.home, pid=os.getpid()))
    assert told.startswith("refused"), told
    assert (neighbours.home / "bakehouse.db").read_text() == "everybody's tasks"


async def test_a_socket_of_the_server_cannot_be_reached(one: Bench) -> None:
    path = one.home / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        told = await attempt(one, f"__import__('socket').socket(1).connect({str(path)!r})")
        assert told.startswith("refused"), told
        abstract = f"\0bakehouse-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(abstract)
        server.listen()
        told = await attempt(one, f"__import__('socket').socket(1).connect({abstract!r})")
        assert told.startswith("refused"), told


@pytest.mark.parametrize(
    "path", ["'mine'", "'/tmp/mine'", "os.environ['TMPDIR'] + '/mine'", "'/dev/shm/mine'", "'/dev/null'"]
)
async def test_its_own_directories_are_writable(one: Bench, path: str) -> None:
    assert await attempt(one, f"open({path}, 'w').write('abc')") == "3"


async def test_its_environment_is_its_own(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    one.secrets = {"API_TOKEN": "of the owner", "HOME": "/root"}
    told = await attempt(one, "dict(os.environ)")
    assert "hunter2" not in told
    assert "DATABASE_PASSWORD" not in told
    assert "'API_TOKEN': 'of the owner'" in told
    assert "'/root'" not in told
    assert "'CUDA_VISIBLE_DEVICES': ''" in told


async def test_it_inherits_no_descriptor(one: Bench) -> None:
    with (one.home / "bakehouse.db").open() as held:
        os.set_inheritable(held.fileno(), True)
        told = await attempt(
            one, "[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != '9']"
        )
    assert "bakehouse.db" not in told
    assert len(re.findall("socket:", told)) <= 3, "its messages, and what asyncio needs"


async def test_two_instances_share_no_temporary_directory(one: Bench) -> None:
    app, other = one.app(TRY), one.app(TRY)
    await one.call(app, text="open('/tmp/mine', 'w').write('abc')").output()
    told = (await one.call(other, text="open('/tmp/mine').read()").output())["text"]
    assert told.startswith("refused")


async def test_the_network_and_the_interpreters_own_files_work(one: Bench) -> None:
    for expression in (
        "__import__('socket').getaddrinfo('localhost', 80)[0][0].name",
        "__import__('sqlite3').connect(':memory:').execute('select 1').fetchone()",
        "__import__('multiprocessing').get_context('spawn').Lock().acquire()",
        "subprocess.check_output(['/bin/sh', '-c', 'ls / | head -1'])",
        "len(__import__('ssl').create_default_context().get_ca_certs()) >= 0",
    ):
        assert not (await attempt(one, expression)).startswith("refused"), expression


async def test_everything_is_enforced_here_and_off_is_said(one: Bench, tmp_path: Path) -> None:
    assert one.executor.not_enforced() == []
    (tmp_path / "open").mkdir()
    async with bench(tmp_path / "open", isolation="off") as open_bench:
        (told,) = open_bench.executor.not_enforced()
        assert "switched off" in told
        outcome = await open_bench.call(open_bench.app(ECHO), text="x").end()
        assert isinstance(outcome, Finished)


async def test_what_is_printed_while_nobody_calls_goes_to_the_instances_log(one: Bench) -> None:
    source = """
    class App(BaseApp):
        def run(self, data: In) -> Out:
            subprocess.Popen(["/bin/sh", "-c", "while ! test -e go; do :; done; echo later"])
            return Out()
    """
    call = one.call(one.app(source))
    await call.output()
    (instance,) = one.executor.instances.values()
    (one.home / "instances" / instance.id / "work" / "go").touch()
    second = one.call(one.app(TRY), text="1")
    await second.output()
    await one.executor.shut_down(1.0)
    assert "later" in one.instance_lines
    assert not any(isinstance(event, Logged) and "later" in event.lines for event in (*call.events, *second.events))
