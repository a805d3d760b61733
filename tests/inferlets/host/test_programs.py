"""The store of programs: what is installed stays, whatever happens meanwhile, and nothing else does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bakehouse.inferlets import payload
from bakehouse.inferlets import programs as room
from bakehouse.inferlets.base import OwnerLimits
from bakehouse.inferlets.dialogue import Desk, Dialogue, Frame, Who
from bakehouse.inferlets.dialogue.frames import with_bytes
from bakehouse.inferlets.errors import BadProgram, NoSuchProgram, Refused
from bakehouse.inferlets.programs import Program, ProgramStore, Ref
from bakehouse.inferlets.sandbox import Sandbox
from bakehouse.inferlets.versions import Version
from tests.inferlets.host.support import manifest, small, taken

Opened = Callable[[], ProgramStore]


@pytest.fixture
def opened(tmp_path: Path, sandbox: Sandbox) -> Opened:
    """The store of one directory, as a process finds it that starts now."""
    return lambda: ProgramStore(tmp_path / "programs", sandbox)


def refs(store: ProgramStore, owner: str = "ada") -> list[str]:
    return [program.ref for program in store.list(owner)]


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "programs").rglob("*") if path.is_file())


def test_the_latest_version_is_the_highest(opened: Opened) -> None:
    store = opened()
    for version in ("1.9.0", "1.10.0", "0.99.0"):
        store.install("ada", manifest("a", version), small(version))
    assert store.find("ada", "a").ref == "a@1.10.0"
    assert store.find("ada", "a@1.9.0").manifest.version == "1.9.0"
    assert store.find("ada", "test:a@0.99.0").ref == "a@0.99.0"
    assert refs(store) == ["a@0.99.0", "a@1.9.0", "a@1.10.0"]


def test_what_is_installed_is_there_after_a_restart(opened: Opened) -> None:
    installed = opened().install("ada", manifest("a"), small("one"))
    found = opened().find("ada", "a@1.0.0")
    assert found == installed
    assert found.wasm.read_bytes() == small("one")


def test_owners_have_programs_of_their_own(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    for owner in ("ada", "../ada", "a/b", ".", "..", "Ä"):
        store.install(owner, manifest("a"), small("one"))
    with pytest.raises(NoSuchProgram):
        store.find("bob", "a")
    assert len(files(tmp_path)) == 1 + 6
    again = opened()
    assert all(refs(again, owner) == ["a@1.0.0"] for owner in ("ada", "../ada", "a/b", ".", "..", "Ä"))
    assert refs(again, "b") == []
    assert not (tmp_path / "ada").exists()


def test_the_same_again_changes_nothing_and_other_content_is_refused(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    first = store.install("ada", manifest("a"), small("one"))
    assert store.install("ada", manifest("a"), small("one")) is first
    for text, wasm in ((manifest("a"), small("two")), (manifest("a", more='description = "new"\n'), small("one"))):
        with pytest.raises(BadProgram, match="installed with other content") as caught:
            store.install("ada", text, wasm)
        assert caught.value.field == "package.version"
    assert store.find("ada", "a") is first
    second = store.install("ada", manifest("a"), small("two"), force=True)
    assert store.find("ada", "a") is second
    assert files(tmp_path) == sorted([f"{second.digest}.wasm", "1.0.0.json"])
    assert opened().find("ada", "a") == second


def test_a_component_stays_while_somebody_has_it(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    shared = store.install("ada", manifest("a"), small("one"))
    store.install("bob", manifest("b"), small("one"))
    store.remove("ada", "a@1.0.0")
    assert shared.wasm.exists()
    store.remove("bob", "b@1.0.0")
    assert files(tmp_path) == []
    with pytest.raises(NoSuchProgram):
        store.remove("bob", "b@1.0.0")
    with pytest.raises(BadProgram, match="which version"):
        store.remove("bob", "b")


def test_what_is_no_program_is_refused(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    for wasm in (b"", b"not a component", small("one")[:-5]):
        with pytest.raises(BadProgram):
            store.install("ada", manifest("a"), wasm)
    assert files(tmp_path) == [] and refs(store) == []


def test_dependencies_come_first(opened: Opened) -> None:
    store = opened()
    needs = manifest("a", more='[dependencies]\nb = "1.2.0"\n')
    with pytest.raises(NoSuchProgram, match=r"dependencies.b: program b@1.2.0"):
        store.install("ada", needs, small("one"))
    store.install("ada", manifest("b", "1.2.0"), small("two"))
    assert store.install("ada", needs, small("one")).manifest.dependencies == {"b": "1.2.0"}


def test_limits(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_PROGRAMS", 1)
    monkeypatch.setattr(room, "MAX_WASM", len(small("one")))
    store = opened()
    store.install("ada", manifest("a"), small("one"))
    store.install("ada", manifest("a"), small("two"), force=True)
    with pytest.raises(Refused, match="at most 1 programs"):
        store.install("ada", manifest("b"), small("two"))
    with pytest.raises(Refused, match="bytes"):
        store.install("bob", manifest("b"), small("three"))


def test_what_an_owner_has_is_bounded_in_bytes(tmp_path: Path, sandbox: Sandbox) -> None:
    size = len(small("one"))
    store = ProgramStore(tmp_path / "programs", sandbox, limits=OwnerLimits(programs=2 * size))
    store.install("ada", manifest("a"), small("one"))
    store.install("ada", manifest("b"), small("one"))  # the same file
    store.install("ada", manifest("b", "2.0.0"), small("two"))
    with pytest.raises(Refused, match=f"{2 * size} bytes together, these would have {3 * size}") as caught:
        store.install("ada", manifest("c"), small("six"))
    assert caught.value.field == "programs"
    store.install("ada", manifest("b", "2.0.0"), small("ten"), force=True)  # in place of the other
    store.install("bob", manifest("c"), small("six"))
    again = ProgramStore(tmp_path / "programs", sandbox, limits=OwnerLimits(programs=2 * size))
    with pytest.raises(Refused):
        again.install("ada", manifest("c"), small("six"))
    again.remove("ada", "b@2.0.0")
    again.install("ada", manifest("c"), small("six"))


def test_code_behind_a_component_is_bounded(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_PAYLOAD", 10)
    store = opened()
    store.install("ada", manifest("a"), payload.join(small("one"), b"0123456789"))
    with pytest.raises(BadProgram, match="has 11 bytes; 10 are possible"):
        store.install("ada", manifest("b"), payload.join(small("one"), b"0123456789!"))
    assert refs(store) == ["a@1.0.0"]


async def test_others_do_not_wait_behind_those_who_install(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    store, go, running, most = opened(), threading.Event(), 0, 0

    def slow(wasm: bytes) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert go.wait(30)
        running -= 1

    monkeypatch.setattr(sandbox, "compile", slow)
    dialogue = Dialogue(Desk(None, store, None), Who("ada", "ada"))  # type: ignore[arg-type]
    for at in range(40):
        wasm = small(f"{at:02}")
        for frame in with_bytes({"id": at, "op": "install", "manifest": manifest(f"p{at}")}, wasm):
            dialogue.feed(frame)
    await asyncio.wait_for(asyncio.to_thread(store.list, "ada"), 10)
    go.set()
    answers: list[Frame] = []
    while len(answers) < 40:
        answers += await asyncio.wait_for(taken(dialogue), 10)
    assert most == room.INSTALLING and len(refs(store)) == 40
    store.installers.shutdown()


def test_another_process_may_look(opened: Opened, tmp_path: Path, sandbox: Sandbox) -> None:
    kept = opened().install("ada", manifest("a"), small("one"))
    half = kept.wasm.with_name("1" * 64 + ".wasm.new")
    half.write_bytes(b"somebody is writing this")
    visitor = ProgramStore(tmp_path / "programs", sandbox, shared=True)
    assert visitor.find("ada", "a") == kept
    assert half.exists()
    with pytest.raises(Refused, match="another process's"):
        visitor.install("ada", manifest("b"), small("two"))
    with pytest.raises(Refused, match="another process's"):
        visitor.remove("ada", "a@1.0.0")


def test_what_was_left_half_done_is_removed(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    kept = store.install("ada", manifest("a"), small("one"))
    record = next((tmp_path / "programs").rglob("1.0.0.json"))
    # A process that died while it wrote a component, after it, and while it wrote a record.
    kept.wasm.with_name("1" * 64 + ".wasm.new").write_bytes(b"half")
    kept.wasm.with_name("1" * 64 + ".wasm").write_bytes(b"whole")
    record.with_name("2.0.0.json.new").write_bytes(b"{")
    assert refs(opened()) == ["a@1.0.0"]
    assert files(tmp_path) == sorted([kept.wasm.name, "1.0.0.json"])


def test_a_record_that_cannot_be_read_costs_itself_only(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    lost = store.install("ada", manifest("a"), small("one"))
    store.install("ada", manifest("b"), small("two"))
    record = tmp_path / "programs" / "owners" / "ada" / "a" / "1.0.0.json"
    record.write_bytes(b"{")
    assert refs(opened()) == ["b@1.0.0"]
    assert "cannot be read" in caplog.text
    # Somebody may repair it: its component is still there.
    assert record.exists() and lost.wasm.exists()


def test_many_install_the_same_at_once(opened: Opened, tmp_path: Path) -> None:
    store, wasm = opened(), small("one")
    found: list[Program] = []
    threads = [
        threading.Thread(target=lambda: found.append(store.install("ada", manifest("a"), wasm))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(each is found[0] for each in found)
    assert len(files(tmp_path)) == 2


def test_programs_are_found_while_one_is_being_written(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever launches looks a program up, on the thread of all connections."""
    store = opened()
    store.install("ada", manifest("first"), small("first"))
    found: list[str] = []
    real = room._written

    def slowly(path: Path, data: bytes) -> Path:
        if path.suffix == ".wasm":
            finding = threading.Thread(target=lambda: found.append(store.find("ada", "first").ref), daemon=True)
            finding.start()
            finding.join(10)
        return real(path, data)

    monkeypatch.setattr(room, "_written", slowly)
    store.install("ada", manifest("second"), small("second"))
    assert found == ["first@1.0.0"]
    assert not list(tmp_path.rglob("*.new"))


def test_references() -> None:
    assert Ref.parse("a@1.2.3") == Ref("a", Version(1, 2, 3))
    assert Ref.parse("ns:a") == Ref.parse("ns/a") == Ref("a", None)
    for text in ("", "@1.0.0", "a@", "a@1", "a@latest", ":a", "a:b:c", "a b", "a/b:c", "/a", "a@1.0.0 "):
        with pytest.raises(BadProgram) as caught:
            Ref.parse(text)
        assert caught.value.field == "program"
