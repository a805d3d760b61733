"""``pie run``: what it prints, what it ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inferlets.cli.conftest import Pie
from tests.inferlets.client.support import manifest

Script = Callable[[str], Path]


def test_a_component_runs_with_nothing_but_the_package(pie: Pie, component: Path) -> None:
    ended = pie("run", "--dummy", "--path", component, "--", "talk", "2")
    assert (ended.status, ended.out, ended.err) == (0, "[Message] 0\n[Message] 1\n", "")


def test_the_result_comes_last_and_what_is_printed_stays_as_it_is(pie: Pie, component: Path) -> None:
    ended = pie("run", "--dummy", "-p", component, "-m", component.parent / "Pie.toml", "--", "say", "the end")
    assert (ended.status, ended.out) == (0, "[Result] the end\n")
    ended = pie("run", "--dummy", "-p", component, "--", "show")
    assert (ended.status, ended.out, ended.err) == (0, "to stdout\n", "to stderr\n")


def test_piped_lines_are_messages(pie: Pie, component: Path) -> None:
    ended = pie("run", "--dummy", "--path", component, "--", "echo", "3", lines="a\nb b\nc\n")
    assert ended.out == "[Message] a\n[Message] b b\n[Message] c\n[Result] c\n"


def test_an_error_is_told_and_its_traceback_shown(pie: Pie, component: Path) -> None:
    ended = pie("run", "--dummy", "--path", component, "--", "fail")
    assert ended.status == 1
    assert ended.err.endswith("[Error] ValueError: as it was told\n")
    assert "Traceback" in ended.err


def test_a_limit_is_named(pie: Pie, component: Path) -> None:
    assert pie.here("config", "set", "inferlet_cpu_time", "0.2").status == 0
    ended = pie("run", "--dummy", "--path", component, "--", "spin")
    assert ended.status == 1
    assert "0.2 s" in ended.err
    assert "(limit cpu)" in ended.err
    ended = pie("run", "--dummy", "--path", component, "--limit", "cpu=300ms", "--", "spin")
    assert "0.3 s" in ended.err


def test_ctrl_c_ends_it(pie: Pie, component: Path) -> None:
    process = pie.start("run", "--dummy", "--path", component, "--", "talk_when_told", "1")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "[Message] 0\n"
    assert pie.interrupt(process).status == 130


def test_other_programs_can_be_there_to_be_spawned(pie: Pie, component: Path, script: Script) -> None:
    other = pie.folder / "other" / "other.wasm"
    other.parent.mkdir()
    other.write_bytes(component.read_bytes())
    (other.parent / "Pie.toml").write_text(manifest("other", "1.2.0"))
    words = ["spawn", "other@1.2.0", "say", "hi"]
    assert pie("run", "--dummy", "--path", component, "--also", other, "--", *words).out == "[Result] child: hi\n"
    main = script("from inferlet import runtime\ndef main():\n    return runtime.spawn('other', ['say', 'native'])\n")
    assert pie("run", "--dummy", "--native", main, "--also", other).out == "[Result] native\n"


def test_files_are_saved_and_never_written_over(pie: Pie, script: Script) -> None:
    main = script("from inferlet import session\nsession.send_file(b'one')\nsession.send_file(b'two')\n")
    (pie.folder / "out").mkdir()
    (pie.folder / "out" / "file-1").write_text("mine")
    ended = pie("run", "--native", main, "--dummy", "--files", "out")
    assert ended.out == "[File] out/file-2 (3 bytes)\n[File] out/file-3 (3 bytes)\n"
    assert (pie.folder / "out" / "file-1").read_text() == "mine"
    assert (pie.folder / "out" / "file-3").read_bytes() == b"two"


def test_everything_as_json(pie: Pie, component: Path) -> None:
    ended = pie("run", "--dummy", "--path", component, "--json", "--", "echo", "1", lines="x\n")
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {"event": "message", "text": "x"},
        {"event": "result", "text": "x"},
    ]
    failed = pie("run", "--dummy", "--path", component, "--json", "--", "fail").out.splitlines()
    assert json.loads(failed[-1])["message"] == "ValueError: as it was told"


def test_a_native_program_runs_under_this_python(pie: Pie, script: Script) -> None:
    main = script(
        "import os\n"
        "from inferlet import Context, Model, Sampler, runtime\n"
        "def main(input: dict):\n"
        "    print(os.getcwd())\n"
        "    with Context(Model.load(runtime.models()[0])) as ctx:\n"
        "        ctx.user(input['prompt'])\n"
        "        found = ctx.generate(Sampler.greedy(), max_tokens=5).tokens()\n"
        "        return {'tokens': len(found), 'count': input['count']}\n"
    )
    ended = pie("run", "--native", main.parent, "--dummy", "--", "--prompt", "Hello", "--count", "3")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == f'{pie.folder}\n[Result] {{"tokens": 5, "count": 3}}\n'


def test_a_native_program_sees_its_own_standard_input(pie: Pie, script: Script) -> None:
    main = script("def main():\n    return input('? ')\n")
    assert pie("run", "--native", main, "--dummy", lines="typed\n").out == "? [Result] typed\n"
    main = script("from inferlet import session\ndef main():\n    return session.receive()\n")
    assert pie("run", "--native", main, "--dummy", "--interactive", lines="sent\n").out == "[Result] sent\n"


def test_breakpoints_work_natively(pie: Pie, script: Script) -> None:
    main = script("def main():\n    found = 41\n    breakpoint()\n    return str(found)\n")
    ended = pie("run", "--native", main, "--dummy", lines="found += 1\nc\n")
    assert ended.status == 0
    assert "[Result] 42\n" in ended.out


def test_native_imports_and_errors_are_the_files_own(pie: Pie, script: Script) -> None:
    (pie.folder / "helper.py").write_text("def fail():\n    raise KeyError('no such key')\n")
    ended = pie("run", "--native", script("import helper\nhelper.fail()\n"), "--dummy")
    assert ended.status == 1
    assert "helper.py" in ended.err
    assert "_program.py" not in ended.err
    assert ended.err.endswith("[Error] KeyError: 'no such key'\n")
    broken = pie("run", "--native", script("def main(:\n"), "--dummy")
    assert broken.status == 1
    assert "main.py:1: SyntaxError: " in broken.err
    assert "Traceback" not in broken.err


@pytest.mark.parametrize("body", ["while True: pass", "from inferlet import session\nsession.receive()"])
def test_ctrl_c_ends_a_native_program(pie: Pie, script: Script, body: str) -> None:
    process = pie.start("run", "--native", script(f"print('started', flush=True)\n{body}\n"), "--dummy")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    assert pie.interrupt(process).status == 130


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--dummy"], "nothing to run"),
        (["--dummy", "--path", "x.wasm"], "there is no such file"),
        (["--dummy", "--native", "x.py"], "there is no such file"),
        (["--dummy", "--native", str(Path(__file__).parents[3] / "docs")], "no entry point"),
        (["--dummy", "--path", "x.wasm", "--items", "2"], "come after --, such as -- --items VALUE"),
        (["--dumy", "x"], "there is no option --dumy; is --dummy meant?"),
        (["--dummy", "--path", "a.wasm", "--native", "b.py"], "give one of them"),
        (["--dummy", "--manifest", "Pie.toml", "x"], "goes with --path"),
        (["--dummy", "--also", "x.wasm", "x"], "goes with --path or --native"),
        (["--dummy", "--also", "x.wasm", "--native", __file__], "there is no such file"),
        (["--dummy", "--limit", "speed=1", "x"], "NAME is one of memory"),
        (["--dummy", "--limit", "cpu=-1", "x"], "write a number"),
        (["--dummy", "--limit", "queue=0", "x"], "above 0"),
        (["x"], "there is no model here"),
        (["--model", "y", "x"], "no model 'y'"),
        (["--dummy", "x"], "program x is not installed"),
        (["--dummy", "x"], "--path FILE.wasm runs a file"),
        (["--dummy", "a/b@1"], "names no program"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_way_out(pie: Pie, arguments: list[str], text: str) -> None:
    ended = pie.here("run", *arguments)
    assert ended.status == 2
    assert text in ended.err
    assert "Traceback" not in ended.err


def test_a_component_without_its_manifest_is_refused(pie: Pie, tool: Path) -> None:
    alone = pie.folder / "alone.wasm"
    alone.write_bytes(b"")
    ended = pie.here("run", "--dummy", "--path", alone)
    assert ended.status == 2
    assert "Add --manifest PATH/Pie.toml" in ended.err


def test_what_is_no_component_is_refused(pie: Pie, component: Path) -> None:
    component.write_bytes(b"\0asm nonsense")
    ended = pie.here("run", "--dummy", "--path", component)
    assert ended.status == 2
    assert str(component) in ended.err
    assert "Traceback" not in ended.err
    (component.parent / "Pie.toml").write_bytes(b"\xff")
    assert "not UTF-8" in pie.here("run", "--dummy", "--path", component).err
