"""Both clients over real sockets, in front of a far end that follows a script."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inferencesh import (
    AsyncInference,
    ConnectionFailed,
    Inference,
    NotConfigured,
    StreamingOptions,
    TaskFailed,
    Unauthorized,
    UploadFileOptions,
    ValidationError,
)
from inferencesh._flow import Close, Emit, Open, Read, Request, Send
from inferencesh._models import Task

from tests.sdk.far_end import FarEnd, cut, data, reply, stall, stream
from tests.sdk.network import line

RUN = {"app": "me/app", "input": {"a": 1}}
RUNNING = {"id": "task_1", "status": 7, "seq": 2, "logs": []}
DONE = {"id": "task_1", "status": 10, "seq": 6, "output": {"b": 2}, "logs": ["x"]}
STREAM = "/tasks/task_1/stream"
QUICK = StreamingOptions(retry_delay=0.0)


def statuses(updates: list[Any]) -> list[str]:
    return [str(update["status"]) for update in updates]


class TestRun:
    def test_one_round_trip(self, far: FarEnd, colour: Any) -> None:
        far.on("POST", "/apps/run", data(DONE))
        task = colour.call(lambda client: client.run(RUN))
        assert (task["status"], task.output, task.data["logs"]) == ("completed", {"b": 2}, ["x"])
        assert far.heard[0].headers["prefer"] == "wait=25"
        assert far.heard[0].json == RUN

    def test_fall_back_to_the_stream(self, far: FarEnd, colour: Any) -> None:
        far.on("POST", "/apps/run", data(RUNNING))
        far.on("GET", STREAM, stream(line(10, 6)))
        far.on("GET", "/tasks/task_1", data(DONE))
        assert colour.call(lambda client: client.run(RUN)).output == {"b": 2}

    def test_a_cut_run_is_sent_again_with_the_same_key(self, far: FarEnd, colour: Any) -> None:
        far.on("POST", "/apps/run", cut, reply({"detail": "full"}, 429, Retry_After="0"), data(DONE))
        colour.call(lambda client: client.run(RUN))
        assert len(far.heard) == 3
        assert len({heard.headers["idempotency-key"] for heard in far.heard}) == 1

    def test_failure_raises_and_keeps_the_task(self, far: FarEnd, colour: Any) -> None:
        far.on("POST", "/apps/run", data({**DONE, "status": 11, "error": "out of paper"}))
        with pytest.raises(TaskFailed, match="out of paper") as caught:
            colour.call(lambda client: client.run(RUN))
        assert caught.value.task["logs"] == ["x"]

    def test_errors_are_typed_and_carry_what_the_server_said(self, far: FarEnd, colour: Any) -> None:
        problem = {"detail": "/input/a: too small", "code": "validation_error", "errors": [{"path": "/input/a"}]}
        far.on("POST", "/apps/run", reply(problem, 400), reply({"detail": "who?"}, 401))
        with pytest.raises(ValidationError, match="too small") as caught:
            colour.call(lambda client: client.run(RUN))
        assert (caught.value.errors, caught.value.code) == ([{"path": "/input/a"}], "validation_error")
        with pytest.raises(Unauthorized, match="INFERENCE_API_KEY"):
            colour.call(lambda client: client.run(RUN))

    def test_updates_reach_a_function(self, far: FarEnd, colour: Any) -> None:
        far.on("POST", "/apps/run", data(RUNNING))
        far.on("GET", STREAM, stream(line(2, 1), line(7, 2), line(10, 6)))
        far.on("GET", "/tasks/task_1", data(DONE))
        seen: list[Any] = []
        colour.call(lambda client: client.run(RUN, on_update=seen.append))
        assert statuses(seen) == ["queued", "running", "completed"]

    @pytest.mark.parametrize("option", [{"timeout": 1.0}, {"progress": True}, {"options": QUICK}, {"on_update": print}])
    def test_what_needs_waiting_is_refused_without_it(self, colour: Any, option: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="wait=True"):
            colour.call(lambda client: client.run(RUN, wait=False, **option))

    def test_nobody_there(self, colour: Any, far: FarEnd) -> None:
        far.on("POST", "/apps/run", *[cut] * 4)
        with pytest.raises(ConnectionFailed, match="broke"):
            colour.call(lambda client: client.run(RUN))


class TestStream:
    def test_run_and_iterate(self, far: FarEnd, colour: Any) -> None:
        far.on("POST", "/apps/run", data(RUNNING))
        far.on("GET", STREAM, stream(line(1, 1) + line(2, 2), line(7, 3, progress={"current": 1}), line(10, 4)))
        updates = colour.updates(lambda client: client.run(RUN, stream=True))
        assert statuses(updates) == ["received", "queued", "running", "completed"]
        assert updates[2]["progress"] == {"current": 1}
        assert far.heard[1].headers["accept"] == "application/x-ndjson"
        assert far.heard[1].headers["accept-encoding"] == "identity"

    def test_a_cut_in_mid_line_loses_and_doubles_nothing(self, far: FarEnd, colour: Any) -> None:
        whole = line(7, 3, logs=["b", "c"])
        far.on(
            "GET", STREAM,
            stream(line(7, 2, logs=["a"]), whole[:30], end=False),
            stream(line(7, 2, logs=["a"]), whole, whole[:10], end=False),
            stream(line(7, 3, logs=["b", "c"]), line(10, 4, logs=["d"])),
        )  # fmt: skip
        updates = colour.updates(lambda client: client.stream_task("task_1", options=QUICK))
        assert [log for update in updates for log in update.logs] == ["a", "b", "c", "d"]
        assert far.paths == [f"GET {STREAM}", f"GET {STREAM}?after=2", f"GET {STREAM}?after=3"]

    def test_an_end_without_the_last_word_is_checked(self, far: FarEnd, colour: Any) -> None:
        far.on("GET", STREAM, stream(line(7, 2)))
        far.on("GET", "/tasks/task_1", data(DONE))
        updates = colour.updates(lambda client: client.stream_task("task_1"))
        assert (updates[-1].output, updates[-1].logs) == ({"b": 2}, ["x"])

    @pytest.mark.parametrize("size", [1, 7, 100_000])
    def test_the_chunk_size_bounds_what_is_read_at_once(self, far: FarEnd, colour: Any, size: int) -> None:
        far.on("GET", "/bytes", stream(b"0123456789" * 3))

        def flow() -> Any:
            yield Open(Request("GET", f"{far.url}/bytes"))
            pieces = []
            while piece := (yield Read(size)):
                pieces.append(piece)
            return pieces

        pieces, _ = colour.play(flow())
        assert b"".join(pieces) == b"0123456789" * 3
        assert max(map(len, pieces)) == min(size, 30)

    def test_silence_ends_a_connection(self, far: FarEnd, colour: Any) -> None:
        far.on("GET", "/bytes", stall(b"hello"))

        def flow() -> Any:
            yield Open(Request("GET", f"{far.url}/bytes", timeout=0.2))
            yield Emit(Task({"heard": (yield Read(100))}))
            try:
                yield Read(100)
            except ConnectionFailed:
                yield Close()
                return "silent"

        value, emitted = colour.play(flow())
        assert (value, emitted[0]["heard"]) == ("silent", b"hello")

    def test_the_key_is_not_asked_for_twice(self, far: FarEnd, colour: Any) -> None:
        far.on("GET", STREAM, reply({"detail": "who?"}, 401))
        with pytest.raises(Unauthorized):
            colour.updates(lambda client: client.stream_task("task_1"))
        assert len(far.heard) == 1


class TestColours:
    """What only one of them has."""

    def test_a_blocking_client_cannot_await(self, far: FarEnd) -> None:
        far.on("POST", "/apps/run", data(RUNNING))
        far.on("GET", STREAM, stream(line(10, 3)))

        async def on_update(update: Any) -> None:
            raise AssertionError("never runs")

        with pytest.raises(TypeError, match="AsyncInference"):
            Inference("key", base_url=far.url).run(RUN, on_update=on_update)

    def test_leaving_a_blocking_stream_closes_the_connection(self, far: FarEnd) -> None:
        far.on("GET", STREAM, stall(line(7, 2)))
        with Inference("key", base_url=far.url) as client, client.stream_task("task_1") as updates:
            assert next(updates)["status"] == "running"
        with pytest.raises(StopIteration):
            next(updates)
        assert updates.result is None

    def test_the_result_stands_after_the_stream(self, far: FarEnd) -> None:
        far.on("GET", STREAM, stream(line(7, 2), line(10, 3, output={"b": 2})))
        with Inference("key", base_url=far.url) as client, client.stream_task("task_1") as updates:
            for update in updates:
                if update["status"] == "completed":
                    break
        assert updates.result is not None
        assert updates.result.output == {"b": 2}

    def test_the_id_is_known_before_the_first_update(self, far: FarEnd) -> None:
        far.on("POST", "/apps/run", data(RUNNING))
        with Inference("key", base_url=far.url) as client:
            assert client.run(RUN, stream=True).task_id == "task_1"

    @pytest.mark.parametrize("form", ["plain", "awaited", "entered"])
    async def test_an_asynchronous_stream_takes_any_form(self, far: FarEnd, form: str) -> None:
        far.on("POST", "/apps/run", data(RUNNING))
        far.on("GET", STREAM, stream(line(7, 2), line(10, 3)))
        async with AsyncInference("key", base_url=far.url) as client:
            stream_of = client.run(RUN, stream=True)
            if form == "awaited":
                stream_of = await stream_of
                assert stream_of.task_id == "task_1"
            if form == "entered":
                async with stream_of as entered:
                    updates = [update async for update in entered]
            else:
                updates = [update async for update in stream_of]
        assert statuses(updates) == ["running", "completed"]
        assert far.paths.count("POST /apps/run") == 1

    async def test_an_update_function_may_be_a_coroutine_function(self, far: FarEnd) -> None:
        far.on("POST", "/apps/run", data(RUNNING))
        far.on("GET", STREAM, stream(line(10, 3)))
        far.on("GET", "/tasks/task_1", data(DONE))
        seen: list[Any] = []

        async def on_update(update: Any) -> None:
            await asyncio.sleep(0)
            seen.append(update)

        async with AsyncInference("key", base_url=far.url) as client:
            await client.run(RUN, on_update=on_update)
        assert statuses(seen) == ["completed"]

    # What the first loop left open is closed by the garbage collector, which says so.
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_one_asynchronous_client_in_two_loops(self, far: FarEnd) -> None:
        far.on("GET", "/tasks/task_1", data(DONE), data(DONE))
        client = AsyncInference("key", base_url=far.url)
        for _ in range(2):
            assert asyncio.run(client.get_task("task_1"))["status"] == "completed"

    async def test_cancelling_the_reader_closes_the_connection(self, far: FarEnd) -> None:
        far.on("GET", STREAM, stall(line(7, 2)))
        got = asyncio.Event()
        async with AsyncInference("key", base_url=far.url) as client:

            async def reader() -> None:
                async for _ in client.stream_task("task_1"):
                    got.set()

            task = asyncio.create_task(reader())
            await got.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


class TestUpload:
    @pytest.fixture(autouse=True)
    def _store(self, far: FarEnd) -> None:
        record = {"id": "file_1", "uri": f"{far.url}/files/c/1", "upload_url": f"{far.url}/put"}
        far.on("POST", "/files", data([record]))
        far.on("PUT", "/put", data(None))

    def test_a_file_is_streamed_with_its_length(self, far: FarEnd, colour: Any, tmp_path: Path) -> None:
        content = bytes(range(256)) * 4096
        path = tmp_path / "big.bin"
        path.write_bytes(content)
        record = colour.call(lambda client: client.upload_file(str(path)))
        put = far.heard[1]
        assert record["uri"].endswith("/files/c/1")
        assert put.body == content
        assert put.headers["content-length"] == str(len(content))
        assert "transfer-encoding" not in put.headers
        assert "authorization" not in put.headers

    def test_options_are_announced(self, far: FarEnd, colour: Any) -> None:
        options = UploadFileOptions(filename="a.png", content_type="image/png", path="me/pictures", public=True)
        colour.call(lambda client: client.upload_file(b"abc", options))
        assert far.heard[0].json["files"] == [
            {
                "uri": "", "filename": "a.png", "content_type": "image/png", "size": 3, "public": True,
                "path": "me/pictures",
            }
        ]  # fmt: skip
        assert far.heard[1].headers["content-type"] == "image/png"

    def test_a_cut_upload_starts_over(self, far: FarEnd, colour: Any) -> None:
        far._steps["PUT", "/put"] = [cut, data(None)]
        colour.call(lambda client: client.upload_file(io.BytesIO(b"abcdef")))
        assert [heard.body for heard in far.heard[1:]] == [b"abcdef", b"abcdef"]


class TestSession:
    @pytest.fixture(autouse=True)
    def _app(self, far: FarEnd) -> None:
        done = {**DONE, "session_id": "sess_1"}
        far.on("POST", "/apps/run", data(done), data(done))
        far.on("DELETE", "/sessions/sess_1", data({}))

    def _check(self, far: FarEnd) -> None:
        first, second = far.heard[0].json, far.heard[1].json
        assert (first["session"], first["session_timeout"], first["setup"]) == ("new", 30, {"m": 1})
        assert (second["session"], second["function"]) == ("sess_1", "read")
        assert "setup" not in second
        assert far.paths[-1] == "DELETE /sessions/sess_1"

    def test_blocking(self, far: FarEnd) -> None:
        client = Inference("key", base_url=far.url)
        with client.session("me/counter", setup={"m": 1}, idle_timeout=30) as session:
            assert session.session_id is None
            session.call("increment", {"by": 2})
            assert session.session_id == "sess_1"
            assert session.call("read").output == {"b": 2}
        self._check(far)

    async def test_asynchronous(self, far: FarEnd) -> None:
        client = AsyncInference("key", base_url=far.url)
        async with client, client.session("me/counter", setup={"m": 1}, idle_timeout=30) as session:
            await session.call("increment", {"by": 2})
            await session.call("read")
        self._check(far)


CALLS: list[tuple[str, str, Any, Any]] = [
    ("GET", "/tasks/t", DONE, lambda c: c.get_task("t")),
    ("GET", "/tasks/t", DONE, lambda c: c.tasks.get("t")),
    ("GET", "/tasks/t", DONE, lambda c: c.wait_for_completion("t")),
    ("POST", "/tasks/t/cancel", DONE, lambda c: c.cancel("t")),
    ("POST", "/tasks/t/cancel", DONE, lambda c: c.cancel_task("t")),
    ("POST", "/tasks/t/cancel", DONE, lambda c: c.tasks.cancel("t")),
    ("POST", "/tasks/list", {"items": [DONE], "next_cursor": "n"}, lambda c: c.tasks.list(limit=1)),
    ("DELETE", "/tasks/t?files=true", {}, lambda c: c.tasks.delete("t", files=True)),
    ("GET", "/tasks/t/logs", {"logs": []}, lambda c: c.tasks.logs("t")),
    ("GET", "/tasks/t/timings", {"groups": []}, lambda c: c.tasks.timings("t")),
    ("GET", "/tasks/t/files?role=output", [{"id": "f"}], lambda c: c.tasks.files("t", role="output")),
    ("DELETE", "/tasks/t/files", {"deleted": []}, lambda c: c.tasks.delete_files("t")),
    ("POST", "/tasks/t/inbox", {"seq": 1}, lambda c: c.tasks.send("t", {"a": 1})),
    ("POST", "/apps/list", {"items": []}, lambda c: c.apps.list(search="x")),
    ("GET", "/apps/me/app", {"id": "a"}, lambda c: c.apps.get("me/app")),
    ("DELETE", "/apps/a", {}, lambda c: c.apps.delete("a")),
    ("POST", "/files/list", {"items": []}, lambda c: c.files.list()),
    ("GET", "/files/f", {"id": "f"}, lambda c: c.files.get("f")),
    ("DELETE", "/files/f", {}, lambda c: c.files.delete("f")),
    ("GET", "/sessions", [{"id": "s"}], lambda c: c.sessions.list()),
    ("GET", "/sessions/s", {"id": "s"}, lambda c: c.sessions.get("s")),
    ("POST", "/sessions/s/keepalive", {"id": "s"}, lambda c: c.sessions.keepalive("s")),
    ("DELETE", "/sessions/s", {}, lambda c: c.sessions.end("s")),
]


@pytest.mark.parametrize(
    ("method", "path", "answer", "use"), CALLS, ids=[f"{c[0]} {c[1]} {i}" for i, c in enumerate(CALLS)]
)
def test_every_call_goes_where_it_belongs(
    far: FarEnd, colour: Any, method: str, path: str, answer: Any, use: Any
) -> None:
    far.on(method, path.split("?", maxsplit=1)[0], data(answer))
    result = colour.call(use)
    assert far.paths == [f"{method} {path}"]
    assert far.heard[0].headers["authorization"] == "Bearer key"
    items = answer if isinstance(answer, list) else answer.get("items", [])
    assert [item["id"] for item in result or [] if items] == [item["id"] for item in items]


def test_pages(far: FarEnd, colour: Any) -> None:
    far.on("POST", "/tasks/list", data({"items": [DONE], "next_cursor": "more", "total_items": 7}))
    page = colour.call(lambda client: client.tasks.list(limit=1, cursor="c", filters={"status": 10}))
    assert (page[0].status, page.next_cursor, page.total) == ("completed", "more", 7)
    assert far.heard[0].json == {
        "limit": 1, "cursor": "c", "filters": [{"field": "status", "operator": "eq", "value": 10}]
    }  # fmt: skip


def test_agents_are_told_to_be_missing(far: FarEnd, colour: Any) -> None:
    far.on(
        "GET", "/agents/my-org/assistant%40latest", reply({"detail": "no agents here", "code": "not_configured"}, 501)
    )
    with pytest.raises(NotConfigured, match="no agents here"):
        colour.call(lambda client: client.agent("my-org/assistant@latest"))


@pytest.fixture
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("INFERENCE_API_KEY", raising=False)
    monkeypatch.delenv("INFERENCE_BASE_URL", raising=False)
    return None


@pytest.mark.usefixtures("_no_environment")
class TestSettings:
    @pytest.mark.parametrize("kind", [Inference, AsyncInference])
    def test_a_missing_key_is_a_value_error(self, kind: Any) -> None:
        with pytest.raises(ValueError, match="INFERENCE_API_KEY"):
            kind()

    def test_the_environment_is_used(self, far: FarEnd, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERENCE_API_KEY", "from-env")
        monkeypatch.setenv("INFERENCE_BASE_URL", far.url + "/")
        far.on("GET", "/tasks/t", data(DONE))
        Inference().get_task("t")
        assert far.heard[0].headers["authorization"] == "Bearer from-env"

    def test_arguments_win(self, far: FarEnd, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERENCE_BASE_URL", "http://127.0.0.1:1")
        far.on("GET", "/prefix/tasks/t", data(DONE))
        Inference(api_key="k", base_url=far.url + "/prefix/").get_task("t")
        assert far.paths == ["GET /prefix/tasks/t"]

    def test_the_default_is_a_local_server(self) -> None:
        assert Inference("k").base_url == "http://127.0.0.1:8787"

    @pytest.mark.parametrize("url", ["ftp://x", "localhost:8787", "http://"])
    def test_bad_addresses_are_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match="base_url"):
            Inference("k", base_url=url)

    def test_the_key_is_not_shown(self) -> None:
        assert "secret" not in repr(Inference("secret")._api.settings)


def test_nobody_listens() -> None:
    with pytest.raises(ConnectionFailed, match="bakehouse serve") as caught:
        Inference("k", base_url="http://127.0.0.1:1", max_retries=0).get_task("t")
    assert caught.value.unsent


def test_sending_to_a_closed_port_asynchronously(colour: Any) -> None:
    def flow() -> Any:
        yield Send(Request("GET", "http://127.0.0.1:1/x"))

    with pytest.raises(ConnectionFailed):
        colour.play(flow())
