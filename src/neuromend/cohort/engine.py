"""Fill many cases on a Dask cluster: a few in flight at a time, every outcome written down as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from neuromend.cohort.cases import Case, Outcome, Settings
from neuromend.cohort.clusters import EngineOptions
from neuromend.filling import FillResult

Finish = Callable[[Case, FillResult], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    Attributes:
        done, kept, redone, failed: number of cases.
        not_begun: cases that ``fail_fast`` left; None where their number is not known.
        cohort, failures: the tables.
    """

    done: int
    kept: int
    redone: int
    failed: int
    not_begun: int | None
    cohort: Path
    failures: Path
