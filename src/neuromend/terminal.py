"""What a command says: results on stdout, talk and progress on stderr, everything in the log file.

On a terminal the progress is a bar with the remaining time; elsewhere every stage is one plain line. rich is
imported only where it is used, which keeps ``--help`` and scripts quick.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from neuromend.errors import NeuromendError, OutputError, OutputPermissionError, StorageError
from neuromend.findings import Finding
from neuromend.interrupts import stop_if_asked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

#: First line of every log file; only a file that begins so is ever appended to.
LOG_TITLE = "# neuromend log\n"

_SHOWN = {"pass": "PASS", "note": "NOTE", "warning": "WARN"}
_STYLES = {"PASS": "green", "NOTE": "cyan", "WARN": "yellow", "FAIL": "bold red"}


class Talk:
    """The mouth of one command; a context manager, because a bar must be stopped and a log closed.

    Args:
        arguments: the command line without the program, for the log.
        json_output: results become one JSON object; :meth:`result` then prints nothing.
        quiet: only warnings and errors.
        verbose: also the checks that passed.
        color: False forbids colours; so do the variable NO_COLOR and anything that is not a terminal.
        log: a file to which every line is appended with its time.

    Raises:
        OutputError, OutputPermissionError: RT-02 or RT-04, the log file cannot be written or is another's.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        json_output: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        color: bool = True,
        log: Path | None = None,
    ) -> None:
        self.json_output = json_output
        self.quiet = quiet
        self.verbose = verbose
        self._stage = ""
        self._task: TaskID | None = None
        self._progress: Progress | None = None
        self._console = _terminal(color)
        self._log = None if log is None else _open_log(log)
        self._write_log(f"command: {shlex.join(['neuromend', *arguments])}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_progress()
        if self._log is not None:
            if problem is not None:
                self._write_log("".join(traceback.format_exception(kind, problem, trace)).rstrip())
            self._log.close()

    def step(self, stage: str, done: int, total: int) -> None:
        """Progress: ``done`` of ``total`` steps of ``stage``. Also the place where a lost Ctrl-C is found."""
        stop_if_asked()
        if stage != self._stage:
            self._write_log(stage)
            if not self.quiet and self._console is None:
                print(stage, file=sys.stderr, flush=True)
        if not self.quiet and self._console is not None:
            self._move_bar(stage, done, total)
        self._stage = stage

    def end_progress(self) -> None:
        """Take the bar off the terminal."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._task = None

    def say(self, text: str) -> None:
        """A line of talk, not shown with ``--quiet``."""
        self._line(text, shown=not self.quiet)

    def show_findings(self, findings: Iterable[Finding]) -> None:
        """Warnings always, notes unless quiet, passed checks only when verbose; what is said of two files, once."""
        for finding in dict.fromkeys(findings):
            shown = {"pass": self.verbose, "note": not self.quiet, "warning": True}[finding.level]
            self._line(describe(finding), shown=shown, style=_STYLES[_SHOWN[finding.level]])

    def result(self, text: str) -> None:
        """A line on stdout."""
        self._write_log(text)
        if not self.json_output:
            print_stdout(text)

    def result_json(self, content: Mapping[str, Any]) -> None:
        """The one JSON object on stdout, if JSON was asked for."""
        if self.json_output:
            print_json(content)

    def _line(self, text: str, *, shown: bool, style: str = "") -> None:
        self._write_log(text)
        if not shown:
            return
        if self._console is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _move_bar(self, stage: str, done: int, total: int) -> None:
        if self._progress is None:
            self._progress = _new_bar(self._console)
            self._progress.start()
        # A stage that counts nothing gets a bar that only shows life.
        whole = total if total > 1 else None
        if stage != self._stage or self._task is None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(stage, total=whole, ahead="remaining" if whole else "")
        self._progress.update(self._task, completed=done, total=whole)

    def _write_log(self, text: str) -> None:
        if self._log is not None:
            now = datetime.now().astimezone().isoformat(timespec="milliseconds")
            self._log.write("".join(f"{now} {line}\n" for line in text.splitlines()))
            self._log.flush()


def describe(finding: Finding) -> str:
    """``WARN [MA-13] sentence``."""
    return f"{_SHOWN[finding.level]} [{finding.code}] {finding.message}"


def finding_json(finding: Finding) -> dict[str, str]:
    """A finding as it stands in every JSON output."""
    return {"code": finding.code, "level": finding.level, "message": finding.message}


def error_json(error: NeuromendError) -> dict[str, Any]:
    """``{"error": {...}}``: the same facts as the three lines, one by one."""
    return {
        "error": {
            "code": error.code,
            "exit_status": error.exit_status,
            "path": None if error.path is None else str(error.path),
            "what": error.what,
            "why": error.why,
            "fix": error.fix,
        }
    }


def show_error(error: NeuromendError, *, color: bool = True) -> None:
    """The three lines of an error on stderr, unwrapped, so that a command in them can be copied."""
    console = _terminal(color)
    text = "".join(
        character if character.isprintable() or character == "\n" else "?" for character in error.render()
    )
    if console is None:
        print(text, file=sys.stderr, flush=True)
    else:
        first, _, rest = text.partition("\n")
        console.print(first, style=_STYLES["FAIL"], markup=False, highlight=False, soft_wrap=True)
        console.print(rest, markup=False, highlight=False, soft_wrap=True)


def print_stdout(text: str) -> None:
    """A line on stdout; a file name that is not valid text keeps its bytes, so that a script can open it.

    Where the program that read stdout has gone (such as ``head``), this and later lines go nowhere.

    Raises:
        StorageError: RT-03, stdout goes to a disk that is full or broken.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text + "\n"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        abandon_stdout()
    except OSError as error:
        abandon_stdout()
        raise StorageError(
            "RT-03",
            f"printing the result failed ({error.strerror})",
            why="what was printed is incomplete; files that were written before are whole",
            fix="free some space, or send the output elsewhere",
        ) from error


def abandon_stdout() -> None:
    """Send what is left in the buffers of stdout nowhere; the interpreter would fail on it again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object on stdout, ASCII only, so that any locale can carry it."""
    print_stdout(json.dumps(content, indent=2, allow_nan=False))


def _terminal(color: bool) -> Console | None:
    """A console on stderr if that is a terminal which can move its cursor, else None."""
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        return None
    from rich.console import Console

    return Console(stderr=True, no_color=None if color else True)


def _new_bar(console: Console | None) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("{task.fields[ahead]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _open_log(path: Path) -> IO[str]:
    """Open a log file to append to; a file that is not a log of ours is refused, lest it be a scan."""
    why = "a log file that cannot be written would be missed when it is needed"
    try:
        if path.exists():
            with path.open("rb") as file:
                ours = file.read(len(LOG_TITLE)) in (LOG_TITLE.encode(), b"")
            if not ours:
                raise OutputError(
                    "RT-04",
                    "--log names a file that is not a log of neuromend",
                    why="only a log that neuromend began is appended to; nothing else is ever changed",
                    fix="give --log another name",
                    path=path,
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        file_ = path.open("a", encoding="utf-8", errors="backslashreplace")
    except PermissionError as error:
        fix = f"choose another place, or: chmod u+w '{path.parent}'"
        raise OutputPermissionError(
            "RT-02", "no permission to write the log", why=why, fix=fix, path=path
        ) from error
    except (IsADirectoryError, FileExistsError, NotADirectoryError) as error:
        fix = "give --log the name of a file in a folder"
        raise OutputError(
            "RT-02", f"the log cannot be created ({error.strerror})", why=why, fix=fix, path=path
        ) from error
    if file_.tell() == 0:
        file_.write(LOG_TITLE)
    return file_
