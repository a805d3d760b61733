"""Which lines of a stream are news."""

from __future__ import annotations

import pytest
from inferencesh import TaskCancelled, TaskFailed
from inferencesh._models import Task
from inferencesh._story import LineBuffer, Story

from tests.sdk.network import line


def read(story: Story, *lines: bytes) -> list[Task]:
    return [update for update in map(story.read, lines) if update is not None]


def test_lines_are_cut_wherever_the_chunks_are() -> None:
    text = b"one\n\ntwo\nthree"
    whole = LineBuffer()
    lines = [found for index in range(len(text)) for found in whole.feed(text[index : index + 1])]
    assert lines == [b"one", b"", b"two"]
    assert whole.rest() == b"three"
    assert LineBuffer().feed(text) == [b"one", b"", b"two"]


def test_repeated_and_overtaken_lines_are_dropped() -> None:
    story = Story("task_1")
    updates = read(
        story,
        line(2, 1), line(7, 2), line(7, 3, logs=["a"]),
        line(7, 3, logs=["a"]),  # the same line once more
        line(2, 1),  # an old one
        line(7, 4, logs=["b"]),
    )  # fmt: skip
    assert [(update["seq"], update["logs"]) for update in updates] == [(1, []), (2, []), (3, ["a"]), (4, ["b"])]
    assert story.seq == 4


def test_live_lines_are_shown_when_they_say_something_new_and_never_repeat_logs() -> None:
    story = Story("task_1")
    updates = read(
        story,
        line(7, 5, logs=["a"]),
        line(7, 5, logs=["a"], progress={"current": 1, "total": 2}),
        line(7, 5, progress={"current": 1, "total": 2}),
        line(7, 5, progress={"current": 1, "total": 2}, partial_output={"text": "x"}),
    )
    assert [(u.get("progress"), u.get("partial_output"), u["logs"]) for u in updates] == [
        (None, None, ["a"]),
        ({"current": 1, "total": 2}, None, []),
        ({"current": 1, "total": 2}, {"text": "x"}, []),
    ]


def test_a_live_line_that_jumps_ahead_does_not_hide_what_it_jumped_over() -> None:
    story = Story("task_1")
    updates = read(
        story,
        line(7, 1),
        line(7, 4, progress={"current": 3}),
        line(7, 4, progress={"current": 3}),
        line(7, 2, logs=["a"]),
        line(7, 3, logs=["b"]),
        line(7, 4, logs=["c"]),
    )
    assert [(update["seq"], update["logs"]) for update in updates] == [
        (1, []),
        (4, []),
        (2, ["a"]),
        (3, ["b"]),
        (4, ["c"]),
    ]
    assert story.seq == 4


def test_the_last_word_is_always_heard() -> None:
    story = Story("task_1", seq=9)
    (update,) = read(story, line(10, 9, output={"a": 1}))
    assert update.status == "completed"
    assert story.ended


def test_lines_without_seq_are_all_shown() -> None:
    assert len(read(Story("task_1"), line(7), line(7), line(10))) == 3


@pytest.mark.parametrize(
    "text", [b"", b"  ", b'{"type": "heartbeat"}', b'{"event": "new"}', b'{"cut', b"[1]", b'{"data": {"id": 1}}']
)
def test_what_is_no_update_is_skipped(text: bytes) -> None:
    assert Story("task_1").read(text) is None


def test_deltas_carry_the_state() -> None:
    story = Story("task_1")
    read(story, line(7, 3))
    (update,) = read(story, b'{"event": "delta", "data": {"delta": {"text": "a"}, "seq": 3}}')
    assert (update["event"], update["delta"], update["status"], update["id"]) == ("delta", {"text": "a"}, 7, "task_1")


def test_partial_lines_are_laid_over_the_last_one() -> None:
    story = Story("task_1")
    read(story, line(7, 3, input={"a": 1}, logs=["x"]))
    (update,) = read(
        story, b'{"data": {"id": "task_1", "status": 7, "seq": 4, "output": {"b": 2}}, "fields": ["output", "seq"]}'
    )
    assert (update["input"], update["output"], update["logs"]) == ({"a": 1}, {"b": 2}, [])


def test_a_record_as_last_word_brings_only_unseen_log_lines() -> None:
    story = Story("task_1")
    read(story, line(7, 3, logs=["a", "b"]))
    update = story.finish(Task({"id": "task_1", "status": 10, "logs": ["a", "b", "c"]}))
    assert update["logs"] == ["c"]
    assert story.result is update


def test_result_raises_for_failures() -> None:
    story = Story("task_1")
    assert story.result is None
    read(story, line(11, 2, error="out of paper"))
    with pytest.raises(TaskFailed, match="out of paper") as caught:
        _ = story.result
    assert caught.value.task_id == "task_1"
    assert isinstance(caught.value, RuntimeError)
    read(story, line(12, 3))
    with pytest.raises(TaskCancelled):
        _ = story.result


def test_messages_are_shown_once_and_the_record_adds_what_was_missed() -> None:
    story = Story("task_1")
    updates = read(
        story,
        line(7, 3, sent=["a"], attempt=1),
        line(7, 3, sent=["a"], attempt=1, progress={"current": 1}),
        line(7, 4, sent=["b"], attempt=1),
        line(7, 6, sent=["c"], attempt=2),
    )
    assert [update.sent for update in updates] == [["a"], [], ["b"], ["c"]]
    ended = story.finish(Task({"status": 10, "seq": 8, "attempt": 2, "sent": ["c", "d"], "logs": []}))
    assert ended.sent == ["d"]
