"""What came of a cohort, as two tables: cohort.tsv with a row a case, failures.tsv with what to do about each.

Rows go to a hidden file as they come, so that of a case only its id and a place stay in memory. At the end, or when
the run is stopped, they are brought into the order of the cases, and the tables take their names, whole. What
earlier runs wrote about other cases follows them: a run that was stopped early, or one job for each subject, takes
nothing away that was known. Runs that end together wait for each other.
"""

from __future__ import annotations

import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from neuromend.cohort.cases import Case, Outcome, Status
from neuromend.cohort.results import COHORT_TABLE
from neuromend.cohort.state import CaseBusyError, case_lock
from neuromend.data.atomic import hidden_name, storage_error

FAILURES_TABLE = "failures.tsv"

COLUMNS = (
    "id", "status", "code", "volume_ml", "seconds", "peak_mib", "flags", "reason", "model", "image", "mask",
    "image_sha256", "mask_sha256", "filled_sha256", "record", "worker",
)  # fmt: skip
FAILURE_COLUMNS = ("id", "code", "exit_status", "message", "fix")

WAIT_SECONDS = 0.1
"""After so long, a run looks again whether another one has written its tables."""

Cells = Iterable[object]


class Tables:
    """The tables of a run, as a context; leaving it writes them, also when the run was stopped.

    Args:
        folder: where cohort.tsv and failures.tsv will stand; it exists.

    Attributes:
        counts: cases by status.
        cohort, failures: the paths.

    Raises:
        OutputPermissionError, StorageError: RT-02, RT-03, RT-07, they cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.cohort, self.failures = folder / COHORT_TABLE, folder / FAILURES_TABLE
        self.counts: Counter[Status] = Counter()
        self._ids: set[bytes] = set()
        self._folder = folder
        self._rows = _Rows(folder)
        self._failed = _Rows(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _alone(self.cohort):
            self._rows.publish(self.cohort, COLUMNS, self._ids)
            self._failed.publish(self.failures, FAILURE_COLUMNS, self._ids)

    def add(self, number: int, case: Case, outcome: Outcome) -> None:
        """Write down the outcome of the case that is ``number`` in the order of the cases."""
        self.counts[outcome.status] += 1
        self._ids.add(_line((outcome.id,)).rstrip(b"\n"))
        self._rows.add(number, self._row(case, outcome))
        self._failed.keep_fresh()
        if outcome.status == "failed":
            cells = (outcome.id, outcome.code, outcome.exit_status, outcome.message, outcome.fix)
            self._failed.add(number, cells)

    def _row(self, case: Case, outcome: Outcome) -> Cells:
        return (
            outcome.id, outcome.status, outcome.code,
            "" if outcome.volume_ml is None else f"{outcome.volume_ml:.4f}",
            f"{outcome.seconds:.2f}", outcome.peak_bytes >> 20,
            ",".join(dict.fromkeys(flag.code for flag in outcome.flags)),
            outcome.reason, outcome.model,
            self._relative(case.image), self._relative(case.mask),
            outcome.image_sha256, outcome.mask_sha256, outcome.filled_sha256,
            "" if outcome.record is None else self._relative(outcome.record), outcome.worker,
        )  # fmt: skip

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._folder)).as_posix()


class _Rows:
    """Lines on the disk in the order they came, and where each begins: 8 bytes of memory a case."""

    def __init__(self, folder: Path) -> None:
        self._hidden = folder / hidden_name()
        self._begins = array("q")
        self._guarded(lambda: self._hidden.touch(exist_ok=False), self._hidden)

    def add(self, number: int, cells: Cells) -> None:
        """Append a line. A case's place is marked, so that a later outcome of it would replace the first."""
        line = _line(cells)
        self._begins.extend([-1] * (number + 1 - len(self._begins)))

        def append() -> None:
            with self._hidden.open("ab") as file:
                self._begins[number] = file.tell()
                file.write(line)

        self._guarded(append, self._hidden)

    def keep_fresh(self) -> None:
        """Tell other runs, which remove hidden files of a day ago, that this one is in use."""
        self._guarded(lambda: os.utime(self._hidden), self._hidden)

    def publish(self, target: Path, columns: tuple[str, ...], ids: Collection[bytes]) -> None:
        """Write the table in order beside its target, flush it, and give it its name.

        Args:
            ids: the cases of this run; rows of the table before that are about others are kept, at its end.
        """
        sorted_ = target.with_name(hidden_name())

        def write() -> None:
            try:
                with self._hidden.open("rb") as rows, sorted_.open("xb") as table:
                    table.write(_line(columns))
                    for begin in self._begins:
                        if begin >= 0:
                            rows.seek(begin)
                            table.write(rows.readline())
                    table.writelines(_rows_of_others(target, _line(columns), ids))
                    table.flush()
                    os.fsync(table.fileno())
                os.replace(sorted_, target)
            finally:
                self._hidden.unlink(missing_ok=True)
                sorted_.unlink(missing_ok=True)

        self._guarded(write, target)

    @staticmethod
    def _guarded(action: Callable[[], object], path: Path) -> None:
        try:
            action()
        except OSError as error:
            raise storage_error(path, error) from error


@contextmanager
def _alone(table: Path) -> Iterator[None]:
    """Hold the lock of the tables: without it, of two runs that end together one would take the other's rows away."""
    while True:
        try:
            with case_lock(table):
                yield
                return
        except CaseBusyError:  # for as long as it takes to write the tables
            time.sleep(WAIT_SECONDS)


def _rows_of_others(table: Path, heading: bytes, ids: Collection[bytes]) -> Iterator[bytes]:
    """The rows of a table that are not about these cases; none where it is missing or has other columns."""
    if not table.is_file():
        return
    with table.open("rb") as rows:
        if rows.readline() == heading:
            yield from (row for row in rows if row.partition(b"\t")[0] not in ids)


def _line(cells: Cells) -> bytes:
    """Cells with tabs between; white space within one becomes a blank, a name that is no text keeps its bytes."""
    return ("\t".join(" ".join(str(cell).split()) for cell in cells) + "\n").encode(
        "utf-8", "surrogateescape"
    )
