"""What could be wrong with the tasks and their stories, looked for in one pass over all events."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from sqlalchemy import select

from bakehouse.core.task import LEGAL, TaskStatus
from bakehouse.store.connection import Connection
from bakehouse.store.hot import STATUSES
from bakehouse.store.tables import events, inbox, task_files, tasks, webhooks

_TASKS = select(
    tasks.c.id, tasks.c.status, tasks.c.last_seq, tasks.c.attempt, tasks.c.finished_at, tasks.c.lease_holder
)
_EVENTS = select(events.c.task_id, events.c.seq, events.c.kind, events.c.status, events.c.attempt).order_by(
    events.c.task_id, events.c.seq
)


def check(connection: Connection) -> list[str]:
    """Every fault, one line each."""
    rows = {row[0]: row for row in connection.all(_TASKS, {})}
    faults: list[str] = []
    told = set()
    for task_id, story in groupby(connection.all(_EVENTS, {}), key=itemgetter(0)):
        told.add(task_id)
        if task_id not in rows:
            faults.append(f"{task_id}: events without a task")
            continue
        faults.extend(f"{task_id}: {fault}" for fault in _story(rows[task_id], list(story)))
    faults.extend(f"{task_id}: a task without events" for task_id in rows.keys() - told)
    for table in (inbox, task_files, webhooks):
        lost = select(table.c.task_id).where(table.c.task_id.not_in(select(tasks.c.id)))
        faults.extend(f"{row[0]}: {table.name} without a task" for row in connection.all(lost))
    return faults


def _story(row: tuple[Any, ...], story: list[tuple[Any, ...]]) -> Iterator[str]:
    _, status, last_seq, attempt, finished_at, holder = row
    if [event[1] for event in story] != list(range(1, last_seq + 1)):
        yield f"seqs are not 1..{last_seq}"
    attempts = [event[4] for event in story]
    if attempts != sorted(attempts) or attempts[-1] > attempt:
        yield f"attempts of events are {attempts}, the task's is {attempt}"
    moves = [STATUSES[event[3]] for event in story if event[2] == "status"]
    yield from _moves(moves, STATUSES[status])
    if (finished_at is not None) != STATUSES[status].terminal:
        yield f"status {STATUSES[status].text} with finished_at {finished_at}"
    if holder is not None and STATUSES[status] in (TaskStatus.QUEUED, *(s for s in STATUSES if s.terminal)):
        yield f"{STATUSES[status].text} with a holder"


def _moves(moves: list[TaskStatus], now: TaskStatus) -> Iterator[str]:
    if not moves or moves[0] != TaskStatus.RECEIVED:
        yield "the story does not begin with received"
    if moves and moves[-1] != now:
        yield f"status is {now.text}, the last move was to {moves[-1].text}"
    for before, after in pairwise(moves):
        if after not in LEGAL[before]:
            yield f"moved from {before.text} to {after.text}"
    ends = sum(move.terminal for move in moves)
    if ends != int(now.terminal):
        yield f"{ends} terminal events"
