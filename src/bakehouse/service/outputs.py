"""Output files: what a call left in its outbox becomes a stored file, and its place in the output a URL."""

from __future__ import annotations

from typing import Any

from bakehouse.core.executor import OutputFile
from bakehouse.core.task import Task
from bakehouse.service.files import Files


class Outputs:
    """Stores output files and puts their URLs where the file objects stood."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def place(self, task: Task, output: Any, files: list[OutputFile], partial: bool) -> Any:
        """*output* with a URL at every file's pointer. The files leave the outbox. Raises OSError or TooLarge.

        Files of a partial output are stored like the others: a client that saw their URLs may read them.
        """
        for file in files:
            record = await self._files.store_output(task.owner_id, task.id, file)
            output = replace_at(output, file.pointer, self._files.url(record))
        return output


def replace_at(value: Any, pointer: str, new: Any) -> Any:
    """*value*, changed in place where JSON pointer *pointer* (RFC 6901) says; the new value itself for ``""``."""
    if not pointer:
        return new
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")]
    target = value
    for part in parents:
        target = target[int(part) if isinstance(target, list) else part]
    target[int(last) if isinstance(target, list) else last] = new
    return value
