"""Fill many cases on a Dask cluster: a few in flight at a time, every outcome written down as it comes.

Dask does the scheduling: it hands each case to a free worker, and gives it to another one when its worker dies.
This module feeds it. As many cases are submitted as there are workers, so neither the driver nor the scheduler
knows more of a cohort of any size than what is being filled. A case that another run is filling at the moment is
asked for again later.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker

from neuromend.cohort.cases import Case, Outcome, Settings
from neuromend.cohort.clusters import EngineOptions, open_workforce
from neuromend.cohort.tables import Tables
from neuromend.cohort.worker import Busy, Finish, failed, fill_case, stop_run
from neuromend.data.outputs import check_output
from neuromend.errors import TemporaryError
from neuromend.interrupts import stop_if_asked

TICK_SECONDS = 0.5
"""How often the driver looks for workers that came or went, and for signals."""

GRACE_SECONDS = 20.0
"""How long fills may take to stop; batch systems kill about 30 s after SIGTERM."""

BUSY_SECONDS = 2.0
"""After so long, a case that another run was filling is asked for again."""

RECENT = 50
"""Fills whose pace gives the remaining time."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell.

    Attributes:
        kind: "begun", "case", "waiting" (another run has the case) or "no-workers".
        text: what was started, or who has the case; empty for "case".
        dashboard: its address, with "begun".
        outcome: with "case".
        finished, total: cases; the total is None where it is not known.
        remaining_seconds: None before the first fills, and where the total is not known.
    """

    kind: str
    text: str = ""
    dashboard: str = ""
    outcome: Outcome | None = None
    finished: int = 0
    total: int | None = None
    remaining_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    Attributes:
        done, kept, redone, failed: number of cases.
        stopped_early: whether ``fail_fast`` left cases.
        seconds: wall time, the start of the workers included.
        cohort, failures: the tables.
    """

    done: int
    kept: int
    redone: int
    failed: int
    stopped_early: bool
    seconds: float
    cohort: Path
    failures: Path


