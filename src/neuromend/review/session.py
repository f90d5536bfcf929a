"""What is open: scans, the masks drawn on them and the fills made of them; files on the disk, facts in memory.

No voxels are kept here, so that an open session costs little however many scans it has seen.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuromend.data.masks import MaskOptions
from neuromend.data.volume import read_volume
from neuromend.findings import Finding
from neuromend.reading import ReadOptions, findings_of, load_pair
from neuromend.review.refusals import no_such
from neuromend.review.shelf import PICTURE, Shelf, new_id


@dataclass(slots=True)
class OpenMask:
    """A mask on a scan's grid."""

    id: str
    name: str
    path: Path
    volume_ml: float

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "volume_ml": self.volume_ml}


@dataclass(slots=True)
class OpenResult:
    """A fill.

    Attributes:
        outputs: its files on the disk, by the roles of ``neuromend.planning.OutputPlan``.
        files: the ids of those that the page may ask for.
        seconds: it took; None for a result that was there before.
        folder: where they are, if they are the session's own; None for a result that was there before.
        saved: the names under which they were saved.
    """

    id: str
    scan: str
    mask: str | None
    model: str
    samples: int
    steps: int | None
    seed: int
    seconds: float | None
    outputs: dict[str, Path]
    findings: tuple[Finding, ...]
    folder: Path | None
    saved: list[str] | None = None
    files: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What the page is told; the seed as text, because a browser's numbers lose digits above 2**53."""
        told = ("id", "scan", "mask", "model", "samples", "steps", "seconds", "files", "saved")
        return {name: getattr(self, name) for name in told} | {
            "seed": str(self.seed),
            "findings": findings_json(self.findings),
        }


@dataclass(slots=True)
class OpenScan:
    """A scan and what was made on it, in order of time.

    Attributes:
        given: a file of the user's; one that was dropped on the page is the session's own.
        input_missing: the scan of a case is not there any more, and its filled scan is shown instead.
    """

    id: str
    name: str
    path: Path
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    given: bool = True
    input_missing: bool = False
    findings: tuple[Finding, ...] = ()
    masks: dict[str, OpenMask] = field(default_factory=dict)
    results: dict[str, OpenResult] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "shape": list(self.shape),
            "spacing_mm": [round(size, 4) for size in self.spacing_mm],
            "input_missing": self.input_missing,
            "findings": findings_json(self.findings),
            "masks": [mask.as_json() for mask in self.masks.values()],
            "results": [result.as_json() for result in self.results.values()],
        }


class Session:
    """Everything that one start of the server holds; its methods may be called from any thread.

    Args:
        folder: of the session, removed with it.
        say: one line for the log; no names, no paths.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.folder = folder
        self.say = say
        self.lock = threading.RLock()
        self.shelf = Shelf(new_folder(folder, "sent"))
        self.scans: dict[str, OpenScan] = {}
        self._drawn = 0

    def add_scan(
        self, path: Path, *, id: str | None = None, given: bool = True, input_missing: bool = False
    ) -> OpenScan:
        """Open a scan, as ``neuromend fill`` reads it.

        Raises:
            NeuromendError: the reader refuses it.
        """
        volume = read_volume(path)
        scan = OpenScan(
            id or new_id(), path.name, path, volume.shape, volume.spacing_mm, given, input_missing,
            volume.findings,
        )  # fmt: skip
        with self.lock:
            self.shelf.put(path, id=scan.id)
            self.scans[scan.id] = scan
            self.say(f"scan {len(self.scans)} opened")
        return scan

    def add_mask(self, scan: OpenScan, path: Path, name: str) -> tuple[OpenMask, tuple[Finding, ...]]:
        """Open a mask on a scan, after all the checks of ``neuromend fill``.

        Raises:
            NeuromendError: the pair cannot be filled.
        """
        volume, lesion, _ = load_pair(scan.path, path, MaskOptions(), ReadOptions())
        findings = tuple(findings_of(volume, lesion, modality=None, trained=None))
        mask = OpenMask(new_id(), name, path, round(lesion.volume_ml, 4))
        with self.lock:
            self.shelf.put(path, id=mask.id)
            scan.masks[mask.id] = mask
        return mask, findings

    def name_for_mask(self, scan: OpenScan, suffix: str) -> Path:
        """A fresh file for a mask that was drawn; its name begins as the scan's does, as people name masks."""
        stem = scan.path.name.split(".")[0]
        with self.lock:
            self._drawn += 1
            return new_folder(self.folder, "masks") / f"{stem}_drawn-{self._drawn}{suffix}"

    def add_result(self, result: OpenResult) -> OpenResult:
        """List a fill with its scan, and give its files ids."""
        with self.lock:
            for role, path in result.outputs.items():
                if role == "picture":
                    result.files[role] = self.shelf.put(path, PICTURE)
                elif role not in ("report", "record") and not role.endswith("-header"):
                    result.files[role] = self.shelf.put(path)
            self.scan(result.scan).results[result.id] = result
        return result

    def remove_result(self, id: str) -> None:
        """Forget a fill; its files go too, if they are the session's own."""
        with self.lock:
            result = self.result(id)
            del self.scan(result.scan).results[id]
            for file in result.files.values():
                self.shelf.drop(file)
        if result.folder is not None:
            shutil.rmtree(result.folder, ignore_errors=True)

    def scan(self, id: str) -> OpenScan:
        """The scan with this id (Refusal WE-06 if there is none)."""
        found = self.scans.get(id)
        if found is None:
            raise no_such("scan")
        return found

    def mask(self, scan: str, id: str) -> OpenMask:
        """The mask with this id on that scan (Refusal WE-06 if there is none)."""
        found = self.scan(scan).masks.get(id)
        if found is None:
            raise no_such("mask of this scan")
        return found

    def result(self, id: str) -> OpenResult:
        """The fill with this id (Refusal WE-06 if there is none)."""
        with self.lock:
            for scan in self.scans.values():
                if id in scan.results:
                    return scan.results[id]
        raise no_such("result")


def new_folder(parent: Path, name: str) -> Path:
    """A folder below ``parent``, made if needed."""
    folder = parent / name
    folder.mkdir(exist_ok=True)
    return folder


def findings_json(findings: tuple[Finding, ...]) -> list[dict[str, str]]:
    """Findings as the page reads them."""
    return [{"code": f.code, "level": f.level, "message": f.message} for f in findings]
