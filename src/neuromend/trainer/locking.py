"""One run at a time works in a run's folder: two that save there in turn would leave a checkpoint of neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lightning_fabric import Fabric

from neuromend.data.locks import STALE_SECONDS, HeldError, hold
from neuromend.errors import NeuromendError, TemporaryError

LOCK = ".neuromend-lock"


@contextmanager
def run_lock(run: Path, fabric: Fabric) -> Iterator[Callable[[], None]]:
    """Hold the lock of a run's folder (data/locks.py) for all its processes; the folder is made if it is missing.

    The first process takes the lock and tells the others how it went.

    Yields:
        What raises if the lock was lost meanwhile (TR-24).

    Raises:
        TemporaryError: TR-24, another run is at work there.
        OutputError, OutputPermissionError, StorageError: the folder or the lock cannot be made.
    """
    with ExitStack() as stack:
        problem: NeuromendError | None = None
        still_ours: Callable[[], bool] | None = None  # the other processes save nothing, so they need not ask
        if fabric.is_global_zero:
            try:
                still_ours = stack.enter_context(hold(run / LOCK))
            except HeldError as holder:
                problem = _busy(run, f"{holder} is training in this folder")
            except NeuromendError as error:
                problem = error
        problem = fabric.broadcast(problem)
        if problem is not None:
            raise problem

        def check() -> None:
            if still_ours is not None and not still_ours():
                raise _busy(run, "another process has taken this folder over, because this one stood still")

        yield check


def _busy(run: Path, what: str) -> TemporaryError:
    return TemporaryError(
        "TR-24",
        what,
        why="two trainings in one folder would overwrite each other's checkpoints and mix their logs",
        fix="wait for the other one, stop it (SIGTERM: it saves), or give another --out; what was killed on another "
        f"host, or in another container, lets go of the folder after {STALE_SECONDS:g} seconds",
        path=run,
    )
