"""What watches over a training run: requests to stop, a clock against standing still, steps that are not finite."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from neuromend.errors import ModelFaultError, TemporaryError
from neuromend.interrupts import REPEAT_SECONDS
from neuromend.trainer.config import Training
from neuromend.trainer.state import RunState

ADVICE = (
    "begin again with half the learning rate (--set peak_lr=...), with --set precision=fp32, or from "
    "checkpoints/good.pt, which is from before the trouble: see docs/how-to/train.md"
)


class StopRequests:
    """Inside, SIGINT and SIGTERM are remembered and the step under way is finished; a second one ends at once.

    An exception in the middle of an optimiser step would leave weights that no run without a signal ever has, so
    the loop asks between steps. Outside the main thread, where Python cannot handle signals, nothing changes.

    Attributes:
        asked: number of the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            for number, handler in self._before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._when = number, now
            os.write(2, b"\nneuromend: finishing this step, then saving; once more stops at once\n")
        elif now - self._when > REPEAT_SECONDS:
            os._exit(128 + number)


class Watchdog:
    """Ends the process with exit status 75 if ``beat`` is not called for ``minutes`` (TR-15); 0 never does.

    The stacks of all threads go to stderr and to ``report``, then the process ends without cleaning up: what
    stands still, such as a deadlocked loader, would not clean up either. The newest checkpoint is whole.
    """

    def __init__(self, minutes: float, report: Path) -> None:
        self.minutes, self.report = minutes, report
        self._last = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> Watchdog:
        if self.minutes:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def beat(self) -> None:
        """Say that something was achieved."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        limit = 60 * self.minutes
        while not self._over.wait(min(limit / 4, 10.0)):
            if time.monotonic() - self._last > limit:
                self._end()

    def _end(self) -> None:
        with self.report.open("w") as file:
            faulthandler.dump_traceback(file)
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        error = TemporaryError(
            "TR-15",
            f"no training step for {self.minutes:g} minutes",
            why=f"the data loader or a connection stands still; the stacks are in {self.report}",
            fix="run the same command again, it goes on from the newest checkpoint; "
            "--set running.workers=0 leaves the loader out",
        )
        os.write(2, f"{error.render()}\n".encode())
        os._exit(error.exit_status)


def stop_if_hopeless(state: RunState, training: Training, run: Path, *, loss: float, norm: float) -> None:
    """Called after a step that was not finite; too many of them end the run.

    Raises:
        ModelFaultError: TR-01, ``give_up_after`` such steps in a row; TR-02, the scale of fp16 losses fell below 1.
    """
    progress = state.progress
    if state.scaler is not None and state.scaler.get_scale() < 1:
        raise ModelFaultError(
            "TR-02",
            f"the scale of fp16 losses fell to {state.scaler.get_scale():g} at step {progress.step}",
            why="gradients overflow at every scale: nothing is learnt any more",
            fix="use bf16 (--set precision=bf16), or " + ADVICE,
            path=run,
        )
    if progress.in_a_row >= training.give_up_after:
        raise ModelFaultError(
            "TR-01",
            f"{progress.in_a_row} steps in a row were not finite (the last: loss {loss}, gradient {norm}, "
            f"step {progress.step})",
            why="no weight was changed by them and none was saved, but training cannot go on like this",
            fix=ADVICE,
            path=run,
        )
