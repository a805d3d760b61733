"""A task's updates as something to iterate over, synchronously or asynchronously."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import Any

from inferencesh._drivers import AsyncDriver, SyncDriver
from inferencesh._flow import Flow, Steps
from inferencesh._models import Task
from inferencesh._story import Story

Begin = Callable[[], Flow[Task]]
"""Starts the task of a stream that begins with running one."""

Follow = Callable[[Story], Flow[Task]]
"""Follows the story to its end."""


class _Stream:
    """What both colours of stream know of their task."""

    def __init__(self, story: Story) -> None:
        self._story = story

    @property
    def task_id(self) -> str:
        """The task's id; empty while an asynchronous stream has not begun to run its app."""
        return self._story.task_id

    @property
    def last(self) -> Task | None:
        """The newest update."""
        return self._story.last

    @property
    def result(self) -> Task | None:
        """The finished task; None while it is not over. Raises TaskFailed, TaskCancelled."""
        return self._story.result


class TaskStream(_Stream, Iterator[Task]):
    """Updates of a task: iterate over it, inside ``with`` if the connection shall close at once when you leave early.

    It ends after the last update, whatever that is. Raises StreamInterrupted, TaskTimeout, NotFound.
    """

    def __init__(self, driver: SyncDriver, story: Story, follow: Follow) -> None:
        super().__init__(story)
        self._updates = driver.iterate(Steps(follow(story)))

    def __next__(self) -> Task:
        return next(self._updates)

    def __enter__(self) -> TaskStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the stream; the task goes on. May be repeated."""
        self._updates.close()


class AsyncTaskStream(_Stream, AsyncIterator[Task]):
    """Updates of a task: ``async for`` over it, awaited before or not, inside ``async with`` or not.

    A stream from ``run(..., stream=True)`` runs the app when it is awaited, entered or first iterated.
    It ends after the last update, whatever that is. Raises StreamInterrupted, TaskTimeout, NotFound.
    """

    def __init__(self, driver: AsyncDriver, story: Story, follow: Follow, begin: Begin | None = None) -> None:
        super().__init__(story)
        self._driver, self._begin = driver, begin
        self._updates = driver.iterate(Steps(follow(story)))

    async def start(self) -> AsyncTaskStream:
        """Run the app now, if that has not happened yet."""
        begin, self._begin = self._begin, None
        if begin is not None:
            self._story.task_id = (await self._driver.run(begin())).id
        return self

    def __await__(self) -> Generator[Any, None, AsyncTaskStream]:
        return self.start().__await__()

    async def __anext__(self) -> Task:
        if self._begin is not None:
            await self.start()
        return await self._updates.__anext__()

    async def __aenter__(self) -> AsyncTaskStream:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the stream; the task goes on. May be repeated."""
        await self._updates.aclose()
