"""Every way in which a command can end badly, as an error with a code, an exit status and three lines."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from neuromend.errors import NeuromendError, TemporaryError, UsageError
from neuromend.interrupts import Stopped

# typer exports only this one of the usage errors that it raises; its base is what they have in common.
_CommandLineFault: type[Exception] = typer.BadParameter.__mro__[1]


def as_error(problem: BaseException, arguments: Sequence[str]) -> NeuromendError:
    """Word what ended a command.

    Args:
        problem: what was raised.
        arguments: the command line without the program, for commands to copy.

    Returns:
        The error itself if it was foreseen; UX-10 for a command line that was not understood, RT-08 or RT-09
        for a signal, RT-12 for lack of memory, and UX-70 for a bug.
    """
    if isinstance(problem, NeuromendError):
        return problem
    if isinstance(problem, Stopped):
        return problem.as_error(arguments)
    if isinstance(problem, _CommandLineFault):
        command = getattr(getattr(problem, "ctx", None), "command_path", "neuromend")
        message = problem.format_message()  # type: ignore[attr-defined]  # all of typer's usage errors have it
        return UsageError("UX-10", message, why="nothing was read or written", fix=f"{command} --help")
    if isinstance(problem, MemoryError):
        return TemporaryError(
            "RT-12",
            "the memory was not enough",
            why="the work could not be finished; nothing half-written was left",
            fix="close other programs, or run it where there is more memory",
        )
    return _bug(problem, arguments)


def _bug(problem: BaseException, arguments: Sequence[str]) -> NeuromendError:
    frames = traceback.extract_tb(problem.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    again = shlex.join(
        ["neuromend", *(argument for argument in arguments if argument != "--debug"), "--debug"]
    )
    return NeuromendError(
        "UX-70",
        f"{type(problem).__name__}: {problem}{where}",
        why="nobody foresaw this: it is a bug in neuromend, please report it",
        fix=f"run it again and send what it shows, without names of persons: {again}",
    )
