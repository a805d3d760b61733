"""The life of instances: who may run, what comes out, how they end, and that nothing is left of them."""

from __future__ import annotations

import gc
import mmap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Failure, Limits, Outcome, OwnerLimits
from bakehouse.inferlets.deadlines import Deadlines
from bakehouse.inferlets.errors import Ended, InferletError, NoSuchProgram, NotRunning, Refused
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.host.conftest import Start
from tests.inferlets.host.support import Failing, Seen, launch, manifest, small

Finish = Callable[..., Outcome]


def test_an_instance_gives_its_result_and_ends_once(start: Start) -> None:
    instance, seen = start("echo", "a", "b")
    assert instance.wait(60) == Outcome("a b")
    assert seen.ends == [Outcome("a b")]


def test_it_knows_its_id_and_user(host: InferletHost) -> None:
    wanted = launch("tool", "id")
    assert host.launch(wanted, Seen()).wait(60) == Outcome(f"{wanted.id} ada")


def test_messages_and_files_go_both_ways(start: Start) -> None:
    instance, seen = start("repeat")
    for text in ("one", "two"):
        instance.send(text)
    assert seen.wait_for("message", 2) == ["one", "two"]
    instance.send("stop")
    assert instance.wait(60) == Outcome("stopped")
    instance, seen = start("file")
    instance.send_file(b"\x00abc\xff")
    assert instance.wait(60) == Outcome("5")
    assert seen.of("file") == [b"\xffcba\x00"]


def test_early_messages_wait_for_the_program(start: Start) -> None:
    instance, _ = start("receive", "3")
    for text in ("a", "b", "c"):
        instance.send(text)
    assert instance.wait(60) == Outcome("a b c")


def test_what_it_prints_comes_in_order(start: Start) -> None:
    instance, seen = start("print", "one", "two")
    assert instance.wait(60) == Outcome("")
    assert seen.of("stdout") == ["one\n", "two\n"]


def test_an_exception_is_a_failure_with_its_text(finish: Finish) -> None:
    failure = finish("raise", "no bread").failure
    assert failure is not None
    assert failure.message.startswith("ValueError: no bread")


def test_a_result_is_as_long_as_a_message_at_most(finish: Finish) -> None:
    """It goes to clients in one frame, over a socket that everybody's programs share."""
    limits = Limits(message=1 << 16)
    assert finish("echo", "é" * (1 << 15), limits=limits).result == "é" * (1 << 15)
    failure = finish("echo", "é" * (1 << 15), "more", limits=limits).failure
    assert failure is not None
    assert (failure.code, failure.limit) == ("limit_exceeded", "message")
    assert failure.message.startswith("message: its result has 65541 bytes; at most 65536")


def test_the_text_of_an_exception_is_cut(finish: Finish) -> None:
    failure = finish("raise", "é" * (1 << 16), limits=Limits(message=1 << 16)).failure
    assert failure is not None
    assert failure.message.startswith("ValueError: éé")
    assert len(failure.message.encode()) in (65535, 65536)


def test_a_program_that_is_removed_before_it_starts(engine: Engine, sandbox: Sandbox, tmp_path: Path) -> None:
    store = ProgramStore(tmp_path, sandbox)
    found = store.install("ada", manifest("gone"), small("gone"))
    store.remove("ada", "gone@1.0.0")
    host = InferletHost(engine, sandbox, store)
    outcome = host.launch(launch("gone"), Seen(), found).wait(60)
    assert outcome is not None and outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.message) == (
        "not_found",
        "program gone@1.0.0 was removed before it could start",
    )
    host.close()


def test_what_is_late_and_cannot_be_ended_keeps_no_other_from_its_end() -> None:
    class Due:
        deadline = 0.0

    stuck, other, ended = Due(), Due(), threading.Event()
    live = [stuck, other]

    def late(each: Due) -> None:
        if each is stuck:
            raise RuntimeError("it cannot be ended")
        live.remove(each)
        ended.set()

    deadlines = Deadlines(lambda: list(live), late, again=0.01)
    deadlines.add(0.0)
    assert ended.wait(10)
    deadlines.close()


