"""What a run tells while it goes on: ``log.jsonl``, TensorBoard, CSV."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from neuromend.data.atomic import storage_error

LOG, TENSORBOARD, TABLE = "log.jsonl", "tensorboard", "scalars.csv"


class Tracker(Protocol):
    """Someone who is told numbers."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name, at a step."""
        ...

    def close(self) -> None:
        """No more is coming."""
        ...


class TensorBoard:
    """Event files in ``RUN/tensorboard``; what a killed run wrote after its checkpoint is hidden from view."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(run / TENSORBOARD), purge_step=step + 1 if step else None)

    def write(self, step: int, values: dict[str, float]) -> None:
        """See :class:`Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See :class:`Tracker`."""
        self._writer.close()


class Csv:
    """``RUN/scalars.csv`` with the columns step, name, value: opens in any spreadsheet."""

    def __init__(self, run: Path, step: int) -> None:
        path = run / TABLE
        lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() else []
        kept = [line for line in lines if int(line.partition(",")[0]) <= step]
        path.write_text("".join(["step,name,value\n", *kept]))
        self._file = path.open("a", buffering=1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """See :class:`Tracker`."""
        self._file.writelines(f"{step},{name},{value!r}\n" for name, value in values.items())

    def close(self) -> None:
        """See :class:`Tracker`."""
        self._file.close()


TRACKERS: dict[str, Callable[[Path, int], Tracker]] = {"tensorboard": TensorBoard, "csv": Csv}


class Journal:
    """One JSON object a line, and the numbers in it to every tracker.

    Args:
        run: the run's folder.
        trackers: keys of ``TRACKERS``.
        step, log_bytes: where the run goes on; later lines of a killed run are cut off.

    Attributes:
        log_bytes: length of the log.
    """

    def __init__(self, run: Path, trackers: tuple[str, ...], *, step: int, log_bytes: int) -> None:
        try:
            self._file = (run / LOG).open("ab")
            self._file.truncate(min(log_bytes, self._file.tell()))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise storage_error(run / LOG, error) from error
        self.log_bytes = self._file.tell()
        self._trackers = [TRACKERS[name](run, step) for name in trackers]

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it has a ``step``. Numbers that are not finite, which JSON does not know, become null."""
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        try:
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise storage_error(Path(self._file.name), error) from error
        self.log_bytes = self._file.tell()
        numbers = {
            name: float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        for tracker in self._trackers:
            tracker.write(int(row["step"]), numbers)

    def close(self) -> None:
        """Flush and close everything."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


class NoJournal(Journal):
    """For the other processes of a run: only the first one writes."""

    def __init__(self) -> None:
        self.log_bytes = 0

    def write(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
