"""The loop of one model: plan, run, commit, publish, on one thread.

Callers hand in a `Job`, a chain of passes, and go on. The lock guards the planner, its contexts and their buffers; the
loop holds it to plan and to commit, never while the model runs. Meanwhile worker threads compute the masks of grammars,
and another thread, the `Courier`, hands out what the step before gave, so that readers that wake do not hold it up.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from bakehouse.engine.aside import Workers
from bakehouse.engine.counters import Counters
from bakehouse.engine.courier import Courier, Job
from bakehouse.engine.errors import BadRequest, Cancelled, EngineError, EngineLost, Locked, StepFailed
from bakehouse.engine.plan.batch import Step
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Outcome, Pass
from bakehouse.engine.plan.planner import Planner
from bakehouse.engine.plan.step import ReadoutResult
from bakehouse.engine.plan.work import Part
from bakehouse.engine.runner.base import Runner

log = logging.getLogger(__name__)

T = TypeVar("T")

#: So many steps in a row may fail before the engine says that it is dead.
MAX_FAILURES = 8

#: Threads for what takes long and is not the model's: compiling grammars. One owner has at most one less.
ASIDE_WORKERS = 3

#: A planner that has work but plans nothing is asked again after this many seconds, should nothing wake the loop.
STALLED_S = 0.01


#: How long a step may wait for programs that were in the last one: so much at most, and this share of its time.
COMPANY_S = 0.002
COMPANY_SHARE = 0.05

#: A program that begins several branches at once is through when none came for so long.
QUIET_S = 0.0003


class _Call(Generic[T]):
    """A function for the loop's thread, and the future of its value."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        self._function = function

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._function())
        except BaseException as error:  # All of it is the caller's.
            self.future.set_exception(error)

    def refuse(self, error: EngineError) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class EngineLoop:
    """One model's planner and runner, and the thread that drives them."""

    def __init__(
        self,
        name: str,
        planner: Planner,
        runner: Runner,
        *,
        mask_workers: int = 2,
        clock: Callable[[], float] = time.monotonic,
        max_failures: int = MAX_FAILURES,
    ) -> None:
        self.name = name
        self.planner = planner
        self.runner = runner
        self.clock = clock
        self.lock = threading.RLock()
        self.counters = Counters()
        self.dead: EngineLost | None = None
        self._wake = threading.Condition(self.lock)
        self._jobs: dict[Pass, Job] = {}
        self._running: dict[Context, Job] = {}
        self._waiting: dict[Context, deque[Job]] = {}
        self._calls: deque[_Call[Any]] = deque()
        self._undelivered: list[Job] = []
        self._stopping = False
        self._failures = 0
        self._asked = self._answered = 0
        self._branching = False
        self._step_s = 0.0
        self._busy_since: float | None = None
        self._max_failures = max_failures
        self._pool = ThreadPoolExecutor(mask_workers, thread_name_prefix=f"masks-{name}")
        self._aside = Workers(ASIDE_WORKERS, f"aside-{name}")
        self._courier = Courier(name)
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)

    # Callers

    def start(self) -> None:
        # A thread that is inside torch when the interpreter ends would abort the process.
        atexit.register(self.stop)
        self._courier.start()
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Start *job*, or line it up behind those of its context. What `begin` refuses is raised here if it starts now.

        Raises `EngineLost` after `stop` and when the model's steps fail one after the other.
        """
        with self._wake:
            self._check_alive()
            self._asked += job.asks_again
            if job.context is not None and job.context in self._running:
                self._waiting.setdefault(job.context, deque()).append(job)
                return
            try:
                self._begin(job)
            except EngineError:
                self._undelivered.remove(job)
                raise
            finally:
                self._wake.notify()
            self._send_ended()

    def cancel(self, job: Job) -> None:
        """End *job* with `Cancelled`, now; what the running step does for it comes to nothing.

        Its context is as its last finished pass left it. A job whose last pass has just finished ends as if not
        cancelled.
        """
        with self._wake:
            waiting = self._waiting.get(job.context) if job.context is not None else None
            if waiting and job in waiting:
                waiting.remove(job)
            elif job.current is not None:
                del self._jobs[job.current]
                self.planner.cancel(job.current)
            elif not job.goes_on:
                return
            self._end(job, Cancelled("cancelled"))
            self._wake.notify()
            self._send_ended()

    def busy(self, context: Context) -> bool:
        """Whether a job of *context* runs or waits. Lock held."""
        return context in self._running

    def jobs_of(self, context: Context) -> list[Job]:
        """The job that runs on *context* and those that wait, in order. Lock held."""
        running = self._running.get(context)
        return [*([running] if running else []), *self._waiting.get(context, ())]

    def require_idle(self, context: Context) -> None:
        """Raises `BadRequest` while a job of *context* runs or waits. Lock held."""
        if self.busy(context):
            raise BadRequest.at("context", f"context {context.id} is in use; wait for what runs on it")

    def require_unused(self, slot: int) -> None:
        """Raises `Locked` while a pass with the adapter in *slot* waits or runs."""
        with self.lock:
            if any(pass_.adapter == slot for pass_ in self._jobs):
                raise Locked("passes with this adapter are waiting; try again when they are over")

    def weights_changed(self, slot: int, generation: int) -> None:
        """Passes that wait run with the new weights of *slot*, so their pages are keyed by them."""
        with self.lock:
            for pass_ in self._jobs:
                if pass_.adapter == slot:
                    pass_.generation = generation

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run *function* on the loop's thread, between two steps."""
        call = _Call(function)
        with self._wake:
            self._check_alive()
            self._calls.append(call)
            self._wake.notify()
        return call.future

    def run_aside(self, owner: str, function: Callable[[], T]) -> Future[T]:
        """Run *function* on a worker thread, beside the model, when it is *owner*'s turn."""
        with self.lock:
            self._check_alive()
            return self._aside.run(owner, function)

    def trouble(self, patience: float) -> str:
        """Why nothing more is to be expected: it is dead, or what it does now takes more than *patience* seconds.

        Empty where all is well. Does not block.
        """
        if self.dead is not None:
            return self.dead.detail
        since = self._busy_since
        hangs = since is not None and time.monotonic() - since > patience
        return f"a step of model {self.name} did not end in {patience:g} s" if hangs else ""

    def stats(self) -> dict[str, Any]:
        """Counters since the start and gauges of now, as numbers by name."""
        with self.lock:
            waiting = sum(len(queue) for queue in self._waiting.values())
            pages = self.planner.pages
            gauges = {
                "jobs": len(self._jobs) + waiting,
                "contexts": len(self.planner.contexts.contexts),
                "pages_total": pages.total,
                "pages_free": pages.free,
                "pages_held": pages.held,
                "pages_cached": pages.cached,
                "preemptions": self.planner.preemptions,
                **{f"plan_{name}": value for name, value in asdict(self.planner.counters).items()},
            }
        return {**self.counters.read(), **gauges}

    def stop(self, *, drain: bool = False, timeout: float = 30.0) -> None:
        """End the thread: at once, what runs being `Cancelled`, or with *drain* when all is done. May be repeated."""
        atexit.unregister(self.stop)
        with self._wake:
            self._stopping = True
            if not drain:
                self._cancel_everything()
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)
            if self._thread.is_alive():
                with self._wake:
                    self._cancel_everything()
                    self._wake.notify()
                self._thread.join()
        self._courier.stop()
        self._pool.shutdown()
        self._aside.shutdown()

    def _cancel_everything(self) -> None:
        for job in self._all_jobs():
            self.cancel(job)

    def _all_jobs(self) -> set[Job]:
        waiting = (job for queue in self._waiting.values() for job in queue)
        return {*self._jobs.values(), *self._running.values(), *waiting}

    def _check_alive(self) -> None:
        if self.dead is not None:
            raise EngineLost(self.dead.detail)
        if self._stopping:
            raise EngineLost(f"model {self.name} is being stopped")

    # Jobs: all with the lock held

    def _begin(self, job: Job) -> None:
        if job.context is not None:
            self._running[job.context] = job
        try:
            first = job.begin()
        except EngineError as error:
            self._end(job, error)
            raise
        if first is None:
            self._end(job, None)
        else:
            self._line_up(job, first)

    def _line_up(self, job: Job, pass_: Pass) -> None:
        try:
            self.planner.submit(pass_)
        except EngineError as error:
            self._end(job, error)
            return
        job.current = pass_
        self._jobs[pass_] = job

    def _end(self, job: Job, error: EngineError | None) -> None:
        if job.ended:
            return
        job.ended = True
        job.current = None
        job.end(error)
        self._undelivered.append(job)
        context = job.context
        if context is None or self._running.get(context) is not job:
            return
        del self._running[context]
        queue = self._waiting.get(context)
        while queue and context not in self._running:
            following = queue.popleft()
            try:
                self._begin(following)
            except EngineError as refused:
                log.debug("a queued job was refused: %s", refused)
        if not queue:
            self._waiting.pop(context, None)

    def _send_ended(self) -> None:
        """For callers' threads: hand out what ended there."""
        if self._undelivered:
            self._courier.send(self._undelivered)
            self._undelivered = []

    # The thread

    def _run(self) -> None:
        try:
            self._turn_until_stopped()
        except BaseException as error:  # A defect of planning: nothing it says can be trusted any more.
            log.critical("the loop of model %s broke", self.name, exc_info=error)
            self._die(f"model {self.name}: its loop broke: {type(error).__name__}: {error}")

    def _die(self, detail: str) -> None:
        """Every job, and every one to come, ends with `EngineLost`."""
        with self._wake:
            self.dead = EngineLost(detail)
            jobs = self._all_jobs()
            self._waiting.clear()
            self._jobs.clear()
            for job in jobs:
                self._end(job, EngineLost(detail))
            self._send_ended()
            calls, self._calls = list(self._calls), deque()
        for call in calls:
            call.refuse(EngineLost(detail))

    def _turn_until_stopped(self) -> None:
        while True:
            with self._wake:
                while not self._has_work():
                    if self._stopping:
                        return
                    self._wake.wait()
                calls = list(self._calls)
                self._calls.clear()
            for call in calls:
                self._busy_since = time.monotonic()
                call.run()
            self._busy_since = None
            self._await_company()
            if not self.planner.idle() or self._undelivered:
                self._busy_since = time.monotonic()
                self._step()
                self._busy_since = None

    def _has_work(self) -> bool:
        return bool(self._calls or self._undelivered) or not self.planner.idle()

    def _await_company(self) -> None:
        """Programs answer a result with what they want next, the end of a generation often with several branches. Those
        of the last step are waited for a moment, so that they stay in one batch instead of splitting into several."""
        until = time.perf_counter() + min(COMPANY_S, COMPANY_SHARE * self._step_s)
        with self._wake:
            while not self._calls and (missing := self._asked < self._answered) | self._branching:
                left, asked = until - time.perf_counter(), self._asked
                if left <= 0:
                    break
                self._wake.wait(left if missing else min(left, QUIET_S))
                if not missing and self._asked == asked:
                    break
            self._asked = self._answered = 0
            self._branching = False

    def _step(self) -> None:
        """One turn: what cannot run is told so, then plan, run, commit and publish."""
        times = self.counters.times
        started = time.perf_counter()
        with self.lock:
            step = self.planner.plan(self.clock())
            failed = [(pass_, Outcome(error=error)) for pass_, error in step.failed]
            received = self._receive(failed)
        planned = times.add("plan", started)
        if step.parts:
            received += self._execute(step, planned)
        self._publish(received, time.perf_counter())
        if step.parts:
            self._step_s = time.perf_counter() - started
            self.counters.stepped(len(step.plan.tokens), len(step.plan.segments), len(step.plan.readouts))
        elif not failed:
            self._wait_for_change()

    def _wait_for_change(self) -> None:
        with self._wake:
            if not self.planner.idle() and not self._calls:
                self.counters.stalls += 1
                self._wake.wait(STALLED_S)

    def _execute(self, step: Step, started: float) -> list[tuple[Job, Pass, Outcome]]:
        times = self.counters.times
        broken: dict[Pass, EngineError] = {}
        try:
            masks = self._start_masks(step)
            results: list[ReadoutResult] = []
            if step.plan.tokens:
                forwarded = self.runner.forward(step.plan)
                started = times.add("forward", started)
                _fill_masks(step, masks, broken)
                started = times.add("masks", started)
                results = self.runner.sample(forwarded, step.plan.readouts)
                started = times.add("sample", started)
        except Exception as error:
            return self._step_failed(step, error)
        self._failures = 0
        with self.lock:
            for pass_ in broken:
                self.planner.cancel(pass_)
            outcomes = self.planner.commit(step, results, self.clock())
            received = self._receive(
                [(p, Outcome(error=broken[p]) if p in broken else outcome) for p, outcome in outcomes]
            )
        times.add("commit", started)
        return received

    def _step_failed(self, step: Step, error: Exception) -> list[tuple[Job, Pass, Outcome]]:
        self._failures += 1
        self.counters.failed_steps += 1
        log.error("a step of model %s failed", self.name, exc_info=error)
        said = (
            error if isinstance(error, EngineError) else StepFailed(f"the step failed: {type(error).__name__}: {error}")
        )
        with self.lock:
            received = self._receive(self.planner.fail(step, said))
        if self._failures >= self._max_failures:
            self._die(f"model {self.name}: {self._failures} steps failed in a row; the last: {error}")
        return received

    def _start_masks(self, step: Step) -> list[tuple[Part, Future[Sequence[bytes | None]]]]:
        started = []
        for part in step.parts:
            source = part.pass_.mask_source
            if source is not None and part.needs_masks:
                started.append((part, self._pool.submit(source.masks, part.draft_tokens)))
        return started

    def _receive(self, outcomes: Iterable[tuple[Pass, Outcome]]) -> list[tuple[Job, Pass, Outcome]]:
        """Settle *outcomes* with their jobs. Lock held."""
        received = []
        for pass_, outcome in outcomes:
            job = self._jobs.pop(pass_, None)
            if job is None:  # it was cancelled, and its caller told so
                continue
            job.current = None
            job.settle(outcome)
            received.append((job, pass_, outcome))
        return received

    def _publish(self, received: list[tuple[Job, Pass, Outcome]], started: float) -> None:
        """Ask each job for its next pass, line those up, then hand out what there is."""
        decided = [(job, *_decide(job, outcome)) for job, _, outcome in received]
        with self._wake:
            for job, following, error in decided:
                if job.ended:
                    continue
                if following is not None:
                    self._line_up(job, following)
                else:
                    self._answered += job.asks_again and error is None
                    self._branching |= job.branches and error is None
                    self._end(job, error)
            ended, self._undelivered = self._undelivered, []
        others = set(ended)
        self._courier.send([*ended, *(job for job, _, _ in received if job not in others)])
        self.counters.times.add("publish", started)


def _fill_masks(
    step: Step, started: list[tuple[Part, Future[Sequence[bytes | None]]]], broken: dict[Pass, EngineError]
) -> None:
    """Wait for the masks. A source that fails breaks its own pass only: that samples without a mask, for nobody."""
    for part, future in started:
        try:
            step.set_masks(part, list(future.result()))
        except EngineError as error:
            broken[part.pass_] = error
        except Exception as error:
            log.exception("a mask could not be computed")
            broken[part.pass_] = StepFailed(f"its mask could not be computed: {type(error).__name__}: {error}")


def _decide(job: Job, outcome: Outcome) -> tuple[Pass | None, EngineError | None]:
    if outcome.error is not None:
        return None, outcome.error
    try:
        return job.proceed(outcome), None
    except EngineError as error:
        return None, error
    except Exception as error:  # A defect in one program's decoder or matcher must not take the others along.
        log.exception("publishing failed")
        return None, StepFailed(f"publishing failed: {type(error).__name__}: {error}")
