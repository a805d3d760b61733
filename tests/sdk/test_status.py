"""A status is its number and its name."""

from __future__ import annotations

import copy
import json
import operator
import pickle

import pytest
from inferencesh import TaskStatus, is_terminal_status, parse_status


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("unknown", 0), ("received", 1), ("queued", 2), ("scheduled", 3), ("dispatched", 3), ("preparing", 4),
        ("serving", 5), ("setting_up", 6), ("running", 7), ("cancelling", 8), ("uploading", 9), ("completed", 10),
        ("failed", 11), ("cancelled", 12), ("rejected", 13),
    ],
)  # fmt: skip
def test_equal_to_number_and_name(name: str, number: int) -> None:
    status = TaskStatus(number)
    assert status == number
    assert number == status
    assert status == name
    assert name == status
    assert operator.ne(status, name) is False
    assert operator.ne(status, number) is False
    assert TaskStatus(name) is status
    assert TaskStatus[name.upper()] is status
    assert hash(status) == hash(number)


def test_differs_from_everything_else() -> None:
    status = TaskStatus.QUEUED
    assert status != "running"
    assert status != 7
    assert status != "no such state"
    assert status is not None
    assert status != object()


def test_in_lists_of_names() -> None:
    assert TaskStatus.COMPLETED in ["completed", "failed"]
    assert TaskStatus.RUNNING not in ["completed", "failed"]
    assert "completed" in [TaskStatus.COMPLETED]


def test_text_forms() -> None:
    assert str(TaskStatus.SETTING_UP) == "setting_up"
    assert f"{TaskStatus.QUEUED}" == "queued"
    assert f"{TaskStatus.QUEUED:>8}" == "  queued"
    assert f"{TaskStatus.QUEUED:03d}" == "002"
    assert TaskStatus(3).name == "SCHEDULED"
    assert TaskStatus.DISPATCHED is TaskStatus.SCHEDULED


def test_json_is_the_number() -> None:
    assert json.dumps({"status": TaskStatus.COMPLETED}) == '{"status": 10}'


def test_survives_copies() -> None:
    assert pickle.loads(pickle.dumps(TaskStatus.FAILED)) is TaskStatus.FAILED
    assert copy.deepcopy(TaskStatus.FAILED) is TaskStatus.FAILED


def test_parse_takes_any_form() -> None:
    assert parse_status("RUNNING") is TaskStatus.RUNNING
    assert parse_status(99) is TaskStatus.UNKNOWN
    assert parse_status("new_state") is TaskStatus.UNKNOWN
    with pytest.raises(ValueError, match="99"):
        TaskStatus(99)


def test_terminal_states() -> None:
    assert [status.name for status in TaskStatus if status.terminal] == ["COMPLETED", "FAILED", "CANCELLED", "REJECTED"]
    assert is_terminal_status("completed")
    assert not is_terminal_status(9)
