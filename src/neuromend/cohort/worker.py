"""What runs in a worker: one case at a time, with a model that stays loaded from case to case."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import get_worker

from neuromend.cohort.cases import Case, Outcome, Settings
from neuromend.cohort.state import CaseBusyError, case_lock
from neuromend.errors import EXIT_BUG, NeuromendError, TemporaryError
from neuromend.filling import FillResult, fill
from neuromend.findings import Finding
from neuromend.interrupts import Stopped
from neuromend.painting import LoadedModel

Finish = Callable[[Case, FillResult], None]


@dataclass(frozen=True, slots=True)
class Busy:
    """Another run is filling the case."""

    holder: str


_model = LoadedModel()
_one_at_a_time = threading.Lock()
_stopped_runs: set[str] = set()


def stop_run(run: str) -> None:
    """Let the fills of a run end at their next step."""
    _stopped_runs.add(run)


def dask_setup(worker: object) -> None:
    """Dask calls this when a worker starts that was given this module as a preload.

    Ctrl-C, and the SIGTERM of a batch system, reach the driver and its workers alike; only the driver shall act.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def fill_case(case: Case, settings: Settings, run: str, finish: Finish | None) -> Outcome | Busy | None:
    """Fill a case, or keep its finished result; every fault of the case becomes an outcome.

    Args:
        settings: those without ``threads`` use as many as Dask gave this worker.
        run: names the run, for :func:`stop_run`.
        finish: called after a fill and for a kept result, in case an earlier run was killed before it.

    Returns:
        The outcome; Busy if another run has the case; None if this run was stopped.
    """
    if settings.threads is None:
        settings = replace(settings, threads=get_worker().state.nthreads)

    def step(stage: str, done: int, total: int) -> None:
        if run in _stopped_runs:
            raise Stopped(signal.SIGTERM)

    began = time.perf_counter()
    with _one_at_a_time:
        try:
            step("starting", 0, 1)
            with case_lock(case.out):
                existed = case.out.exists()
                result = fill(
                    case.image, case.mask, case.out, **settings.arguments(case),
                    skip_existing=True, on_step=step, painter_for=_model,
                )  # fmt: skip
                if finish is not None:
                    finish(case, result)
            outcome = _succeeded(case, result, existed=existed)
        except Stopped:
            return None
        except CaseBusyError as busy:
            return Busy(str(busy))
        except Exception as error:
            outcome = failed(case, error)
    return replace(
        outcome,
        seconds=time.perf_counter() - began,
        peak_bytes=_peak_bytes(),
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )


def failed(case: Case, error: BaseException) -> Outcome:
    """The outcome of a case that ended with this error; one that nobody foresaw is UX-70."""
    if isinstance(error, MemoryError):
        error = TemporaryError(
            "RT-12",
            "the memory was not enough",
            why="the case could not be finished; nothing half-written was left",
            fix="use fewer workers (--workers 1), or a machine with more memory",
        )
    if isinstance(error, NeuromendError):
        where = f"{error.path}: " if error.path is not None else ""
        status = type(error).exit_status
        return Outcome(
            case.id, "failed", code=error.code, message=where + error.what, fix=error.fix, exit_status=status
        )
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return Outcome(
        case.id,
        "failed",
        code="UX-70",
        message=f"{type(error).__name__}: {error}{place}",
        fix="run this case alone with neuromend fill --debug, and report what it shows",
        exit_status=EXIT_BUG,
    )


def _succeeded(case: Case, result: FillResult, *, existed: bool) -> Outcome:
    record = result.record
    sha256 = {output["role"]: output["sha256"] for output in record["outputs"]}
    again = existed and result.redone is not None
    return Outcome(
        case.id,
        "kept" if result.kept else "redone" if again else "done",
        reason=result.redone or "" if again else "",
        volume_ml=record["mask"]["used_volume_ml"],
        flags=tuple(Finding(f.code, f.level, f.message) for f in result.findings if f.level == "warning"),
        record=result.outputs["record"],
        model=record["model"]["name"],
        image_sha256=record["image"]["sha256"],
        mask_sha256=record["mask"]["sha256"],
        filled_sha256=sha256["filled"],
    )


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
