"""Fills in the order they were asked for, one at a time, in a process that can be killed.

A job belongs to the server and not to a tab: it goes on when the page is closed, and is there when it is opened.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from neuromend.data.atomic import storage_error
from neuromend.errors import NeuromendError
from neuromend.review.refusals import Refusal, error_body, no_such
from neuromend.review.worker import Filled, Order, Worker, WorkerDied, bug, out_of_memory

State = Literal["queued", "running", "done", "failed", "cancelled"]

MAX_QUEUE = 4
"""Jobs that may wait behind the one that runs; a person who clicks more often meant one of them."""

KEPT_JOBS = 100
"""Finished jobs whose end can still be asked for; their results live on in the list of their scan."""


@dataclass(slots=True)
class Job:
    """One fill and how far it is.

    Attributes:
        key: chosen by the page; the same key is the same job, however often it is sent.
        facts: the request, for the result.
        expected_s: how long it will take, estimated before it started.
        stage, done, of: what ``neuromend.fill`` told last; "starting" before its first word.
        started: when it began to fill (monotonic seconds).
    """

    id: str
    key: str
    order: Order
    facts: dict[str, Any]
    expected_s: float
    state: State = "queued"
    stage: str = "waiting"
    done: int = 0
    of: int = 1
    started: float = 0.0
    stage_started: float = 0.0
    error: NeuromendError | None = None
    result: dict[str, Any] | None = None

    def eta_s(self) -> float | None:
        """Seconds left: by its own steps once it counts them, before that by the estimate; None if not running."""
        if self.state != "running":
            return None
        now = time.monotonic()
        by_estimate = max(0.0, self.expected_s - (now - self.started))
        if self.stage == "filling" and 0 < self.done < self.of:
            return round((now - self.stage_started) / self.done * (self.of - self.done), 1)
        return round(by_estimate, 1)


class JobQueue:
    """The one who gives orders to the worker, in a thread of its own.

    Args:
        finish: makes the result of a fill known; called with the job and what came of it, returns its JSON.
        say: one line for the log; ids and numbers only.
        redact: take folders out of the sentences of errors.
        make_worker: starts the process that fills.
    """

    def __init__(
        self,
        finish: Callable[[Job, Filled, float], dict[str, Any]],
        say: Callable[[str], None],
        *,
        redact: bool = False,
        max_queue: int = MAX_QUEUE,
        make_worker: Callable[[], Worker] = Worker,
    ) -> None:
        self.max_queue = max_queue
        self._finish = finish
        self._say = say
        self._redact = redact
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="neuromend-jobs", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> dict[str, Any]:
        """Put a job at the end of the queue; a key that is known gives its job back and starts nothing.

        Raises:
            Refusal: WE-09, the queue is full (429, with the position that the job would have had).
        """
        with self._changed:
            for known in self._jobs.values():
                if known.key == job.key:
                    return self._as_json(known)
            if len(self._waiting) >= self.max_queue:
                position = len(self._waiting) + 1
                raise Refusal(
                    429,
                    "WE-09",
                    f"{len(self._waiting)} fills are waiting already; this would be number {position}",
                    why="one fill runs at a time, because each needs the whole memory of the model",
                    fix="wait until one has finished, or cancel one",
                    position=position,
                )
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._forget_old()
            self._changed.notify_all()
            return self._as_json(job)

    def get(self, id: str) -> dict[str, Any]:
        """A job as JSON (Refusal WE-06 if there is none)."""
        with self._changed:
            return self._as_json(self._find(id))

    def cancel(self, id: str) -> dict[str, Any]:
        """Take a job out of the queue, or kill the process that fills; a finished job stays as it is."""
        with self._changed:
            job = self._find(id)
            if job.state == "queued":
                self._waiting.remove(job)
            elif job.state == "running" and self._worker is not None:
                self._worker.kill()
            else:
                return self._as_json(job)
            job.state = "cancelled"
            self._changed.notify_all()
            return self._as_json(job)

    def current(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The job that runs and those that wait."""
        with self._changed:
            running = None if self._running is None else self._as_json(self._running)
            return running, [self._as_json(job) for job in self._waiting]

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return self._running is not None or bool(self._waiting)

    def close(self) -> None:
        """Kill what runs and end the thread."""
        with self._changed:
            self._closing = True
            for job in (self._running, *self._waiting):
                if job is not None:
                    job.state = "cancelled"
            self._waiting.clear()
            if self._worker is not None:
                self._worker.kill()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                # A process that was killed or died is replaced at once, so that the next fill finds it warm.
                if not self._closing and (self._worker is None or not self._worker.alive):
                    self._worker = self._make_worker()
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                if self._worker is None or not self._worker.alive:
                    continue
                job = self._running = self._waiting.pop(0)
                job.state, job.stage, job.started = "running", "starting", time.monotonic()
                worker = self._worker
            self._say(f"job {job.id}: running")
            self._fill(job, worker)

    def _fill(self, job: Job, worker: Worker) -> None:
        error: NeuromendError | None = None
        result: dict[str, Any] | None = None
        try:
            job.order.out.mkdir()
            filled = worker.ask(job.order, lambda *step: self._heard(job, *step))
            result = self._finish(job, filled, time.monotonic() - job.started)
        except NeuromendError as problem:
            error = problem
        except WorkerDied as death:
            error = out_of_memory(
                f"the process of the fill ended before it was done ({_ending(death.args[0])}), most often"
                " because the memory was not enough"
            )
        except OSError as problem:  # the session's folder is on a disk that is full
            error = storage_error(job.order.out, problem)
        except Exception as problem:  # a bug must not end this thread, which nobody would notice
            error = bug(problem)
        with self._changed:
            self._running = None
            if job.state != "cancelled":
                job.state, job.result, job.error = "done" if error is None else "failed", result, error
            if job.state != "done":
                shutil.rmtree(job.order.out, ignore_errors=True)
            seconds = time.monotonic() - job.started
        code = f" [{error.code}]" if error is not None and job.state == "failed" else ""
        self._say(f"job {job.id}: {job.state} after {seconds:.1f} s{code}")

    def _heard(self, job: Job, stage: str, done: int, of: int) -> None:
        with self._changed:
            if job.stage == "starting":
                job.started = time.monotonic()  # until now the process was being started, which happens once
            if stage != job.stage:
                job.stage_started = time.monotonic()
            job.stage, job.done, job.of = stage, done, of

    def _find(self, id: str) -> Job:
        if id not in self._jobs:
            raise no_such("job")
        return self._jobs[id]

    def _forget_old(self) -> None:
        finished = [job.id for job in self._jobs.values() if job.state not in ("queued", "running")]
        for id in finished[: max(0, len(self._jobs) - KEPT_JOBS)]:
            del self._jobs[id]

    def _as_json(self, job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            **job.facts,
            "state": job.state,
            "stage": job.stage,
            "done": job.done,
            "of": job.of,
            "eta_s": job.eta_s(),
            "position": self._waiting.index(job) + 1 if job in self._waiting else 0,
            "error": None if job.error is None else error_body(job.error, redact=self._redact),
            "result": job.result,
        }


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
