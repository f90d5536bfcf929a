"""Ctrl-C and SIGTERM: the first signal stops cleanly, the second one at once (RT-08, RT-09).

A signal becomes the exception :class:`Stopped`, raised wherever the work stands, so that every ``finally`` on
the way out runs and no temporary file stays behind. It derives from ``BaseException``, so that no
``except Exception`` of a library swallows it.
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from neuromend.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, NeuromendError

#: Repeats within this time count as one signal: ``timeout`` and some schedulers signal a process and then its
#: whole group, a few milliseconds apart.
REPEAT_SECONDS = 0.3


class Stopped(BaseException):
    """The user or the system asked this process to stop."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)

    def as_error(self, arguments: Sequence[str]) -> NeuromendError:
        """What to tell the user, with the command line that starts the same work again."""
        kind, code, cause = {
            signal.SIGINT: (InterruptedRunError, "RT-08", "stopped by Ctrl-C"),
            signal.SIGTERM: (TerminatedRunError, "RT-09", "stopped by SIGTERM (a time limit or a scheduler)"),
        }[signal.Signals(self.number)]
        return kind(
            code,
            cause,
            why="the work is not finished; every file that stands is whole, temporary ones were removed",
            fix=f"run it again: {shlex.join(['neuromend', *arguments])}",
        )


class InterruptedRunError(NeuromendError):
    """Ctrl-C."""

    exit_status = EXIT_INTERRUPTED


class TerminatedRunError(NeuromendError):
    """SIGTERM."""

    exit_status = EXIT_TERMINATED


_asked: tuple[int, float] | None = None  # the first signal and when it came


@contextmanager
def clean_stop() -> Iterator[None]:
    """Inside, a first SIGINT or SIGTERM raises :class:`Stopped` and a second one ends the process at once.

    A signal that is ignored (``nohup``, background jobs of a script) stays ignored. Outside the main
    thread, where Python cannot handle signals, nothing changes.
    """
    global _asked
    _asked = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_if_asked() -> None:
    """Raise :class:`Stopped` again if a signal came and its exception was lost.

    Python drops exceptions raised inside destructors and some callbacks; long work calls this once a step.
    """
    if _asked is not None:
        raise Stopped(_asked[0])


def _handle(number: int, frame: FrameType | None) -> None:
    global _asked
    now = time.monotonic()
    if _asked is None:
        _asked = (number, now)
        # Not print(): its buffer may be locked by the code that this signal interrupts.
        os.write(2, b"\nneuromend: stopping cleanly; once more stops at once\n")
        raise Stopped(number)
    if now - _asked[1] > REPEAT_SECONDS:
        os._exit(128 + number)
