"""Sessions: calls one after another to the same instance of an app, which keeps its state between them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from inferencesh import _run
from inferencesh._api import Api, segment
from inferencesh._drivers import AsyncDriver, SyncDriver
from inferencesh._errors import InferenceError, NotFound
from inferencesh._flow import Flow
from inferencesh._follow import Deadline
from inferencesh._models import Record, Task
from inferencesh._operations import Bound, D, operation
from inferencesh._resources import record


class _Session(Bound[D]):
    """What both colours of session do."""

    def __init__(self, api: Api, driver: D, app: str, first: Mapping[str, Any]) -> None:
        super().__init__(api, driver)
        self.app = app
        self._first = dict(first)
        self._id: str | None = None

    @property
    def session_id(self) -> str | None:
        """The session's id; None until its first call."""
        return self._id

    @operation
    def call(
        self,
        function: str | None = None,
        input: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Flow[Task]:
        """Call a function (None: the app's default) and return the finished task. The first call opens the session.

        Raises TaskFailed, TaskCancelled, TaskTimeout; NotFound or Gone when the session is over.
        """
        return (yield from self._call(function, input, timeout))

    @operation
    def info(self) -> Flow[Record]:
        """The session's record."""
        return record((yield from self._api.call("GET", f"/sessions/{segment(self._opened())}")))

    @operation
    def keepalive(self) -> Flow[Record]:
        """Start the idle time anew."""
        return record((yield from self._api.call("POST", f"/sessions/{segment(self._opened())}/keepalive")))

    @operation
    def end(self) -> Flow[None]:
        """End the session and free its instance. A session that is over already stays so."""
        yield from self._end()

    def _call(self, function: str | None, input: Mapping[str, Any] | None, timeout: float | None) -> Flow[Task]:
        params: dict[str, Any] = {"app": self.app, "input": input or {}}
        if function is not None:
            params["function"] = function
        params.update({"session": self._id} if self._id else {**self._first, "session": "new"})
        task = yield from _run.start(self._api, params, _run.WAIT_SECONDS if timeout is None else 0)
        self._id = task.session_id or self._id
        deadline = Deadline(timeout, self._api.clock)
        return (yield from _run.finish(self._api, task, options=None, deadline=deadline))

    def _end(self) -> Flow[None]:
        session_id, self._id = self._id, None
        if session_id is None:
            return
        try:
            yield from self._api.call("DELETE", f"/sessions/{segment(session_id)}")
        except NotFound:
            return  # forgotten by the server already, which is what was wanted

    def _opened(self) -> str:
        if self._id is None:
            raise InferenceError("the session is not open: its first call() opens it")
        return self._id


class Session(_Session[SyncDriver]):
    """See ``Inference.session``. Leaving the ``with`` block ends it."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class AsyncSession(_Session[AsyncDriver]):
    """See ``AsyncInference.session``. Leaving the ``async with`` block ends it."""

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()
