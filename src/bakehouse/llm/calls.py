"""One task while its instance runs: the instance's events become the task's, its inbox the instance's messages."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from bakehouse.core.errors import BakehouseError
from bakehouse.core.executor import (
    Call,
    ExecutorEvent,
    Failure,
    Finished,
    Logged,
    Lost,
    Moved,
    Returned,
    Sent,
    Sink,
)
from bakehouse.core.task import TaskStatus
from bakehouse.inferlets import base
from bakehouse.inferlets.base import Launch
from bakehouse.inferlets.errors import InferletError, NoSuchProgram, NotRunning, Refused
from bakehouse.inferlets.remote import End, File, HostLost, Message, Output, RemoteHost, RemoteInstance

if TYPE_CHECKING:
    from bakehouse.llm.inferlets import InferletExecutor

log = logging.getLogger(__name__)

_OF_FILES = frozenset({"uri", "filename", "content_type", "size", "id", "path"})
_FULL = ("queue", "memory")
"""The limits that keep an item out for a while only: there is room again when the program has taken some."""
INBOX = 256
"""Items that wait here for the instance; more stay in the store."""
AGAIN_SECONDS = 0.1
"""After this long a message is offered again to an instance whose queue was full."""


class RunningCall:
    """See the module's text. Its outcome goes to the sink exactly once."""

    def __init__(self, executor: InferletExecutor, call: Call, sink: Sink) -> None:
        self.call, self.task = call, call.task
        self.refused = False
        self._hooks, self._node, self._settings = executor.hooks, executor.node, executor.settings
        self._sink = sink
        self._instance: RemoteInstance | None = None
        self._preparing: asyncio.Task[tuple[RemoteHost, str]] | None = None
        self._delivering: asyncio.Task[None] | None = None
        self._stopped: ExecutorEvent | None = None
        self._inbox: deque[dict[str, Any]] = deque()
        self._letters = asyncio.Event()
        self._sent = self._files = self._file_bytes = 0
        self._work: asyncio.Task[None] | None = None
        self._terminating: set[asyncio.Task[None]] = set()

    def begin(self, over: Callable[[RunningCall], None]) -> None:
        """Start to run; *over* is called after the outcome."""
        self._work = asyncio.create_task(self._run(), name=f"inferlet {self.task.id}")
        self._work.add_done_callback(lambda _: over(self))

    def take(self, item: dict[str, Any]) -> bool:
        """Take an item of the inbox for the instance; False when there are too many already."""
        if self._instance is None or len(self._inbox) >= INBOX:
            return False
        self._inbox.append(item)
        self._letters.set()
        return True

    def cancel(self, reason: str) -> None:
        """End it with the outcome of a cancel."""
        self._stop(Finished(cancelled=True), "cancelled", reason)

    def give_back(self) -> None:
        """The server stops: end it so that it runs again elsewhere."""
        self._stop(Lost("the server is stopping", code="server_stopping"), "cancelled", "the server is stopping")

    def abandon(self) -> None:
        """The node does not say how it ended: hand it back all the same. Its instance ends with the connection."""
        for task in (self._preparing, self._work, *self._terminating):
            if task is not None:
                task.cancel()

    def _stop(self, outcome: ExecutorEvent, code: str, message: str) -> None:
        self._stopped = self._stopped or outcome
        if self._instance is not None:
            task = asyncio.create_task(self._terminate(self._instance, code, message))
            self._terminating.add(task)
            task.add_done_callback(self._terminating.discard)
        elif self._preparing is not None:
            self._preparing.cancel()

    @staticmethod
    async def _terminate(instance: RemoteInstance, code: str, message: str) -> None:
        try:
            await instance.terminate(code, message)
        except HostLost:
            return  # its end is on its way all the same

    # ---- from the launch to the end ------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            outcome = await self._outcome()
        except asyncio.CancelledError:  # by `abandon`; this is the task's end
            outcome = self._stopped or Lost("the server is stopping", code="server_stopping")
        except Exception as error:
            log.exception("an inferlet's task failed here", extra={"action": "inferlet_error", "task": self.task.id})
            outcome = Lost(f"the server failed: {type(error).__name__}: {error}", code="internal_error", retry=False)
        self._sink(outcome)

    async def _outcome(self) -> ExecutorEvent:
        try:
            self._instance = await self._launched()
        except HostLost as error:
            return self._stopped or self._lost(error)
        except Refused as error:
            self.refused = True
            return self._stopped or Returned(error.detail)
        except InferletError as error:
            return self._stopped or Finished(failure=Failure(error.detail, error.code))
        except BakehouseError as error:
            return self._stopped or Finished(failure=Failure(error.detail, error.code, fields=error.fields))
        if self._instance is None:
            return self._stopped or Finished(cancelled=True)
        if self._stopped is not None:  # while it was being launched
            await self._terminate(self._instance, "cancelled", "it was cancelled")
        self._sink(Moved(TaskStatus.RUNNING))
        self._delivering = asyncio.create_task(self._deliver(self._instance))
        try:
            return await self._follow(self._instance)
        finally:
            self._delivering.cancel()

    def _lost(self, error: HostLost) -> ExecutorEvent:
        if self._node.down:
            return Finished(failure=Failure(error.detail, "node_down"))
        return Lost(error.detail, code=error.code)

    async def _launched(self) -> RemoteInstance | None:
        """The running instance; None when it was cancelled before it was launched."""
        version = self.call.version
        assert version is not None

        async def prepare(*, build: bool) -> tuple[RemoteHost, str]:
            if build:
                await self._hooks.prepare(version)
            return await self._node.host(), await self._hooks.username(self.task.owner_id)

        for again in (False, True):
            self._preparing = asyncio.create_task(prepare(build=again))
            if self._stopped is not None:
                self._preparing.cancel()
            await asyncio.wait([self._preparing])
            if self._preparing.cancelled():
                return None
            host, username = self._preparing.result()
            self._preparing = None
            launch = self._launch(username, f"{version.manifest.name}@{version.label}")
            try:
                return await host.launch(launch, version.owner_id)
            except NoSuchProgram:
                if again:
                    raise
        raise AssertionError("unreachable")

    def _launch(self, username: str, program: str) -> Launch:
        task = self.task
        identity = task.id if self.call.attempt == 1 else f"{task.id}.{self.call.attempt}"
        return Launch(
            id=identity,
            owner=task.owner_id,
            username=username,
            program=program,
            arguments=arguments_of(orjson.loads(task.input)),
            limits=self._settings.limits,
        )

    async def _follow(self, instance: RemoteInstance) -> ExecutorEvent:
        async for event in instance.events():
            if isinstance(event, End):
                return self._ended(event)
            if isinstance(event, Output):
                self._sink(Logged(event.stream, event.text.removesuffix("\n").split("\n")))
            elif isinstance(event, Message):
                self._send(event.text, event.text)
            else:
                await self._keep(event)
        raise AssertionError("unreachable")

    def _send(self, message: Any, text: str) -> None:
        self._sent += len(text.encode())
        if self._is_within("messages", self._sent, self._settings.messages):
            self._sink(Sent([message]))

    def _is_within(self, limit: str, size: int, most: int) -> bool:
        """Whether *size* is; the task fails where it is not."""
        if size <= most:
            return True
        told = f"{limit}: a task sends its caller at most {most} bytes of {limit} in all"
        self._stop(Finished(failure=Failure(told, "limit_exceeded", fields=[_limit(limit)])), "limit_exceeded", told)
        return False

    async def _keep(self, event: File) -> None:
        """Store a file; the stream shows its URI among the messages."""
        self._files += 1
        self._file_bytes += len(event.data)
        if self._stopped is not None or not self._is_within("files", self._file_bytes, self._settings.files):
            return
        try:
            record, url = await self._hooks.keep_file(self.task, event.data, self._files)
        except (OSError, BakehouseError) as error:
            reason = f"a file that it sent could not be stored: {error}"
            self._stop(Finished(failure=Failure(reason, "output_file")), "cancelled", reason)
            return
        told = {"uri": url, "filename": record.filename, "content_type": record.content_type, "size": record.size}
        self._send(told, url)

    def _ended(self, end: End) -> ExecutorEvent:
        if end.lost is not None:
            return self._stopped or self._lost(end.lost)
        failure = end.outcome.failure
        if failure is not None:
            return self._stopped or failed(failure)
        if isinstance(self._stopped, Finished) and self._stopped.failure is not None:
            return self._stopped  # it was faster than its end, but what it sent is not all there
        return Finished(output=output_of(end.outcome.result))

    # ---- the inbox -----------------------------------------------------------------------------------------

    async def _deliver(self, instance: RemoteInstance) -> None:
        while True:
            while not self._inbox:
                self._letters.clear()
                await self._letters.wait()
            item = self._inbox.popleft()
            try:
                await self._deliver_one(instance, item)
            except NotRunning:
                return  # its end is on its way
            except HostLost:
                return
            except (InferletError, BakehouseError) as error:
                self._sink(Logged("system", [f"item {item['seq']} of the inbox was not delivered: {error.detail}"]))

    async def _deliver_one(self, instance: RemoteInstance, item: dict[str, Any]) -> None:
        uri = uri_of(item["content"])
        if uri is None:
            await offer(instance, text_of(item["content"]))
        else:
            await offer(instance, await self._hooks.file(uri, instance.launch.limits.file))


