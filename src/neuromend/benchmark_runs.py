"""What a benchmark has done so far, on disk: a line a run, and the voxels that the run filled."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.benchmark_cases import LoadedCase
from neuromend.data.atomic import storage_error, write_atomically
from neuromend.errors import InputError

Row = dict[str, Any]

RUNS, FILLS = "runs.jsonl", "fills"


def read_runs(path: Path) -> dict[str, Row]:
    """Digest -> row, of all runs in a file that may not be there yet; of two with one digest, the later.

    A last line that was cut off (a killed run, a full disk) is left out.

    Raises:
        InputError: BM-09, this is no record of runs.
    """
    if not path.exists():
        return {}
    rows: dict[str, Row] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            rows[row["digest"]] = {name: _number(value) for name, value in row.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                "BM-09",
                f"line {number} is not a run of neuromend benchmark",
                why="finished runs are kept, and this file tells which they are",
                fix="remove that line, or give --out another folder",
                path=path,
            ) from error
    return rows


def append_run(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line in one write, so that it is there whole or not at all; not-finite numbers as "nan", "inf".

    Raises:
        StorageError, OutputPermissionError: RT-, it cannot be written.
    """
    plain = {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
    line = json.dumps(plain, allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)  # the rest is what a killed run left
            os.write(file.fileno(), line)
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(path, error) from error


def fill_path(out: Path, method: str, case_id: str) -> Path:
    """Where the filled voxels of a run stand: float32, in the order of the mask's True voxels."""
    return out / FILLS / re.sub(r"[^A-Za-z0-9._-]+", "-", method).strip("-") / f"{case_id}.npy"


def save_fill(target: Path, values: NDArray[np.float32]) -> None:
    """Write the filled voxels; errors as ``append_run``."""
    stream = io.BytesIO()
    np.save(stream, values)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(target, error) from error
    write_atomically(target, stream.getvalue())


def filled_image(out: Path, row: Mapping[str, Any], loaded: LoadedCase) -> NDArray[np.float32]:
    """The filled scan (x, y, z) of a run that is done."""
    filled = loaded.healthy.copy()
    filled[loaded.mask] = np.load(fill_path(out, row["method"], row["id"]))
    return filled


def _number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value