def test_terminate_ends_one_that_waits_at_once(start: Start) -> None:
    instance, seen = start("receive")
    seen.wait_for("message")
    instance.terminate()
    outcome = instance.wait(10)
    assert outcome is not None and outcome.failure is not None
    assert outcome.failure.code == "cancelled"
    with pytest.raises(NotRunning):
        instance.send("too late")
    instance.terminate()


def test_terminate_ends_one_that_computes(start: Start) -> None:
    for instance, seen in (start("spin"), start(program="spin")):
        if instance.launch.program == "tool":
            seen.wait_for("message")
        instance.terminate(Failure("cancelled", "enough"))
        outcome = instance.wait(10)
        assert outcome is not None and outcome.failure is not None
        assert outcome.failure.message == "enough"


def test_the_wall_clock_ends_it(finish: Finish) -> None:
    failure = finish("receive", limits=Limits(wall=0.3)).failure
    assert failure is not None
    assert (failure.code, failure.limit) == ("limit_exceeded", "wall")


def test_each_has_its_own_deadline(start: Start) -> None:
    late, _ = start("receive", limits=Limits(wall=60))
    early, _ = start("receive", limits=Limits(wall=0.2))
    assert early.wait(10) is not None
    assert late.wait(0) is None
    late.terminate()
    assert late.wait(10) is not None


def test_one_more_than_the_host_runs_is_refused(engine: Engine, sandbox: Sandbox, programs: ProgramStore) -> None:
    host = InferletHost(engine, sandbox, programs, most=2)
    running = [host.launch(launch("tool", "receive"), Seen()) for _ in range(2)]
    seen = Seen()
    with pytest.raises(Refused, match="at most 2 instances"):
        host.launch(launch("tool", "echo"), seen)
    running[0].terminate()
    assert running[0].wait(10) is not None
    assert host.launch(launch("tool", "echo", "room"), Seen()).wait(60) == Outcome("room")
    host.close()
    assert seen.ends == [] and running[1].wait(0) is not None


def test_an_owner_has_limits_of_its_own(engine: Engine, sandbox: Sandbox, programs: ProgramStore) -> None:
    host = InferletHost(engine, sandbox, programs, limits=OwnerLimits(instances=1))
    host.launch(launch("tool", "receive"), Seen())
    with pytest.raises(Refused, match="instances: an owner has at most 1"):
        host.launch(launch("small"), Seen())
    assert host.launch(launch("small", owner="bob"), Seen()).wait(60) == Outcome("done")
    host.close()


def test_memory_is_given_away_by_the_limits(engine: Engine, sandbox: Sandbox, programs: ProgramStore) -> None:
    host = InferletHost(engine, sandbox, programs, limits=OwnerLimits(memory=300 << 20))
    host.launch(launch("tool", "receive"), Seen())
    with pytest.raises(Refused, match="memory: "):
        host.launch(launch("small"), Seen())
    assert host.launch(launch("small", limits=Limits(memory=32 << 20)), Seen()).wait(60) == Outcome("done")
    host.close()


def test_what_cannot_be_launched(host: InferletHost) -> None:
    with pytest.raises(NoSuchProgram):
        host.launch(launch("nothing@1.0.0"), Seen())
    wanted = launch("tool", "receive")
    first = host.launch(wanted, Seen())
    with pytest.raises(Refused, match="runs already"):
        host.launch(wanted, Seen())
    assert first.outcome is None


def test_owners_see_their_own_instances_only(host: InferletHost, start: Start) -> None:
    ours, _ = start("receive")
    theirs, _ = start("receive", owner="bob")
    assert host.instances("ada") == [ours]
    assert host.instance(ours.launch.id, "ada") is ours
    with pytest.raises(NotRunning):
        host.instance(theirs.launch.id, "ada")
    assert host.instances("nobody") == []


