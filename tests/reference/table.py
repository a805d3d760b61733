"""The one table of what is bound when the documents' blocks run. Nothing else about them is changed.

``LITERALS`` are string literals that stand for something of the reader's own. ``BLOCKS`` lists every block with the
names it leaves open; how each is filled stands in ``test_documents.py``, which asserts that the lists are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

KEY = "the server's key"
SCENE = "the deployed app"
AGENT = "no agent: there are none yet"
PICTURE = "the path of a picture"
RESULT = "a file that the app can read"

LITERALS = {
    "your-api-key": KEY,
    "inf_...": KEY,
    "your-app": SCENE,
    "google/veo-3-1-fast": SCENE,
    "infsh/flux-schnell": SCENE,
    "my-org/assistant@latest": AGENT,
    "/path/to/image.png": PICTURE,
    "/path/to/file.png": PICTURE,
    "/tmp/result.png": RESULT,
}
"""String literals of the documents, and what each stands for here."""


@dataclass(frozen=True)
class Entry:
    """What a block leaves open. ``prints``: texts that its output must show. ``unsupported``: why it cannot run."""

    names: frozenset[str]
    prints: tuple[str, ...] = ()
    unsupported: str = ""


def _entry(names: str = "", *prints: str, unsupported: str = "") -> Entry:
    return Entry(frozenset(names.split()), prints, unsupported)


BLOCKS = {
    "1 client usage": _entry("", "Task ID: task_", "Output: {'scene': '[value 1]"),
    "1 with setup parameters": _entry("client"),
    "1 run options": _entry("client params TaskStatus", "Status: RUNNING", "Status: COMPLETED", "Output: {'scene'"),
    "1 task management": _entry(
        "client task_id TaskStatus", "Status: COMPLETED", "Result: {'scene'", "Final result: {"
    ),
    "1 task status values": _entry(),
    "1 file upload": _entry("client", "URI: http"),
    "1 async client": _entry("params task_id", "Output: {'scene'", "Status: COMPLETED", "Update: {"),
    "1 file handling": _entry("", "image/png"),
    "1 creating an app": _entry(),
    "2 Basic Streaming": _entry("", "Status: received", "Status: running", "Status: completed"),
    "2 Handling Different Update Types": _entry(
        "client config",
        "Task queued, waiting",
        "Task is running",
        "Done!",
        "Output: {",
        "  Log: frame 1",
        "  Partial: {",
    ),
    "2 Progress Tracking with UI": _entry("client config", "100.0%", "✓ Complete!"),
    "2 Streaming with Timeout": _entry("client config", "Status: running", "Status: completed"),
    "2 Async Streaming": _entry("", "Status: completed"),
    "2 Agent Streaming": _entry("client execute_tool", unsupported="the server has no agents yet and answers 501"),
    "2 Reconnection Handling": _entry("config", "'frame 1'", "COMPLETED"),
    "2 Multiple Streams in Parallel": _entry("", "[0] completed", "[1] completed", "[2] completed"),
    "2 Cancelling a Stream": _entry("client config should_cancel", "Status: ", "Task cancelled"),
    "2 Collecting All Logs": _entry("client config", "Final logs:", "  frame 1", "  frame 4"),
    "2 Custom Stream Processing": _entry("client config time", "Duration: ", "Logs: "),
}
"""Every Python block of documents 1 and 2."""
