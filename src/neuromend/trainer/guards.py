"""What watches over a training run: requests to stop, and a clock against standing still."""

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

from neuromend.errors import TemporaryError
from neuromend.interrupts import REPEAT_SECONDS


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
