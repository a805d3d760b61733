"""The executor of apps on this machine: gives calls to warm instances, starts others, watches and ends them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from bakehouse.core.app import Limits, Version
from bakehouse.core.errors import BakehouseError
from bakehouse.core.executor import Call, Capacity, Failure, Finished, Returned, Sink
from bakehouse.core.ids import new_id
from bakehouse.launch.base import Hooks, LaunchSettings
from bakehouse.launch.calls import CallState
from bakehouse.launch.instance import Instance
from bakehouse.launch.isolate import Places, describe_isolation, offer
from bakehouse.launch.keeper import End
from bakehouse.launch.pool import Member, Need, Pool, Use, Wait, split_lane
from bakehouse.launch.probe import describe
from bakehouse.launch.process import remove_tree, sweep_marked
from bakehouse.launch.surroundings import marker
from bakehouse.launch.watch import Reaper, Usage, usage

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
STALLED_SECONDS = 0.25


class LocalExecutor:
    """`core.executor.Executor` for kind ``app``. Made and used in one event loop.

    Output files are handed on below ``settings.home / "outbox"``: whoever gets one moves or deletes it.
    """

    def __init__(self, settings: LaunchSettings, hooks: Hooks) -> None:
        self.settings, self.hooks = settings, hooks
        self.store = settings.home / "outbox"
        self.instances: dict[str, Instance] = {}
        self.counts: Counter[str] = Counter()
        self._pool = Pool(
            settings.max_instances, settings.memory_budget, settings.prefetch, settings.idle_timeout, settings.gpus
        )
        self._calls: dict[str, tuple[Instance, CallState]] = {}
        self._unplaced: dict[str, tuple[Call, Sink]] = {}
        self._ending_sessions: set[str] = set()
        self._wakes: list[Callable[[], None]] = []
        self._work: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._reaper = Reaper()
        self._stopping = False

    # ---- the contract --------------------------------------------------------------------------------------

    def capacity(self, lane: str) -> Capacity:
        """See `Executor.capacity`."""
        if self._stopping:
            return Capacity(0)
        now = asyncio.get_running_loop().time()
        room = self._pool.capacity(lane, now, crowded=bool(self._unplaced))
        if room.ready <= 0:  # who asked is told when an instance that is still kept may make room
            self._look_again(self._pool.look_again(lane, now))
        return room

    def on_capacity(self, wake: Callable[[], None]) -> None:
        """See `Executor.on_capacity`."""
        self._wakes.append(wake)

    def start(self, call: Call, sink: Sink) -> None:
        """See `Executor.start`. ``call.version`` must be set."""
        if self._stopping:
            sink(Returned("the server is stopping"))
        elif not self._place(call, sink):
            self._unplaced[call.task.id] = (call, sink)

    def send(self, task_id: str, item: dict[str, Any]) -> bool:
        """See `Executor.send`."""
        found = self._calls.get(task_id)
        return found is not None and found[0].send_item(found[1], item)

    def cancel(self, task_id: str, *, grace: float | None = None, reason: str = "cancelled") -> None:
        """See `Executor.cancel`."""
        waiting = self._unplaced.pop(task_id, None)
        if waiting is not None:
            waiting[1](Finished(cancelled=True))
            self._room()
            return
        found = self._calls.get(task_id)
        if found is not None:
            found[0].cancel(found[1], self.settings.cancel_grace if grace is None else grace)

    def end_session(self, session_id: str) -> None:
        """See `Executor.end_session`. The instance ends too: what it holds was the session's."""
        member = self._pool.pinned(session_id)
        if member is None:
            return
        if member.calls:
            self._ending_sessions.add(session_id)
            return
        self._pool.unpin(session_id)
        self._ending_sessions.discard(session_id)
        self.instances[member.id].stop()

    async def start_up(self) -> None:
        """See `Executor.start_up`. Takes as long as the sweep and the trial of the isolation (well under a second)."""
        self._reaper.become_subreaper()
        await asyncio.to_thread(self._sweep)
        self._watching = asyncio.create_task(self._watch())

    def _sweep(self) -> None:
        killed = sweep_marked(marker(self.settings.home))
        if killed:
            told = {"action": "instances_swept", "processes": killed}
            log.warning("killed what an earlier server left behind", extra=told)
        for name in ("instances", "outbox"):
            directory = self.settings.home / name
            if directory.exists():
                remove_tree(directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.settings.isolation != "off":
            offer()

    async def shut_down(self, grace: float) -> None:
        """See `Executor.shut_down`. Idle instances run ``unload``; at most ``stop_grace`` longer than *grace*."""
        self._stopping = True
        waiting, self._unplaced = self._unplaced, {}
        for _, sink in waiting.values():
            sink(Returned("the server is stopping"))
        deadline = asyncio.get_running_loop().time() + grace
        for instance in list(self.instances.values()):
            if not instance.calls:
                instance.stop()
        await self._until(lambda: not self._calls, deadline)
        for instance in list(self.instances.values()):
            if instance.calls:
                instance.kill(End("the server is stopping"))
            else:
                instance.stop()
        await self._until(lambda: not self.instances and not self._work, None)
        if self._watching is not None:
            self._watching.cancel()
        if self._retry is not None:
            self._retry.cancel()

    async def _until(self, done: Callable[[], bool], deadline: float | None) -> None:
        """Wait until *done*, asked again at every change; at most until *deadline*."""
        try:
            async with asyncio.timeout_at(deadline):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    # ---- beyond the contract -------------------------------------------------------------------------------

    async def describe(
        self,
        *,
        app_dir: Path,
        python: Path,
        environ: dict[str, str],
        timeout: float,
        on_log: Callable[[str, str], None],
    ) -> dict[str, Any]:
        """Load the app in a child, isolated as an instance is, and return its ``described`` message.

        ``on_log(stream, line)`` gets what it prints. Raises LaunchError.
        """
        return await describe(
            self.settings, app_dir=app_dir, python=python, environ=environ, timeout=timeout, on_log=on_log
        )

    def states(self) -> dict[str, int]:
        """How many instances there are in each stage; idle ones count as ``idle``, not as ``ready``."""
        counts = Counter(
            "idle" if instance.member.idle else instance.stage.name.lower() for instance in self.instances.values()
        )
        return dict(counts)

    def not_enforced(self) -> list[str]:
        """What of the isolation this machine cannot enforce; empty when all is."""
        return describe_isolation(self.settings.isolation)

    def stats(self) -> dict[str, Any]:
        """Numbers for the metrics: instances by stage, calls, and totals since the start."""
        return {
            "instances": self.states(),
            "calls": len(self._calls),
            "waiting": len(self._unplaced),
            "memory": sum(member.memory for member in self._pool.members.values()),
            **{name: self.counts[name] for name in ("starts", "evictions", "losses", "memory_kills")},
        }

    # ---- placing calls -------------------------------------------------------------------------------------

    def _place(self, call: Call, sink: Sink) -> bool:
        """Give *call* to an instance, or say that there is no room yet."""
        loop = asyncio.get_running_loop()
        lane, session = split_lane(call.task.lane)
        assert call.version is not None
        self._learn(lane, call.version)
        decision = self._pool.place(call.task.lane, loop.time())
        if not isinstance(decision, Use):
            for name in decision.evict:
                self.counts["evictions"] += 1
                self.instances[name].stop()
        if isinstance(decision, Wait):
            self._look_again(decision.until)
            return False
        if isinstance(decision, Use):
            instance = self.instances[decision.member]
        else:
            instance = self._begin(lane, call, decision.gpus)
        self._pool.took(instance.member, session)
        state = instance.assign(call, sink)
        if state.id in instance.calls:
            self._calls[call.task.id] = (instance, state)
        return True

    def _learn(self, lane: str, version: Version) -> None:
        if lane not in self._pool.needs:
            manifest = version.manifest
            resources = manifest.resources
            need = Need(resources.ram, resources.gpu_count, max(1, manifest.concurrency), manifest.idle_timeout)
            self._pool.needs[lane] = need

    def _begin(self, lane: str, call: Call, gpus: tuple[int, ...]) -> Instance:
        version = call.version
        assert version is not None
        need = self._pool.needs[lane]
        member = Member(new_id("inst"), lane, need, need.memory, gpus)
        owner_id = lane.split("/")[1]
        instance = Instance(self, member, version, owner_id, call.task.setup, self._limits(version))
        self._pool.add(member)
        self.instances[instance.id] = instance
        self.counts["starts"] += 1
        self._spawn(self._bring_up(instance))
        return instance

    def _limits(self, version: Version) -> Limits:
        own, general = version.manifest.limits, self.settings.limits
        return Limits(
            own.memory or general.memory,
            own.processes or general.processes,
            own.file_size or general.file_size,
            own.cpu_time or general.cpu_time,
        )

    async def _bring_up(self, instance: Instance) -> None:
        try:
            environment = await self.hooks.prepare(instance.version)
            environ = await self.hooks.environ(instance.owner_id, instance.version)
            if instance.gone:
                return
            places = Places.below(self.settings.home / "instances" / instance.id)
            instance.spawn(environment, environ, places)
        except BakehouseError as error:
            instance.fail(Failure(error.detail, error.code, fields=error.fields))
        except OSError as error:
            instance.fail(Failure(f"the app's process could not be started: {error}", "start_failed"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._changed.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("launch work failed", extra={"action": "launch_error"}, exc_info=task.exception())

    def _look_again(self, at: float | None) -> None:
        """Look for room at time *at* of the loop, if not before."""
        if at is None or (self._retry is not None and self._retry.when() <= at):
            return
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_at(at, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        self._room()

    def _room(self) -> None:
        """Something may fit now: what waits here first, then what waits outside."""
        for task_id in list(self._unplaced):
            call, sink = self._unplaced.pop(task_id)
            if not self._place(call, sink):
                self._unplaced[task_id] = (call, sink)
        for wake in self._wakes:
            wake()

    # ---- what instances tell -------------------------------------------------------------------------------

    def instance_ready(self, instance: Instance) -> None:
        """It runs calls now."""
        self._pool.ready(instance.member, asyncio.get_running_loop().time())
        self._room()

    def call_left(self, instance: Instance, state: CallState, seconds: float | None) -> None:
        """A call got its outcome and frees its place."""
        task = state.call.task
        found = self._calls.get(task.id)
        if found is not None and found[1] is state:
            del self._calls[task.id]
        self._pool.ended(instance.member, asyncio.get_running_loop().time(), seconds)
        if task.session_id in self._ending_sessions and not instance.member.calls:
            self.end_session(task.session_id)
        if self._stopping:
            self._changed.set()
        else:
            self._room()

    def instance_leaving(self, instance: Instance) -> None:
        """It takes no more calls."""
        session = instance.member.session
        self._pool.leave(instance.member)
        if session is not None:
            instance.member.session = None
            self._ending_sessions.discard(session)
            self.hooks.session_lost(session, instance.end_reason)

    def instance_gone(self, instance: Instance) -> None:
        """Its process has ended."""
        self._pool.gone(instance.member)
        del self.instances[instance.id]
        self.counts["losses"] += instance.losses
        self._spawn(self._clean(instance))
        if not self._stopping:
            self._room()

    async def _clean(self, instance: Instance) -> None:
        """Remove what it left: its directories, and processes where the kernel does not end them for us."""
        if self.settings.isolation == "off" or not offer().namespaces:
            await asyncio.to_thread(sweep_marked, f"{marker(self.settings.home)}:{instance.id}")
        await asyncio.to_thread(remove_tree, self.settings.home / "instances" / instance.id)

    # ---- watching ------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            living = ((instance, instance.pid) for instance in self.instances.values())
            watched = [(instance, pid, instance.limits.memory) for instance, pid in living if pid is not None]
            if watched:
                found = await asyncio.to_thread(_usages, [(pid, limit) for _, pid, limit in watched])
                for (instance, _, _), used in zip(watched, found, strict=True):
                    self._judge(instance, used)
            await asyncio.to_thread(self._reaper.look)
            self._take_back()
            self._evict(loop.time())

    def _judge(self, instance: Instance, used: Usage) -> None:
        instance.member.memory = max(instance.member.need.memory, used.memory)
        limits = instance.limits
        mebi = 1024 * 1024
        if limits.memory is not None and used.memory > limits.memory:
            self.counts["memory_kills"] += 1
            reason = f"killed for using {used.memory // mebi} MiB of memory; its limit is {limits.memory // mebi} MiB"
            instance.kill(End(reason, "out_of_memory", retry=False))
        elif limits.processes is not None and used.processes > limits.processes:
            reason = f"killed for running {used.processes} processes; its limit is {limits.processes}"
            instance.kill(End(reason, "too_many_processes", retry=False))

    def _take_back(self) -> None:
        """Calls that were put behind a short one that turns out long run elsewhere."""
        for instance in self.instances.values():
            if instance.stalled(STALLED_SECONDS):
                instance.member.stalled = True
                instance.recall()

    def _evict(self, now: float) -> None:
        expired = self._pool.expired(now)
        pressed = self._pool.pressed()
        for member in [*expired, *([pressed] if pressed is not None and pressed not in expired else [])]:
            self.counts["evictions"] += 1
            self.instances[member.id].stop()


def _usages(watched: list[tuple[int, int | None]]) -> list[Usage]:
    return [usage(pid, limit) for pid, limit in watched]