def run_cases(
    cases: Iterable[Case],
    settings: Settings,
    engine: EngineOptions,
    out_dir: Path,
    *,
    fail_fast: bool = False,
    finish: Finish | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Summary:
    """Fill cases, keep those that are finished, and write cohort.tsv and failures.tsv into ``out_dir``.

    A case is finished if its sidecar is there, every file has the hash that stands in it, and scan, mask, model
    and settings are the same; else it is done again and the reason is told.

    Args:
        cases: iterated once; their ids and outputs differ.
        fail_fast: begin no more cases after the first failure; those in work are finished.
        finish: called in the worker as ``finish(case, result)`` after each fill, and for each kept result, with
            the case's lock held; must be picklable.
        on_event: called in this process.

    Raises:
        NeuromendError: settings, model, output folder or cluster are unusable; a fault of a case raises nothing.
        Stopped: Ctrl-C or SIGTERM; fills in work were stopped cleanly and the tables written.
    """
    began = time.monotonic()
    settings.check()
    out_dir = out_dir.absolute()
    check_output(out_dir / "cohort.tsv", [], overwrite=True, needed_bytes=0)
    with Tables(out_dir) as tables, open_workforce(engine, settings) as workforce:
        tell = on_event or _silent
        tell(Event("begun", workforce.story, workforce.dashboard))
        total = len(cases) if isinstance(cases, Sized) else None
        feed = _Feed(workforce.client, workforce.settings, finish, engine.attempts)
        pace = _Pace(total)
        try:
            for number, case, outcome in feed.run(enumerate(cases), tell):
                tables.add(number, case, outcome)
                tell(pace.event(outcome))
                if fail_fast and outcome.status == "failed":
                    feed.begin_no_more()
        except BaseException:
            feed.stop()
            raise
    counts = tables.counts
    return Summary(
        counts["done"], counts["kept"], counts["redone"], counts["failed"], feed.left_cases,
        time.monotonic() - began, tables.cohort, tables.failures,
    )  # fmt: skip


@dataclass(eq=False)
class _Feed:
    """Keeps as many cases in flight as there are workers."""

    client: Client
    settings: Settings
    finish: Finish | None
    attempts: int
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    left_cases: bool = False

    def __post_init__(self) -> None:
        self._flying: dict[Any, tuple[int, Case]] = {}
        self._landed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._busy: deque[tuple[float, int, Case]] = deque()
        self._submitted = 0
        self._ended = False

    def begin_no_more(self) -> None:
        """Only what is in flight is finished."""
        self._ended = True

    def run(
        self, cases: Iterator[tuple[int, Case]], tell: Callable[[Event], None]
    ) -> Iterator[tuple[int, Case, Outcome]]:
        """The outcomes, as they come."""
        workers, looked = 0, -TICK_SECONDS
        while True:
            stop_if_asked()
            if time.monotonic() - looked >= TICK_SECONDS:
                before, workers, looked = workers, len(self.client.nthreads()), time.monotonic()
                if workers == 0 and (before or not self._submitted):
                    tell(Event("no-workers", "waiting for workers"))
            # A few more than workers, so that none waits for the driver.
            while len(self._flying) < max(1, workers + workers // 8) and self._submit_next(cases):
                pass
            if not self._flying and (self._ended or not self._busy):
                self.left_cases = self._ended and (bool(self._busy) or next(cases, None) is not None)
                return
            try:
                future = self._landed.get(timeout=TICK_SECONDS)
            except queue.Empty:
                continue
            number, case = self._flying.pop(future)
            answer = self._answer(future, case)
            if isinstance(answer, Outcome):
                yield number, case, answer
            elif isinstance(answer, Busy):
                tell(Event("waiting", f"{case.id}: {answer.holder}"))
                self._busy.append((time.monotonic() + BUSY_SECONDS, number, case))
            else:  # its worker was told to stop, but not by us: once more, elsewhere
                self._busy.append((time.monotonic(), number, case))

    def stop(self) -> None:
        """Let the fills in flight stop, and wait until they have."""
        if self.client.status != "running":
            return  # the scheduler was lost: there is nobody to tell
        deadline = time.monotonic() + GRACE_SECONDS
        waiting = set(self._flying)
        self.client.run(stop_run, self.run_id, wait=False, on_error="ignore")
        while waiting and time.monotonic() < deadline:
            try:
                waiting.discard(self._landed.get(timeout=TICK_SECONDS))
            except queue.Empty:
                continue

    def _submit_next(self, cases: Iterator[tuple[int, Case]]) -> bool:
        """Submit a case that was busy if its time has come, else a new one; False if there is none."""
        if self._ended:
            return False
        if self._busy and self._busy[0][0] <= time.monotonic():
            _, number, case = self._busy.popleft()
        else:
            following = next(cases, None)
            if following is None:
                return False
            number, case = following
        self._submitted += 1
        future = self.client.submit(
            fill_case, case, self.settings, self.run_id, self.finish,
            key=f"fill-{self.run_id}-{self._submitted}", pure=False,
        )  # fmt: skip
        self._flying[future] = (number, case)
        future.add_done_callback(self._landed.put)
        return True

    def _answer(self, future: Any, case: Case) -> Outcome | Busy | None:
        """What the worker said; a case that killed its workers has failed."""
        if future.status == "finished":
            answer: Outcome | Busy | None = future.result()
            return answer
        if future.status != "error":
            raise TemporaryError(
                "CO-04",
                "the Dask scheduler was lost",
                why="what was being filled is not finished; what is finished stands",
                fix="start the cluster again, then run the same command again",
            )
        error = future.exception()
        if isinstance(error, KilledWorker):
            error = TemporaryError(
                "CO-05",
                f"{self.attempts} workers died while they filled this case",
                why="the system ended them, most likely because the memory was not enough",
                fix="give each worker more memory (--workers 1, or memory in the cluster's file) and run it again",
            )
        return failed(case, error)


class _Pace:
    """Counts, and foretells from the pace of the last fills; kept results, which take no time, are left out."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._finished = 0
        self._filled: deque[float] = deque([time.monotonic()], maxlen=RECENT + 1)

    def event(self, outcome: Outcome) -> Event:
        """The news of a case that has just ended."""
        self._finished += 1
        if outcome.status in ("done", "redone"):
            self._filled.append(time.monotonic())
        elif len(self._filled) == 1:
            self._filled[0] = time.monotonic()
        remaining = None
        if self._total is not None and len(self._filled) > 1:
            each = (self._filled[-1] - self._filled[0]) / (len(self._filled) - 1)
            remaining = each * (self._total - self._finished)
        return Event(
            "case", outcome=outcome, finished=self._finished, total=self._total, remaining_seconds=remaining
        )


def _silent(event: Event) -> None:
    """No one listens."""
