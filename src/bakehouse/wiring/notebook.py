"""An engine in this process, for a program in a notebook, a script or a debugger: for `inferlet.connect`.

`pie run --native` has one for a file; here whoever holds the process keeps the reins.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from bakehouse.engine.spec import DUMMY, ModelSpec
from bakehouse.inferlets.base import Launch, Outlet
from bakehouse.inferlets.calls.native import NativeHost, Printed
from bakehouse.settings import Settings, load_settings
from bakehouse.wiring.chosen import FOLDER, owner_limits
from bakehouse.wiring.local import DUMMY_MODEL, Local, local_host, mcp_servers
from bakehouse.wiring.models import Models

T = TypeVar("T")

#: Whose program it is. What is installed for people of a server is theirs.
OWNER = "local"


def open_engine(*models: str | ModelSpec, home: Path | None = None, outlet: Outlet | None = None) -> NativeHost:
    """A host in this process with an engine of its own, for ``inferlet.connect(open_engine())``; closed, it ends both.

    *models* are names of ``pie model list`` in the data directory *home* (that of the settings), specs of any, or
    ``dummy``, which is served where none is named and answers nonsense at once. What the program sends goes to
    *outlet*, or is printed. Works where an event loop runs already, as in a notebook. Raises `EngineError` for a model
    that cannot be loaded, `NotFound` for one that is not recorded.
    """
    settings = load_settings({"home": home}, environ=os.environ)
    specs = _specs(models, settings.home)
    aside = _Aside()
    try:
        local = aside.enter(_local(specs, settings))
        launch = Launch(id=f"native-{uuid.uuid4().hex[:16]}", owner=OWNER, username=OWNER, program="notebook")
        return _InProcess(local.host.open_native(launch, outlet or Printed()), aside)
    except BaseException:
        aside.close()
        raise


def _specs(models: Sequence[str | ModelSpec], home: Path) -> list[ModelSpec]:
    recorded = Models(home)
    return [
        model if isinstance(model, ModelSpec) else DUMMY_MODEL if model == DUMMY else recorded.get(model)
        for model in models or (DUMMY,)
    ]


def _local(specs: Sequence[ModelSpec], settings: Settings) -> AbstractAsyncContextManager[Local]:
    return local_host(
        specs,
        settings.home / FOLDER,
        shared=True,
        limits=owner_limits(settings),
        most=settings.inferlet_instances,
        mcp=mcp_servers(settings),
    )


class _Aside:
    """An event loop in a thread of its own, which starts an engine and ends it; the caller's may be busy running."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_Here())
        self._closing: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-start", daemon=True)
        self._thread.start()

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        entered = self._run(manager.__aenter__())
        self._closing.append(lambda: manager.__aexit__(None, None, None))
        return entered

    def close(self) -> None:
        """May be repeated."""
        while self._closing:
            self._run(self._closing.pop()())
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Here(ThreadPoolExecutor):
    """Runs what is to run beside a loop on the loop's own thread, which has nothing else to do.

    A real pool takes no more work when the interpreter ends, which is when most notebooks end their engine.
    """

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(call(*arguments, **named))
        except BaseException as error:
            done.set_exception(error)
        return done


class _InProcess(NativeHost):
    """The host of the program; with it ends the engine."""

    def __init__(self, program: NativeHost, aside: _Aside) -> None:
        super().__init__(program.guest)
        self._program, self._aside = program, aside
        # A notebook seldom closes what it opened, and threads of an engine do not outlive the interpreter well.
        atexit.register(self.close)

    def close(self) -> None:
        atexit.unregister(self.close)
        self._program.close()
        self._aside.close()
