"""The clients. What they do stands in flows; here are the names, the signatures and the two colours."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Callable, Literal, overload

import httpx

from inferencesh import _env, _progress, _run
from inferencesh._api import Api, Message, segment
from inferencesh._drivers import AsyncDriver, SyncDriver
from inferencesh._errors import NotConfigured
from inferencesh._flow import Flow
from inferencesh._follow import Deadline, Follower, Observer
from inferencesh._models import Record, StreamingOptions, Task, UploadFileOptions
from inferencesh._operations import Bound, D, operation
from inferencesh._resources import Apps, Files, Sessions, Tasks, record
from inferencesh._sessions import AsyncSession, Session
from inferencesh._story import Story
from inferencesh._streams import AsyncTaskStream, TaskStream

OnMessage = Callable[[Message], None]
OnUpdate = Callable[[Task], Any]


class _Client(Bound[D]):
    """What both clients do in the same way."""

    @property
    def base_url(self) -> str:
        """The server's address, without a slash at its end."""
        return self._api.settings.base_url

    @property
    def tasks(self) -> Tasks[D]:
        """Look at tasks, cancel and delete them."""
        return Tasks(self._api, self._driver)

    @property
    def apps(self) -> Apps[D]:
        """Look at apps."""
        return Apps(self._api, self._driver)

    @property
    def files(self) -> Files[D]:
        """Upload files and look at them."""
        return Files(self._api, self._driver)

    @property
    def sessions(self) -> Sessions[D]:
        """Look at sessions and end them."""
        return Sessions(self._api, self._driver)

    @operation
    def get_task(self, task_id: str) -> Flow[Task]:
        """The task as it stands. Raises NotFound."""
        return (yield from _run.get_task(self._api, task_id))

    @operation
    def cancel(self, task_id: str) -> Flow[Record]:
        """Ask the task to stop. A task that is over stays as it is. Raises NotFound."""
        return (yield from _cancel(self._api, task_id))

    @operation
    def cancel_task(self, task_id: str) -> Flow[Record]:
        """The same as ``cancel``."""
        return (yield from _cancel(self._api, task_id))

    @operation
    def wait_for_completion(
        self,
        task_id: str,
        *,
        timeout: float | None = None,
        options: StreamingOptions | None = None,
    ) -> Flow[Task]:
        """Wait until the task is over, at most *timeout* seconds, and return it.

        Raises TaskFailed, TaskCancelled, TaskTimeout (the task goes on), StreamInterrupted, NotFound.
        """
        return (yield from _run.wait_for_completion(self._api, task_id, timeout=timeout, options=options))

    @operation
    def upload_file(self, source: Any, options: UploadFileOptions | None = None) -> Flow[Record]:
        """Upload a path, bytes, data URI, base64, an open file or a ``File``; the record's ``uri`` is its address.

        Raises BadFile for something that cannot be read as a file.
        """
        return (yield from _run.upload_file(self._api, source, options))

    @operation
    def agent(self, ref: str) -> Flow[Record]:
        """Agents are not offered yet: this asks the server for the agent and raises NotConfigured."""
        path = "/".join(segment(part) for part in ref.split("/"))
        yield from self._api.call("GET", f"/agents/{path}")
        raise NotConfigured(501, "this version of the client cannot talk to agents", code="not_configured")

    def _followed(
        self,
        options: StreamingOptions | None,
        timeout: float | None,
        progress: bool,
        on_update: OnUpdate | None,
    ) -> Callable[[Story], Flow[Task]]:
        """How a stream follows its story. The time to wait begins with the stream."""
        deadline = Deadline(timeout, self._api.clock)

        def follow(story: Story) -> Flow[Task]:
            with _Observers(progress, on_update) as observers:
                return (yield from Follower(self._api, story, options, deadline, observers).follow())

        return follow

    def _finished(
        self,
        params: Mapping[str, Any],
        wait: bool,
        options: StreamingOptions | None,
        timeout: float | None,
        progress: bool,
        on_update: OnUpdate | None,
    ) -> Flow[Task]:
        """``run`` without a stream."""
        if not wait and (options or timeout is not None or progress or on_update):
            raise ValueError("options, timeout, progress and on_update need wait=True or stream=True")
        with _Observers(progress, on_update) as observers:
            return (
                yield from _run.run(self._api, params, wait=wait, options=options, timeout=timeout, observers=observers)
            )


def _cancel(api: Api, task_id: str) -> Flow[Record]:
    return record((yield from api.call("POST", f"/tasks/{segment(task_id)}/cancel")))


class _Observers:
    """Who watches a task: the screen, a function of the caller's, both or nobody."""

    def __init__(self, progress: bool, on_update: OnUpdate | None) -> None:
        self._view = _progress.view() if progress else None
        self._found: list[Observer] = [observer for observer in (self._view, on_update) if observer is not None]

    def __enter__(self) -> Sequence[Observer]:
        return self._found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.close()


def _first_call(setup: Mapping[str, Any] | None, idle_timeout: int | None) -> dict[str, Any]:
    """What only the call that opens a session says."""
    first = {"setup": setup, "session_timeout": idle_timeout}
    return {name: value for name, value in first.items() if value is not None}