def test_an_outlet_that_fails_harms_nobody(host: InferletHost, caplog: pytest.LogCaptureFixture) -> None:
    outlet = Failing()
    instance = host.launch(launch("tool", "repeat"), outlet)
    instance.send("one")
    instance.send("stop")
    assert instance.wait(60) == Outcome("stopped")
    assert outlet.told == 2
    assert "was lost: message" in caplog.text and "was lost: ended" in caplog.text


def test_a_program_that_cannot_be_loaded_still_ends(engine: Engine, sandbox: Sandbox, programs: ProgramStore) -> None:
    host = InferletHost(engine, sandbox, programs)
    found = programs.find("ada", "small")
    gone = type(found)(found.manifest, "ada", found.wasm.with_name("gone.wasm"), "0" * 64)
    seen = Seen()
    outcome = host.launch(launch("small"), seen, gone).wait(60)
    assert outcome is not None and outcome.failure is not None
    assert seen.ends == [outcome]
    assert host.stats()["instances"] == 0
    host.close()


def test_what_a_program_held_is_freed(start: Start, host: InferletHost) -> None:
    instance, seen = start("context")
    seen.wait_for("message")
    instance.terminate()
    assert instance.wait(10) is not None
    assert host.services.messaging.counts("ada").topics == 0  # type: ignore[attr-defined]


def test_a_native_program_is_an_instance_too(host: InferletHost) -> None:
    seen, wanted = Seen(), launch("native")
    native = host.open_native(wanted, seen)
    native.client.send("hello")
    instance = host.instance(wanted.id, "ada")
    instance.send("early")
    assert native.waits.take(native.client.receive()) == "early"
    wait = native.runtime.spawn("tool", '["print", "from the child"]')
    assert native.waits.take(wait) == ""
    assert seen.given == [("message", "hello"), ("stdout", "from the child\n")]
    native.runtime.spawn("tool", '["receive"]')
    (child,) = [each for each in host.instances("ada") if each is not instance]
    native.close()
    native.close()
    assert instance.wait(0) == Outcome("") and child.wait(0) is not None
    assert seen.ends == [Outcome("")]


def test_a_native_program_that_is_terminated_holds_nothing(host: InferletHost) -> None:
    seen, wanted = Seen(), launch("native", limits=Limits(wall=0.1))
    native = host.open_native(wanted, seen)
    outcome = host.instance(wanted.id, "ada").wait(10)
    assert outcome is not None and outcome.failure is not None
    assert (outcome.failure.limit, seen.ends) == ("wall", [outcome])
    with pytest.raises(Ended):
        native.client.send("too late")
    native.close()


class Broken(Sandbox):
    """One with a defect."""

    def run(self, *_: object) -> Outcome:
        raise KeyboardInterrupt("nobody thought of this")


