"""What MCP tools and resources give: parts of text, images, sounds and embedded resources."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class Content:
    """The kinds of parts under one name: ``case Content.Text(text=t)``."""

    @dataclass(frozen=True)
    class Text:
        """Plain text."""

        text: str

    @dataclass(frozen=True)
    class Image:
        """An image: its type, such as ``image/png``, and its bytes."""

        mime: str
        data: bytes

    @dataclass(frozen=True)
    class Audio:
        """A sound: its type, such as ``audio/wav``, and its bytes."""

        mime: str
        data: bytes

    @dataclass(frozen=True)
    class EmbeddedResource:
        """A resource, or a link to one: then it has neither ``text`` nor ``blob``."""

        uri: str
        mime: str | None = None
        text: str | None = None
        blob: bytes | None = None


AnyContent = Content.Text | Content.Image | Content.Audio | Content.EmbeddedResource


class ToolResult(list[AnyContent]):
    """The parts of a tool's answer.

    ``is_error``: the tool itself failed, and the parts say how. ``structured``: the answer as JSON, where the tool
    gives that too.
    """

    def __init__(self, parts: Iterable[AnyContent], is_error: bool = False, structured: Any = None) -> None:
        super().__init__(parts)
        self.is_error = is_error
        self.structured = structured

    @property
    def text(self) -> str:
        """Every part that is text, a line each."""
        return "\n".join(part.text for part in self if isinstance(part, Content.Text))


def tool_result(answer: dict[str, Any]) -> ToolResult:
    """From what a server answers to ``tools/call``."""
    parts = [part_of(part) for part in answer.get("content", [])]
    return ToolResult(parts, bool(answer.get("isError")), answer.get("structuredContent"))


def part_of(part: dict[str, Any]) -> AnyContent:
    """From a part as the protocol has it; one of a kind that is not known is its JSON."""
    kind = part.get("type")
    if kind == "text":
        return Content.Text(part["text"])
    if kind == "image":
        return Content.Image(part["mimeType"], base64.b64decode(part["data"]))
    if kind == "audio":
        return Content.Audio(part["mimeType"], base64.b64decode(part["data"]))
    if kind == "resource":
        return resource_of(part["resource"])
    if kind == "resource_link":
        return Content.EmbeddedResource(part["uri"], part.get("mimeType"))
    return Content.Text(json.dumps(part))  # A kind that came after this was written.


def resource_of(resource: dict[str, Any]) -> Content.EmbeddedResource:
    """From a resource's contents as the protocol has them."""
    blob = resource.get("blob")
    return Content.EmbeddedResource(
        resource["uri"],
        resource.get("mimeType"),
        resource.get("text"),
        None if blob is None else base64.b64decode(blob),
    )
