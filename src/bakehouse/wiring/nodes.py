"""The node of a server: its process with engine and inferlet host, and the connection to the latter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import structlog

from bakehouse.engine.errors import EngineError
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.supervise import EngineProcess, Policy, State
from bakehouse.inferlets.remote import HostLost, HostSilent, RemoteHost
from bakehouse.settings import Settings
from bakehouse.wiring.chosen import FOLDER, instance_limits, owner_limits
from bakehouse.wiring.models import Models
from bakehouse.wiring.node import HOST_SOCKET, NodeConfig

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 0.2


class Node:
    """Starts in the background: a model may take minutes to load, and the server serves meanwhile.

    One that died too often is left alone for *rest* seconds; calls fail meanwhile. Then it gets another chance. One
    that does not answer for *silence* seconds is killed, and started again as after a crash.
    """

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        config: NodeConfig,
        policy: Policy | None = None,
        *,
        rest: float = 60.0,
        silence: float = 60.0,
    ) -> None:
        self._rest, self._silence = rest, silence
        self.models = [spec.name for spec in specs]
        self._engine = EngineProcess(
            specs,
            policy,
            on_state=self._changed,
            on_line=_log_line,
            module="bakehouse.wiring.node",
            more=config.body(),
        )
        self._host: RemoteHost | None = None
        self._connecting = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()
        self._wakes: list[Callable[[], None]] = []
        self._refused = ""
        self._beginning: asyncio.Task[None] | None = None

    @property
    def engine(self) -> EngineProcess:
        """The face of its engine."""
        return self._engine

    @property
    def pid(self) -> int | None:
        """Its process of now."""
        return self._engine.pid

    @property
    def up(self) -> bool:
        """Whether it takes launches at once."""
        return self._host is not None and self._host.open

    @property
    def down(self) -> str:
        """Why it will not come up by itself; empty while it is up, or may be soon."""
        return self._refused

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call *wake* when `up` or `down` has changed."""
        self._wakes.append(wake)

    def start(self) -> None:
        """Begin to start; `up` and `down` tell what became of it."""
        self._beginning = self._spawn(self._start())

    async def _start(self) -> None:
        try:
            await self._engine.start()
        except (EngineError, OSError) as error:
            self._refused = getattr(error, "detail", str(error))
            log.error("the node does not start", action="node_refused", error=self._refused)
            self._tell()

    async def _start_later(self) -> None:
        await asyncio.sleep(self._rest)
        await self._start()

    async def host(self) -> RemoteHost:
        """The host of now; waits while it starts. Raises `HostLost` where it will not."""
        if self._beginning is not None:
            await asyncio.wait([self._beginning])
        while True:
            if self._refused:
                raise HostLost(f"the node is down: {self._refused}")
            try:
                async with self._connecting:
                    return await self._connected()
            except HostLost:
                if self._engine.state in (State.STOPPED, State.GAVE_UP):
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)  # it was just dying; its next process listens soon
            except EngineError as error:
                raise HostLost(error.detail) from error

    async def beside(self, name: str) -> Path:
        """Where the process of now listens under *name*. Raises `HostLost` while it is not `up`."""
        if not self.up:
            raise HostLost(self._refused or "the node is starting")
        return (await self._engine.beside(name))[0]

    async def _connected(self) -> RemoteHost:
        if self._host is None or not self._host.open:
            path, why = await self._engine.beside(HOST_SOCKET)
            try:
                self._host = await RemoteHost.connect(path, why, self._silence)
            except HostSilent as error:
                self._engine.kill(error.detail)
                raise
            self._spawn(self._watch(self._host))
            self._tell()
        return self._host

    async def _watch(self, host: RemoteHost) -> None:
        """Connect again when *host* is lost, also where its process lives on."""
        try:
            await host.watch(self._silence)
        except HostSilent as error:
            self._engine.kill(error.detail)
            await host.ended()
        self._tell()
        await self._connect()

    async def close(self) -> None:
        """End it. May be repeated."""
        for task in self._work:
            task.cancel()
        if self._host is not None:
            await self._host.close()
        await self._engine.close()

    def _changed(self, state: State, text: str) -> None:
        if state == State.READY:
            log.info("the node serves", action="node_ready", models=self.models)
            self._refused = ""
            self._spawn(self._connect())
        elif state == State.WAITING:
            log.error("the node died and is started again", action="node_died", error=text)
        elif state == State.GAVE_UP:
            self._refused = text
            log.error("the node died too often and is left alone for a while", action="node_refused", error=text)
            self._spawn(self._start_later())
        self._tell()

    async def _connect(self) -> None:
        try:
            await self.host()
        except HostLost as error:
            log.warning("no connection to the node", action="node_unreachable", error=error.detail)

    def _tell(self) -> None:
        for wake in self._wakes:
            wake()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task


def _log_line(line: str) -> None:
    log.info(line, action="node_log")


def make_node(settings: Settings, models: Sequence[ModelSpec] | None) -> Node | None:
    """The node that the settings and the recorded models ask for; None where nobody asks for one."""
    specs = Models(settings.home).list() if models is None else list(models)
    if settings.inferlets != "on" and not specs:
        return None
    config = node_config(settings)
    if models is None:
        config = replace(config, home=str(settings.home))
    return Node(specs, config, Policy(drain=settings.drain_grace))


def node_config(settings: Settings) -> NodeConfig:
    """What an inferlet host is told of the operator's choices."""
    folder = settings.home / FOLDER
    return NodeConfig(
        folder=str(folder),
        programs=str(folder / "programs"),
        most=settings.inferlet_instances,
        owner=asdict(owner_limits(settings)),
        limits=asdict(instance_limits(settings)),
        mcp=[{"name": name, **server.model_dump()} for name, server in settings.mcp_servers.items()],
    )
