"""Tasks as the inference.sh clients read them. Pure functions from our nouns to their JSON.

One superset object serves every answer and every stream line. No top-level key may be ``data``, ``fields``, ``event``,
``delta`` or ``type``: stream parsers would take it for something else.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import orjson

from bakehouse.core.clock import rfc3339
from bakehouse.core.ids import short_id
from bakehouse.core.task import Event, Task, TaskStatus
from bakehouse.service.streams import Update

LINE_LIMIT = 100 * 1024
"""A stream line longer than this leaves the task's input out: readers have it, and some cannot take long lines."""

HEARTBEAT = b'{"type":"heartbeat"}\n'

LOG_TYPES = {"system": 0, "setup": 3}
"""Numbers of the published log types; everything else is 4, the task's own."""


def task_shape(
    task: Task,
    *,
    status: TaskStatus | None = None,
    at: int | None = None,
    attempt: int | None = None,
    seq: int | None = None,
    logs: list[str] | None = None,
    progress: Any = None,
    partial: Any = None,
    sent: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """*task* in the superset form, as it stood at *status*; while it runs its output is the newest partial one.

    Messages that an update brings (*sent*) stand in ``sent``, and in its output for readers that know no more.
    """
    partial = partial if sent is None else sent
    status = task.status if status is None else status
    ended = status.terminal
    options = orjson.loads(task.options) if task.options else {}
    return {
        "id": task.id,
        "short_id": short_id(task.id),
        "created_at": rfc3339(task.created_at),
        "updated_at": rfc3339(task.updated_at if at is None else at),
        "user_id": task.user_id,
        "team_id": task.owner_id,
        "visibility": "private",
        "kind": task.kind,
        "parent_id": task.parent_id,
        "status": int(status),
        "status_text": status.text,
        "app_id": task.app_id,
        "app": task.app_ref,
        "app_version_id": task.version_id,
        "function": task.function,
        "infra": options.get("infra"),
        "workers": options.get("workers") or [],
        "variant": options.get("variant"),
        "metadata": options.get("metadata"),
        "webhook": options.get("webhook"),
        "run_at": rfc3339(task.run_at) if task.run_at else None,
        "timeout": task.timeout,
        "setup": orjson.Fragment(task.setup) if task.setup else None,
        "input": orjson.Fragment(task.input),
        "output": orjson.Fragment(task.output) if ended and task.output else (None if ended else partial),
        "partial_output": None if ended else partial,
        "progress": progress,
        "error": task.error if ended else None,
        "error_code": task.error_code if ended else None,
        "logs": logs or [],
        "sent": sent["messages"] if sent else [],
        "attempt": task.attempt if attempt is None else attempt,
        "seq": task.last_seq if seq is None else seq,
        "session_id": task.session_id,
        "worker_id": task.lease_holder,
    }


def dump(value: Any) -> bytes:
    """*value* as JSON in ASCII: readers that guess a charset, or split at Unicode line ends, cannot go wrong."""
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return text if text.isascii() else json.dumps(orjson.loads(text), separators=(",", ":")).encode()


def line(update: Update) -> bytes:
    """One stream line, without its end: the bare task, or a delta."""
    if update.delta is not None:
        return dump({"event": "delta", "data": {"delta": update.delta, "seq": update.seq, "resource_id": ""}})
    shape = task_shape(
        update.task,
        status=update.status,
        at=update.at,
        attempt=update.attempt,
        seq=update.seq,
        logs=update.logs,
        progress=update.progress,
        partial=update.partial,
        sent=update.sent,
    )
    text = dump(shape)
    if len(text) > LINE_LIMIT:
        shape["input"] = {}
        shape["input_elided"] = True
        if update.sent is not None:
            shape["partial_output"] = None  # the same as the output
        text = dump(shape)
    return text


def ndjson(update: Update) -> bytes:
    """An update as an NDJSON line."""
    return line(update) + b"\n"


def sse(update: Update) -> bytes:
    """An update as a server-sent event of the default type."""
    return b"id: %d\ndata: %b\n\n" % (update.seq, update.bytes_for("line", line))


def webhook_body(task: Task) -> bytes:
    """What a webhook is told: the finished task in the success envelope. Its log is left out; ask for it."""
    return dump({"success": True, "status": 200, "data": task_shape(task), "messages": []})


def status_shape(task: Task) -> dict[str, Any]:
    """What pollers ask for."""
    return {
        "id": task.id,
        "status": int(task.status),
        "status_text": task.status.text,
        "updated_at": rfc3339(task.updated_at),
    }


def event_shape(task: Task, event: Event) -> dict[str, Any]:
    """One status move."""
    return {
        "id": f"{task.id}-{event.seq}",
        "created_at": rfc3339(event.at),
        "event_time": rfc3339(event.at),
        "task_id": task.id,
        "seq": event.seq,
        "attempt": event.attempt,
        "status": int(event.status),
        "status_text": event.status.text,
        "reason": orjson.loads(event.data).get("reason") if event.data else None,
    }


def logs_shape(task: Task, events: list[Event]) -> dict[str, Any]:
    """The typed log objects of a task and its status moves."""
    logs = []
    for event in events:
        if event.kind != "log" or event.data is None:
            continue
        for index, item in enumerate(orjson.loads(event.data)):
            logs.append(
                {
                    "id": f"{task.id}-{event.seq}-{index}",
                    "created_at": rfc3339(event.at),
                    "updated_at": rfc3339(event.at),
                    "task_id": task.id,
                    "log_type": LOG_TYPES.get(item["stream"], 4),
                    "stream": item["stream"],
                    "level": item.get("level"),
                    "attempt": event.attempt,
                    "content": item["text"],
                }
            )
    moves = [event_shape(task, event) for event in events if event.kind == "status"]
    return {"task_id": task.id, "status": int(task.status), "events": moves, "logs": logs}


def timings_shape(task: Task, events: list[Event]) -> dict[str, Any]:
    """How long a task was in each state. Durations in seconds and milliseconds."""
    moves = [event for event in events if event.kind == "status"]
    rows = []
    for index, event in enumerate(moves):
        after = moves[index + 1] if index + 1 < len(moves) else None
        length = (after.at - event.at) if after else 0
        rows.append(
            {
                "status": int(event.status),
                "status_text": event.status.text,
                "timestamp": rfc3339(event.at),
                "duration": length / 1e6,
                "duration_ms": length / 1e3,
                "next_status": int(after.status) if after else None,
            }
        )
    total = moves[-1].at - moves[0].at if moves else 0
    return {
        "task_id": task.id,
        "status": int(task.status),
        "total_duration": total / 1e6,
        "total_duration_ms": total / 1e3,
        "groups": _groups(moves),
        "events": rows,
    }


def _groups(moves: list[Event]) -> list[dict[str, Any]]:
    """The states gathered into what people ask about: waiting, preparing, running."""
    labels = {
        TaskStatus.RECEIVED: "queue", TaskStatus.QUEUED: "queue", TaskStatus.SCHEDULED: "queue",
        TaskStatus.PREPARING: "prepare", TaskStatus.SERVING: "prepare", TaskStatus.SETTING_UP: "prepare",
        TaskStatus.RUNNING: "run", TaskStatus.CANCELLING: "run", TaskStatus.UPLOADING: "upload",
    }  # fmt: skip
    groups: list[dict[str, Any]] = []
    for event, after in itertools.pairwise(moves):
        label = labels.get(event.status, "other")
        if not groups or groups[-1]["label"] != label:
            groups.append({"label": label, "start": event.at, "end": after.at})
        groups[-1]["end"] = after.at
    return [
        {
            "label": group["label"],
            "start_at": rfc3339(group["start"]),
            "end_at": rfc3339(group["end"]),
            "duration": (group["end"] - group["start"]) / 1e6,
            "duration_ms": (group["end"] - group["start"]) / 1e3,
        }
        for group in groups
    ]