def test_a_defect_ends_its_instance_only(
    engine: Engine, programs: ProgramStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = Broken(tmp_path)
    host = InferletHost(engine, sandbox, programs)
    seen = Seen()
    outcome = host.launch(launch("small"), seen).wait(30)
    assert outcome is not None and outcome.failure is not None
    assert (outcome.failure.code, seen.ends) == ("internal", [outcome])
    assert "ended by a defect" in caplog.text and "nobody thought of this" in caplog.text
    assert host.stats() == {"instances": 0, "launched": 1, "ended": {"internal": 1}}
    host.close()
    sandbox.close()


@pytest.mark.parametrize("step", ["guest", "children", "slot"])
def test_each_step_of_the_end_is_taken(
    host: InferletHost, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """Whatever goes wrong while one ends: it is told, once, and its place is free."""

    def fails(*_: object) -> None:
        raise RuntimeError(f"no {step}")

    instance, seen = start("receive")
    seen.wait_for("message")
    leave = host._admission.leave
    with monkeypatch.context() as broken:
        if step == "guest":
            close = instance.guest.close
            broken.setattr(instance.guest, "close", lambda: (close(), fails()))
        elif step == "children":
            broken.setattr(host, "_end_children", fails)
        else:
            broken.setattr(host._admission, "leave", lambda each: (leave(each), fails()))
        instance.terminate()
        outcome = instance.wait(10)
    threads_ended()
    assert outcome is not None and seen.ends == [outcome]
    assert f"no {step}" in caplog.text and "left something behind" in caplog.text
    assert host.stats()["instances"] == 0


def test_without_a_thread_nothing_is_left(host: InferletHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    seen = Seen()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", fails)
        with pytest.raises(Refused, match="no room for another thread"):
            host.launch(launch("small"), seen)
    assert host.stats() == {"instances": 0, "launched": 0, "ended": {}}
    assert seen.ends == []
    assert host.launch(launch("small"), Seen()).wait(30) == Outcome("done")


def test_close_lets_those_end_that_can(engine: Engine, sandbox: Sandbox, programs: ProgramStore) -> None:
    host = InferletHost(engine, sandbox, programs)
    quick, patient = Seen(), Seen()
    host.launch(launch("tool", "sleep", "0.3"), quick)
    host.launch(launch("tool", "receive"), patient)
    patient.wait_for("message")
    host.close(grace=2.0)
    assert quick.ends == [Outcome("awake")]
    assert patient.ends[0].failure == Failure("cancelled", "the inferlet host is stopping")
    with pytest.raises(Refused, match="stopping"):
        host.launch(launch("small"), Seen())
    host.close()


def test_close_comes_between_launches(engine: Engine, sandbox: Sandbox, programs: ProgramStore) -> None:
    """Each launch is refused, or has one end."""
    host = InferletHost(engine, sandbox, programs)
    launched: list[Seen] = []

    def launches() -> None:
        while True:
            seen = Seen()
            try:
                host.launch(launch("small"), seen)
            except Refused as error:
                if "stopping" in error.detail:
                    return
            else:
                launched.append(seen)

    threads = [threading.Thread(target=launches) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(launched) < 50:
        threading.Event().wait(0.002)
    host.close()
    for thread in threads:
        thread.join()
    threads_ended()
    assert [len(seen.ends) for seen in launched] == [1] * len(launched)
    assert host.stats()["ended"].keys() <= {"ok", "cancelled"}


def test_a_thousand_launches_leave_nothing(host: InferletHost) -> None:
    launches(host, 1000)


@pytest.mark.slow
def test_ten_thousand_launches_leave_nothing(host: InferletHost) -> None:
    launches_of(host, 1000)
    before = resident()
    launches(host, 10_000)
    assert resident() - before < 16 << 20


@pytest.mark.slow
def test_python_programs_leave_nothing(host: InferletHost, finish: Finish) -> None:
    for count in (300, 3000):
        before = resident()
        for number in range(count):
            assert finish("echo", str(number)) == Outcome(str(number))
    assert resident() - before < 16 << 20


def resident() -> int:
    """Bytes of memory that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def launches(host: InferletHost, count: int) -> None:
    launches_of(host, 50)
    before = state(host)
    launches_of(host, count)
    assert state(host) == before


def launches_of(host: InferletHost, count: int) -> None:
    """*count* launches from 8 threads: most end by themselves, the others are terminated while they compute."""

    def some(first: int) -> None:
        for number in range(first, count, 8):
            computes = number % 10 == 0
            instance = host.launch(launch("spin" if computes else "small"), Seen())
            if computes:
                instance.terminate()
            outcome = instance.wait(30)
            assert outcome is not None and (outcome.failure is not None) == computes

    failures: list[BaseException] = []

    def checked(first: int) -> None:
        try:
            some(first)
        except (AssertionError, InferletError) as error:
            failures.append(error)

    threads = [threading.Thread(target=checked, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def state(host: InferletHost) -> dict[str, object]:
    """Whatever could grow."""
    threads_ended()
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tables": [len(table) for table in (host._admission, host._admission._used, host._present, host._loaded)],
        "instances": host.stats()["instances"],
        "objects": count_of("Guest") + count_of("Instance") + count_of("GuardedOutlet"),
    }


def threads_ended() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("inferlet-i"):
            thread.join(10)


def count_of(name: str) -> int:
    gc.collect()
    return sum(type(each).__name__ == name for each in gc.get_objects())