class Inference(_Client[SyncDriver]):
    """A client for blocking code. May be shared by threads.

    *api_key* and *base_url* come from ``INFERENCE_API_KEY`` and ``INFERENCE_BASE_URL`` when they are not given.
    *timeout*: seconds that the server may keep silent before a request counts as failed. *max_retries*: how often a
    request is sent again when the connection breaks or the server is busy. *on_message* gets the server's remarks,
    which are logged otherwise. *transport* replaces the network.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 3,
        on_message: OnMessage | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        settings = _env.settings(base_url, api_key, timeout, max_retries)
        super().__init__(Api(settings, on_message), SyncDriver(transport))

    @overload
    def run(
        self,
        params: Mapping[str, Any],
        *,
        stream: Literal[True],
        wait: bool = True,
        options: StreamingOptions | None = None,
        timeout: float | None = None,
        progress: bool = False,
        on_update: OnUpdate | None = None,
    ) -> TaskStream: ...
    @overload
    def run(
        self,
        params: Mapping[str, Any],
        *,
        wait: bool = True,
        stream: Literal[False] = False,
        options: StreamingOptions | None = None,
        timeout: float | None = None,
        progress: bool = False,
        on_update: OnUpdate | None = None,
    ) -> Task: ...
    def run(
        self,
        params: Mapping[str, Any],
        *,
        wait: bool = True,
        stream: bool = False,
        options: StreamingOptions | None = None,
        timeout: float | None = None,
        progress: bool = False,
        on_update: OnUpdate | None = None,
    ) -> Task | TaskStream:
        """Run an app: ``client.run({"app": "namespace/name", "input": {...}})``.

        Returns the finished task; with ``wait=False`` the accepted one; with ``stream=True`` a stream of updates.
        Files in ``input`` are uploaded. *timeout* seconds bound the waiting, not the task. *progress* shows it on the
        screen, *on_update* is called with every update.

        Raises TaskFailed, TaskCancelled, TaskTimeout when waiting, and APIError when the server refuses.
        """
        if not stream:
            return self._driver.run(self._finished(params, wait, options, timeout, progress, on_update))
        follow = self._followed(options, timeout, progress, on_update)
        task = self._driver.run(_run.start(self._api, params))
        return TaskStream(self._driver, Story(task.id), follow)

    def stream_task(
        self,
        task_id: str,
        *,
        options: StreamingOptions | None = None,
        timeout: float | None = None,
        progress: bool = False,
        on_update: OnUpdate | None = None,
    ) -> TaskStream:
        """Follow a task from its first update: iterate, and read ``result`` afterwards."""
        return TaskStream(self._driver, Story(task_id), self._followed(options, timeout, progress, on_update))

    def session(self, app: str, *, setup: Mapping[str, Any] | None = None, idle_timeout: int | None = None) -> Session:
        """Calls to one instance, which keeps its state: ``with client.session(app) as s: s.call("f", {...})``.

        *idle_timeout* seconds without a call end it.
        """
        return Session(self._api, self._driver, app, _first_call(setup, idle_timeout))

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def __enter__(self) -> Inference:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncInference(_Client[AsyncDriver]):
    """A client for asyncio. The parameters are those of `Inference`; its methods are awaited."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 3,
        on_message: OnMessage | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        settings = _env.settings(base_url, api_key, timeout, max_retries)
        super().__init__(Api(settings, on_message), AsyncDriver(transport))

    @overload
    def run(
        self,
        params: Mapping[str, Any],
        *,
        stream: Literal[True],
        wait: bool = True,
        options: StreamingOptions | None = None,
        timeout: float | None = None,
        progress: bool = False,
        on_update: OnUpdate | None = None,
    ) -> AsyncTaskStream: ...
    @overload
    def run(
        self,
        params: Mapping[str, Any],
        *,
        wait: bool = True,
        stream: Literal[False] = False,
        options: StreamingOptions | None = None,
        timeout: float | None = None,
        progress: bool = False,
        on_update: OnUpdate | None = None,
    ) -> Coroutine[Any, Any, Task]: ...
    def run(
        self,
        params: Mapping[str, Any],
        *,
        wait: bool = True,
        stream: bool = False,
        options: StreamingOptions | None = None,
        timeout: float | None = None,
        progress: bool = False,
        on_update: OnUpdate | None = None,
    ) -> Coroutine[Any, Any, Task] | AsyncTaskStream:
        """As `Inference.run`, to be awaited; *on_update* may be a coroutine function.

        With ``stream=True``: ``async for update in client.run(..., stream=True)``, awaited before or not. The app runs
        when the stream is awaited, entered or first iterated.
        """
        if not stream:
            return self._driver.run(self._finished(params, wait, options, timeout, progress, on_update))
        follow = self._followed(options, timeout, progress, on_update)
        return AsyncTaskStream(self._driver, Story(), follow, lambda: _run.start(self._api, params))

    def stream_task(
        self,
        task_id: str,
        *,
        options: StreamingOptions | None = None,
        timeout: float | None = None,
        progress: bool = False,
        on_update: OnUpdate | None = None,
    ) -> AsyncTaskStream:
        """Follow a task from its first update: iterate with ``async for``, and read ``result`` afterwards."""
        return AsyncTaskStream(self._driver, Story(task_id), self._followed(options, timeout, progress, on_update))

    def session(
        self, app: str, *, setup: Mapping[str, Any] | None = None, idle_timeout: int | None = None
    ) -> AsyncSession:
        """As `Inference.session`: ``async with client.session(app) as s: await s.call("f", {...})``."""
        return AsyncSession(self._api, self._driver, app, _first_call(setup, idle_timeout))

    async def close(self) -> None:
        """Close the connections."""
        await self._driver.close()

    async def __aenter__(self) -> AsyncInference:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


inference = Inference
"""`Inference` under the name of a function."""

async_inference = AsyncInference
"""`AsyncInference` under the name of a function."""