async def offer(instance: RemoteInstance, item: str | bytes) -> None:
    """Deliver a message or a file. Waits as long as there is no room: items keep their order, and none is lost.

    Raises as `RemoteInstance.send`, and `Refused` for what there never is room for.
    """
    while True:
        try:
            if isinstance(item, bytes):
                await instance.send_file(item)
            else:
                await instance.send(item)
            return
        except Refused as error:
            if error.field not in _FULL or len(item) > instance.launch.limits.memory:
                raise
        await asyncio.sleep(AGAIN_SECONDS)


def arguments_of(value: dict[str, Any]) -> tuple[str, ...]:
    """What a program is started with for the input *value*: one JSON object, or the texts of ``args`` alone."""
    args = value.get("args")
    if value.keys() == {"args"} and isinstance(args, list) and all(isinstance(item, str) for item in args):
        return tuple(args)
    return (orjson.dumps(value).decode(),) if value else ()


def output_of(result: str) -> dict[str, Any]:
    """The task's output: the JSON object that the program returned, else its result under ``result``.

    Of JSON's other values only an array is taken as such there: a text such as ``42`` stays the text that it is.
    """
    try:
        value = orjson.loads(result)
    except orjson.JSONDecodeError:
        return {"result": result}
    if isinstance(value, dict):
        return value
    return {"result": value if isinstance(value, list) else result}


def failed(failure: base.Failure) -> Finished:
    """The outcome of an instance that ended badly."""
    if failure.code == "cancelled":
        return Finished(cancelled=True)
    fields = [] if failure.limit is None else [_limit(failure.limit)]
    return Finished(failure=Failure(failure.message, failure.code, failure.traceback, fields))


def _limit(name: str) -> dict[str, Any]:
    return {"path": f"/limits/{name}", "message": f"the limit {name} was hit"}


def uri_of(content: Any) -> str | None:
    """The URI of the file that an item of the inbox stands for: ``{"file": uri}``, or a file as the API shows it."""
    if not isinstance(content, dict):
        return None
    if content.keys() == {"file"}:
        file = content["file"]
        return uri_of(file) if isinstance(file, dict) else str(file)
    uri = content.get("uri")
    return uri if isinstance(uri, str) and content.keys() <= _OF_FILES else None


def text_of(content: Any) -> str:
    """An item of the inbox as the program receives it: a text as it is, ``{"text": ...}`` as that, else JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict) and content.keys() == {"text"} and isinstance(content["text"], str):
        return content["text"]
    return orjson.dumps(content).decode()
