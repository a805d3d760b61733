"""Flows against a network played by hand: no sockets, no event loop, no time passes."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from inferencesh import (
    APIError,
    ConnectionFailed,
    NotFound,
    RateLimited,
    StreamingOptions,
    StreamInterrupted,
    TaskCancelled,
    TaskFailed,
    TaskTimeout,
)
from inferencesh import _run as flows
from inferencesh._follow import Deadline, Follower
from inferencesh._story import Story

from tests.sdk.network import BROKEN, REFUSED, Network, line, ok, refusal

RUNNING = {"id": "task_1", "status": 7, "seq": 4, "logs": []}
DONE = {"id": "task_1", "status": 10, "seq": 6, "output": {"a": 1}, "logs": ["x"]}


def follow(network: Network, options: StreamingOptions | None = None, **more: Any) -> Any:
    follower = Follower(network.api, Story("task_1"), options, **more)
    return network.play(follower.follow())


def run(network: Network, wait: bool = True, timeout: float | None = None, **params: Any) -> Any:
    body = {"app": "me/app", **params}
    return network.play(flows.run(network.api, body, wait=wait, options=None, timeout=timeout, observers=()))


class TestRun:
    def test_a_short_task_is_one_round_trip(self) -> None:
        network = Network([ok(DONE)])
        assert run(network, input={"a": 1})["output"] == {"a": 1}
        (request,) = network.requests
        assert request.headers["Prefer"] == "wait=25"
        assert request.headers["Idempotency-Key"]
        assert request.headers["Authorization"] == "Bearer key"
        assert json.loads(request.content) == {"app": "me/app", "input": {"a": 1}}

    def test_a_long_one_is_followed_from_where_the_answer_stood(self) -> None:
        network = Network([ok(RUNNING), ok(DONE)], [[line(7, 5, logs=["x"]), line(10, 6)]])
        assert run(network)["logs"] == ["x"]
        assert network.paths == ["POST /apps/run", "GET /tasks/task_1/stream?after=4", "GET /tasks/task_1"]

    def test_without_waiting_the_accepted_task_is_returned(self) -> None:
        network = Network([ok(RUNNING)])
        assert run(network, wait=False).status == "running"
        assert "Prefer" not in network.requests[0].headers

    def test_a_broken_connection_repeats_the_same_run(self) -> None:
        network = Network([BROKEN, BROKEN, ok(DONE)])
        run(network)
        keys = {request.headers["Idempotency-Key"] for request in network.requests}
        assert (len(network.requests), len(keys), network.sleeps) == (3, 1, [0.25, 0.5])

    def test_two_runs_have_two_keys(self) -> None:
        network = Network([ok(DONE), ok(DONE)])
        run(network)
        run(network)
        assert len({request.headers["Idempotency-Key"] for request in network.requests}) == 2

    def test_a_busy_server_is_asked_again_when_it_says(self) -> None:
        network = Network([refusal(429, headers={"retry-after": "7"}), refusal(503), ok(DONE)])
        run(network)
        assert network.sleeps == [7.0, 0.5]

    def test_a_server_that_stays_busy_is_told(self) -> None:
        network = Network([refusal(429, headers={"retry-after": "1"})] * 4)
        with pytest.raises(RateLimited) as caught:
            run(network)
        assert caught.value.retry_after == 1.0
        assert len(network.requests) == 4

    def test_a_pause_that_is_too_long_is_told_at_once(self) -> None:
        network = Network([refusal(429, headers={"retry-after": "3600"})])
        with pytest.raises(RateLimited):
            run(network)

    @pytest.mark.parametrize(("status", "kind"), [(11, TaskFailed), (12, TaskCancelled), (13, TaskFailed)])
    def test_a_task_without_result_raises(self, status: int, kind: type[Exception]) -> None:
        with pytest.raises(kind, match=r"reason|cancelled"):
            run(Network([ok({**DONE, "status": status, "error": "the reason"})]))

    def test_the_servers_remarks_are_handed_on(self) -> None:
        network = Network([ok(DONE, messages=[{"level": "warning", "message": "unknown field"}])])
        assert run(network).messages == network.messages == [{"level": "warning", "message": "unknown field"}]

    def test_what_json_cannot_hold_is_refused_before_it_is_sent(self) -> None:
        network = Network()
        with pytest.raises(ValueError, match="JSON"):
            run(network, input={"a": float("nan")})
        assert network.requests == []

    def test_dates_and_their_like_are_sent_as_text(self) -> None:
        network = Network([ok(DONE)])
        run(network, input={"when": datetime.date(2031, 2, 3), "tags": {"a"}})
        assert json.loads(network.requests[0].content)["input"] == {"when": "2031-02-03", "tags": ["a"]}

    def test_what_nobody_can_send_is_named(self) -> None:
        with pytest.raises(ValueError, match="the request cannot be sent as JSON"):
            run(Network(), input={"a": object()})

    def test_an_answer_that_is_no_json_says_so(self) -> None:
        reply = ok(DONE)
        with pytest.raises(APIError, match="base_url"):
            run(Network([type(reply)(200, {}, b"<html>")]))


class TestRepeating:
    def test_a_post_without_key_is_not_repeated(self) -> None:
        network = Network([BROKEN])
        with pytest.raises(ConnectionFailed):
            network.play(network.api.call("POST", "/tasks/x/inbox", body={}))

    def test_unless_it_was_never_sent(self) -> None:
        network = Network([REFUSED, ok([])])
        assert network.play(network.api.call("POST", "/tasks/x/inbox", body={})) == []

    def test_a_server_that_is_away_is_told_after_the_last_try(self) -> None:
        network = Network([REFUSED] * 4)
        with pytest.raises(ConnectionFailed):
            network.play(network.api.call("GET", "/tasks/x"))
        assert network.sleeps == [0.25, 0.5, 1.0]


class TestFollow:
    def test_updates_come_in_order_and_end_with_the_task(self) -> None:
        network = Network(streams=[[line(1, 1) + line(2, 2), line(7, 3), b'{"type":"heartbeat"}\n', line(10, 4)]])
        assert follow(network).status == "completed"
        assert [str(update.status) for update in network.emitted] == ["received", "queued", "running", "completed"]

    @pytest.mark.parametrize("status", [11, 12])
    def test_failures_are_yielded_not_raised(self, status: int) -> None:
        network = Network(streams=[[line(status, 4, error="no")]])
        assert follow(network).status == status

    def test_a_connection_that_breaks_mid_line_goes_on_where_it_stopped(self) -> None:
        whole = line(7, 4, logs=["c"])
        network = Network(
            streams=[
                [line(7, 2, logs=["a"]), line(7, 3, logs=["b"]) + whole[:20], BROKEN],
                [line(7, 3, logs=["b"]), whole, line(10, 5, logs=["d"])],
            ]
        )
        follow(network)
        assert [log for update in network.emitted for log in update.logs] == ["a", "b", "c", "d"]
        assert network.paths == ["GET /tasks/task_1/stream", "GET /tasks/task_1/stream?after=3"]
        assert network.sleeps == [1.0]

    def test_an_early_end_is_checked_against_the_record(self) -> None:
        record = ok({**DONE, "logs": ["a", "b"]})
        network = Network([record], [[line(7, 3, logs=["a"])]])
        assert follow(network)["output"] == {"a": 1}
        assert [update.logs for update in network.emitted] == [["a"], ["b"]]

    def test_a_draining_server_is_met_again(self) -> None:
        network = Network([ok(RUNNING)], [[line(7, 4)], refusal(503, headers={"retry-after": "2"}), [line(10, 5)]])
        assert follow(network).status == "completed"
        assert network.sleeps == [1.0, 2.0]

    def test_the_budget_of_retries_is_used_up(self) -> None:
        network = Network(streams=[[line(7, 1)], BROKEN, BROKEN, BROKEN])
        network.streams[0].append(BROKEN)
        with pytest.raises(StreamInterrupted, match=r"client\.stream_task") as caught:
            follow(network, StreamingOptions(max_retries=3, retry_delay=2.0))
        assert (caught.value.task_id, caught.value.seq) == ("task_1", 1)
        assert network.sleeps == [2.0, 3.0, 4.5]

    def test_news_gives_the_budget_back(self) -> None:
        streams = [[line(7, seq), BROKEN] for seq in range(1, 9)]
        network = Network(streams=[*streams, [line(10, 9)]])
        follow(network, StreamingOptions(max_retries=1))
        assert len(network.emitted) == 9

    def test_repeated_lines_do_not(self) -> None:
        network = Network(streams=[[line(7, 1), BROKEN]] * 5)
        with pytest.raises(StreamInterrupted):
            follow(network, StreamingOptions(max_retries=2))
        assert (len(network.requests), len(network.emitted)) == (3, 1)

    def test_a_long_quiet_connection_does(self) -> None:
        quiet = [*[b'{"type":"heartbeat"}\n', 3.0] * 20, BROKEN]
        network = Network(streams=[quiet, quiet, quiet, [line(10, 1)]])
        follow(network, StreamingOptions(max_retries=1))
        assert len(network.requests) == 4

    def test_no_retries_means_none(self) -> None:
        with pytest.raises(StreamInterrupted):
            follow(Network(streams=[[BROKEN]]), StreamingOptions(max_retries=0))

    def test_a_task_that_is_gone_raises(self) -> None:
        with pytest.raises(NotFound, match="no such task"):
            follow(Network(streams=[refusal(404, "not_found", "no such task")]))

    def test_observers_see_each_update_before_it_is_emitted(self) -> None:
        network = Network(streams=[[line(7, 1), line(10, 2)]])
        seen: list[int] = []
        follow(network, observers=[lambda update: seen.append(update["seq"] * 10 + len(network.emitted))])
        assert seen == [10, 21]

    def test_the_connection_is_closed_before_the_last_update(self) -> None:
        network = Network(streams=[[line(10, 2)]])
        closed: list[int] = []
        follow(network, observers=[lambda _: closed.append(network.closed)])
        assert closed == [1]


class TestDeadline:
    def test_waiting_ends_in_time(self) -> None:
        network = Network(streams=[[line(7, 1), *[3.0, b'{"type":"heartbeat"}\n'] * 50], [BROKEN]])
        deadline = Deadline(10.0, network.api.clock)
        with pytest.raises(TaskTimeout, match="10 s") as caught:
            follow(network, deadline=deadline)
        assert isinstance(caught.value, TimeoutError)
        assert network.now - 1000 == pytest.approx(10.0, abs=4.1)

    def test_the_last_connection_wakes_up_at_the_deadline(self) -> None:
        network = Network(streams=[[line(7, 1), 7.0, b'{"type":"heartbeat"}\n', 99.0], [3.0, BROKEN]])
        with pytest.raises(TaskTimeout):
            follow(network, StreamingOptions(max_retries=0), deadline=Deadline(10.0, network.api.clock))
        assert [request.timeout for request in network.requests] == [10.0, 3.0]
        assert network.now == 1010.0

    def test_pauses_end_with_it(self) -> None:
        network = Network(streams=[BROKEN])
        with pytest.raises(TaskTimeout):
            follow(network, StreamingOptions(retry_delay=60.0), deadline=Deadline(5.0, network.api.clock))
        assert network.sleeps == [5.0]

    def test_the_server_is_not_asked_to_wait_longer(self) -> None:
        network = Network([ok(DONE)])
        run(network, timeout=4.0)
        assert network.requests[0].headers["Prefer"] == "wait=4"

    def test_negative_times_are_refused(self) -> None:
        with pytest.raises(ValueError, match="timeout"):
            run(Network(), timeout=-1.0)


class TestWaiting:
    def wait(self, network: Network) -> Any:
        return network.play(flows.wait_for_completion(network.api, "task_1", timeout=None, options=None))

    def test_a_task_that_is_over_is_one_request(self) -> None:
        network = Network([ok(DONE)])
        assert self.wait(network)["output"] == {"a": 1}
        assert network.paths == ["GET /tasks/task_1"]

    def test_ids_cannot_leave_their_place_in_the_path(self) -> None:
        network = Network([ok(DONE)])
        network.play(flows.get_task(network.api, "../me?x=1"))
        assert network.paths == ["GET /tasks/..%2Fme%3Fx%3D1"]


class TestUploads:
    record = {"id": "file_1", "uri": "http://far/files/c/1", "upload_url": "http://store/put?sig=1"}  # noqa: RUF012

    def test_files_in_the_input_become_uris(self, tmp_path: Any) -> None:
        picture = tmp_path / "a.png"
        picture.write_bytes(b"png")
        network = Network([ok([self.record]), ok(None), ok(DONE)])
        run(network, input={"image": picture, "deep": [{"text": "plain"}]})
        assert network.paths[0] == "POST /files"
        announced = json.loads(network.requests[0].content)["files"][0]
        assert (announced["filename"], announced["content_type"], announced["size"]) == ("a.png", "image/png", 3)
        body = json.loads(network.requests[2].content)
        assert body["input"] == {"image": "http://far/files/c/1", "deep": [{"text": "plain"}]}

    def test_the_key_stays_with_the_server(self) -> None:
        network = Network([ok([self.record]), ok(None)])
        network.play(flows.upload_file(network.api, b"abc"))
        put = network.requests[1]
        assert (put.method, put.url, put.headers["Content-Length"]) == ("PUT", "http://store/put?sig=1", "3")
        assert "Authorization" not in put.headers

    def test_a_broken_upload_is_sent_again(self) -> None:
        network = Network([ok([self.record]), BROKEN, ok(None)])
        assert network.play(flows.upload_file(network.api, b"abc"))["uri"] == self.record["uri"]

    def test_a_refused_upload_raises(self) -> None:
        network = Network([ok([self.record]), refusal(413, "too_large", "over 5 GiB")])
        with pytest.raises(APIError, match="5 GiB"):
            network.play(flows.upload_file(network.api, b"abc"))
