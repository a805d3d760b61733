"""The body of a webhook: the finished task in the usual envelope, with the type and time of Standard Webhooks."""

from __future__ import annotations

import orjson

from bakehouse.api.inferencesh.shapes import task_shape
from bakehouse.core.clock import rfc3339
from bakehouse.core.task import Task


def render_webhook(task: Task) -> bytes:
    """*task*, which has ended, as JSON. Its log is left out: it may be long, and GET /tasks/{id}/logs has it."""
    body = {
        "type": f"task.{task.status.text}",
        "timestamp": rfc3339(task.finished_at or task.updated_at),
        "success": True,
        "status": 200,
        "data": task_shape(task, logs=[]),
        "messages": [],
    }
    return orjson.dumps(body)
