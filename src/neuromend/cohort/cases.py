"""What is filled, how, and what came of it: the three records that travel between the driver and the workers."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from neuromend.data.volume import MAX_VOXELS
from neuromend.filling import mask_options, require_counts
from neuromend.findings import Finding
from neuromend.models import DEFAULT_MODEL, resolve_model

Status = Literal["done", "kept", "redone", "failed"]


@dataclass(frozen=True, slots=True)
class Case:
    """One scan with its lesion mask.

    Attributes:
        id: unique in a run; the case's seed is made from it.
        image, mask: the files that are read, absolute.
        out: the filled file, absolute; the other outputs stand beside it.
    """

    id: str
    image: Path
    mask: Path
    out: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """The arguments of :func:`neuromend.fill` that are equal for all cases; their meaning and defaults are its own.

    Attributes:
        seed: of the run; each case gets its own (:meth:`seed_of`).
        threads: CPU threads of each fill; None: what the engine gives each worker.
        command: the command line, for the records.
    """

    model: str = DEFAULT_MODEL
    samples: int = 0
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    labels: tuple[int, ...] | Literal["all"] | None = None
    threshold: float | None = None
    resample_mask: bool = False
    invert_mask: bool = False
    allow_empty: bool = False
    dilate_mm: float = 0.0
    min_size_ml: float = 0.0
    force_pair: bool = False
    modality: str | None = None
    volume: int | None = None
    assume_orientation: str | None = None
    max_voxels: int = MAX_VOXELS
    fallback: bool = True
    command: tuple[str, ...] | None = None

    def check(self) -> None:
        """Refuse at once what would be refused case by case: contradictions, and a model that is not there.

        Raises:
            UsageError, CheckpointError: as ``fill`` raises them.
        """
        require_counts(self.samples, self.steps)
        mask_options(
            self.labels, self.threshold, self.resample_mask, self.invert_mask, self.allow_empty,
            self.dilate_mm, self.force_pair, self.min_size_ml,
        )  # fmt: skip
        resolve_model(self.model)

    def seed_of(self, case: Case) -> int:
        """The seed of a case, 0 to 2**63 - 1, from the run's seed and the case's id alone.

        So neither the order of the cases nor which of them are run changes a result.
        """
        digest = hashlib.sha256(f"{self.seed}\n{case.id}".encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def arguments(self, case: Case) -> dict[str, Any]:
        """The keyword arguments of ``fill`` for a case."""
        return {**asdict(self), "seed": self.seed_of(case)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case.

    Attributes:
        status: "done"; "kept", a finished result of the same run was there; "redone", what was there was not
            that; "failed".
        reason: why it was redone; empty otherwise.
        code, message, fix, exit_status: of the error; empty and 0 if all went well.
        seconds: wall time in the worker.
        peak_bytes: largest memory of the worker's process so far; 0 where the system does not tell.
        worker: host and process id.
        volume_ml: of the mask really used; None if the case failed.
        flags: the warnings among the findings.
        record: the sidecar; None if the case failed.
        model: name of the model of the record; image_sha256, mask_sha256, filled_sha256: of the files.
    """

    id: str
    status: Status
    reason: str = ""
    code: str = ""
    message: str = ""
    fix: str = ""
    exit_status: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    worker: str = ""
    volume_ml: float | None = None
    flags: tuple[Finding, ...] = ()
    record: Path | None = None
    model: str = ""
    image_sha256: str = ""
    mask_sha256: str = ""
    filled_sha256: str = ""
