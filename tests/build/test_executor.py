"""Build tasks from start to outcome."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bakehouse.build.builder import Builder
from bakehouse.build.process import spawn_plain
from bakehouse.core.executor import Finished, Lost, Moved, Progressed, Returned
from bakehouse.core.task import TaskStatus
from tests.build.support import APP, Bench, Shop, Sink, app_files, make_zip


@pytest.fixture
async def shop(bench: Bench) -> AsyncIterator[Shop]:
    shop = Shop(bench.builder())
    await shop.executor.start_up()
    yield shop
    await shop.executor.shut_down(0)


async def fails(shop: Shop, bench: Bench, files: dict[str, str]) -> tuple[str, str]:
    """Build *files*, which must fail: the error and what was logged."""
    outcome, sink = await shop.build(bench.version(files))
    assert isinstance(outcome, Finished)
    assert outcome.failure is not None
    assert outcome.failure.code == "build_failed"
    assert "\n" not in outcome.failure.message
    assert [(v.status, v.error) for v in shop.stored] == [("failed", outcome.failure.message)]
    return outcome.failure.message, outcome.failure.traceback + sink.log


async def test_a_build_is_stored_before_it_is_told(shop: Shop, bench: Bench) -> None:
    outcome, sink = await shop.build(bench.version(app_files(inf_yml='name: shout\nversion: "1.0"\nenv: {A: b}')))
    (stored,) = shop.stored
    assert isinstance(outcome, Finished)
    assert outcome.output["version_id"] == stored.id
    assert outcome.output["functions"] == ["run"]
    assert (stored.status, stored.label, stored.default_function, stored.manifest.env) == (
        "ready",
        "1.0",
        "run",
        {"A": "b"},
    )
    assert sink.events[0] == Moved(TaskStatus.RUNNING)
    steps = [event.message for event in sink.events if isinstance(event, Progressed)]
    assert steps == ["unpacking", "building the environment", "reading the app's functions", "ready"]
    assert "bakehouse-infsh==0.1.0" in sink.log.replace("_", "-")


async def test_few_builds_run_at_a_time(bench: Bench) -> None:
    shop = Shop(bench.builder(), parallel=2)
    woken = asyncio.Event()
    shop.executor.on_capacity(woken.set)
    assert shop.executor.capacity("build").ready == 2
    sinks = [shop.start(bench.version(app_files(inf_yml=f"name: a{i}")))[1] for i in range(2)]
    assert shop.executor.capacity("build").ready == 0
    for sink in sinks:
        await sink.outcome()
    await asyncio.wait_for(woken.wait(), 5)
    assert shop.executor.capacity("build").ready >= 1
    assert not shop.executor.send("task_x", {})
    shop.executor.cancel("task_x")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import infsh\nimport no_such_module_here", "No module named 'no_such_module_here'"),
        ("raise ValueError('boom at import')", "boom at import"),
        ("def broken(:", "SyntaxError"),
    ],
)
async def test_an_app_that_does_not_load_fails_with_the_traceback(
    shop: Shop, bench: Bench, code: str, reason: str
) -> None:
    message, details = await fails(shop, bench, app_files(inference_py=code))
    assert message.startswith("the app does not load: ")
    assert reason in message
    assert "inference.py" in details


async def test_an_app_that_hangs_at_import_is_given_up(bench: Bench) -> None:
    shop = Shop(bench.builder(probe_timeout=1.0))
    message, _ = await fails(shop, bench, app_files(inference_py="import threading\nthreading.Event().wait()"))
    assert message == "the app did not load within 1 s"


async def test_the_default_function_is_found_or_asked_for(shop: Shop, bench: Bench) -> None:
    two = "class App:\n    def one(self): ...\n    def two(self): ...\n"
    message, _ = await fails(shop, bench, app_files(inference_py=two))
    assert message.endswith("the app has one, two")
    shop.stored.clear()
    message, _ = await fails(shop, bench, app_files(inference_py=two, inf_yml="name: a\ndefault_function: three"))
    assert message == "default_function 'three' of inf.yml is not in the app; it has one, two"
    shop.stored.clear()
    message, _ = await fails(shop, bench, app_files(inference_py="class App: ..."))
    assert "no function" in message
    shop.stored.clear()
    for inf_yml, code, expected in (
        ("name: a\ndefault_function: two", two, "two"),
        ("name: a", "class App:\n    def only(self): ...", "only"),
        ("name: a", two + "    def run(self): ...", "run"),
    ):
        await shop.build(bench.version(app_files(inf_yml=inf_yml, inference_py=code)))
        assert (shop.stored[-1].status, shop.stored[-1].default_function) == ("ready", expected)


async def test_what_the_manifest_asks_in_vain_is_the_reason(shop: Shop, bench: Bench) -> None:
    message, _ = await fails(shop, bench, app_files(inf_yml="name: a\nresources: {gpu: {count: 1}}"))
    assert message == "this machine cannot run the app: it asks for 1 GPU, and there are 0"
    shop.stored.clear()
    message, _ = await fails(shop, bench, app_files(inf_yml="name: a\nconcurrency: 4"))
    assert "concurrency 4" in message
    shop.stored.clear()
    message, _ = await fails(shop, bench, app_files(inf_yml="name: a\nkernel: python-3.77"))
    assert "Python 3.77 is not installed" in message


async def test_a_package_that_changed_after_it_was_accepted_is_refused(shop: Shop, bench: Bench) -> None:
    version = bench.version(app_files())
    make_zip(bench.packages[version.id], app_files(inference_py=APP + "# other"))
    outcome, _ = await shop.build(version)
    assert isinstance(outcome, Finished)
    assert outcome.failure is not None
    assert "content has changed" in outcome.failure.message
    assert list((bench.home / "versions").iterdir()) == []


async def test_cancel_kills_uv_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    shop, started = Shop(slow_builder(bench, tmp_path)), tmp_path / "started"
    call, sink = shop.start(bench.version(app_files()))
    pid = await child_of(started)
    shop.executor.cancel(call.task.id)
    shop.executor.cancel(call.task.id)
    assert await sink.outcome() == Finished(cancelled=True)
    assert [version.status for version in shop.stored] == ["failed"]
    assert not Path(f"/proc/{pid}").exists()
    assert list((bench.home / "versions").iterdir()) == []
    assert list((bench.home / "envs").glob("*/")) == []


async def test_a_stopping_server_hands_builds_back(bench: Bench, tmp_path: Path) -> None:
    shop, started = Shop(slow_builder(bench, tmp_path)), tmp_path / "started"
    version = bench.version(app_files())
    _, sink = shop.start(version)
    pid = await child_of(started)
    await shop.executor.shut_down(0.05)
    assert isinstance(await sink.outcome(), Returned)
    assert shop.stored == [], "the version stays `building`, so that the next start builds it"
    assert not Path(f"/proc/{pid}").exists()
    again = Shop(bench.builder())
    await again.executor.start_up()
    outcome, _ = await again.build(version)
    assert isinstance(outcome, Finished)
    assert outcome.failure is None


async def test_a_build_has_a_deadline(bench: Bench, tmp_path: Path) -> None:
    shop = Shop(slow_builder(bench, tmp_path), timeout=0.5)
    outcome, _ = await shop.build(bench.version(app_files()))
    assert isinstance(outcome, Finished)
    assert outcome.failure is not None
    assert outcome.failure.message == "the build took longer than 0.5 s"


async def test_an_outcome_that_cannot_be_stored_is_a_lost_attempt(bench: Bench) -> None:
    shop = Shop(bench.builder())

    async def away(version: object) -> None:
        raise ConnectionError("the database is away")

    shop.executor._finish = away
    outcome, _ = await shop.build(bench.version(app_files()))
    assert isinstance(outcome, Lost)
    assert outcome.retry
    assert "the database is away" in outcome.reason


async def test_tools_that_leave_children_behind_are_cleaned_up(bench: Bench, tmp_path: Path) -> None:
    left = tmp_path / "left"

    async def spawn(argv, *, env, cwd, writable, readable):  # type: ignore[no-untyped-def]
        script = f'sleep 300 >/dev/null & echo $! > {left}; exec "$@"'
        return await spawn_plain(
            ["/bin/sh", "-c", script, "sh", *argv], env=env, cwd=cwd, writable=writable, readable=readable
        )

    shop = Shop(bench.builder(spawn))
    outcome, _ = await shop.build(bench.version(app_files()))
    assert isinstance(outcome, Finished)
    assert outcome.failure is None
    status = Path(f"/proc/{left.read_text().strip()}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def slow_builder(bench: Bench, tmp_path: Path) -> Builder:
    """A builder whose uv never ends; it writes its process id to ``started``."""
    fifo = tmp_path / "started"
    os.mkfifo(fifo)

    async def spawn(argv, *, env, cwd, writable, readable):  # type: ignore[no-untyped-def]
        command = ["/bin/sh", "-c", f"(echo $$ > {fifo}) & exec sleep 300"]
        return await spawn_plain(command, env=env, cwd=cwd, writable=writable, readable=readable)

    return bench.builder(spawn)


async def child_of(fifo: Path) -> int:
    return int(await asyncio.to_thread(fifo.read_text))


def test_the_sink_of_these_tests_counts_outcomes() -> None:
    async def two() -> None:
        sink = Sink()
        sink(Finished())
        sink(Finished())

    with pytest.raises(AssertionError, match="after the outcome"):
        asyncio.run(two())
