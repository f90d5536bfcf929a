"""The cases of a cohort, listed at once and opened one by one."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuromend.cohort.results import CaseResult, find_results
from neuromend.errors import MissingInputError
from neuromend.findings import Finding
from neuromend.review.refusals import no_such
from neuromend.review.session import OpenMask, OpenResult, OpenScan, Session, findings_json
from neuromend.review.shelf import PICTURE, new_id
from neuromend.review.verdicts import Verdict, Word, as_table, read_verdicts, write_verdict


@dataclass(frozen=True, slots=True)
class Case:
    """A line of the list: ids and the paths of the result, a few hundred bytes."""

    id: str
    scan: str
    thumbnail: str | None
    result: CaseResult


class Cohort:
    """What ``neuromend batch`` or ``neuromend bids`` has written to a folder, and the verdicts on it.

    Args:
        folder: their output folder.
        session: where cases are opened.

    Raises:
        MissingInputError: IN-38, no such folder, or no result in it.
    """

    def __init__(self, folder: Path, session: Session) -> None:
        self.folder = folder.absolute()
        self._session = session
        self._lock = threading.Lock()
        self.cases: dict[str, Case] = {}
        self._of_scan: dict[str, Case] = {}
        for result in find_results(self.folder):
            picture = result.picture if result.picture and self._holds(result.picture) else None
            thumbnail = None if picture is None else session.shelf.put(picture, PICTURE)
            case = Case(new_id(), new_id(), thumbnail, result)
            self.cases[case.id] = self._of_scan[case.scan] = case
        if not self.cases:
            raise MissingInputError(
                "IN-38",
                "no result of neuromend is in this folder",
                why="the cases to review are found by the JSON sidecars of their fills",
                fix="give the output folder of `neuromend batch` or `neuromend bids`",
                path=self.folder,
            )
        self.verdicts = read_verdicts(self.folder)

    def as_json(self) -> dict[str, Any]:
        """The list of cases."""
        return {"cases": [self._line(case) for case in self.cases.values()]}

    def open_scan(self, id: str) -> OpenScan:
        """The scan of a case with its mask and its result, read now; the second time it is there.

        Raises:
            Refusal: WE-06, no scan of a case.
            NeuromendError: a file of the case cannot be read.
        """
        with self._lock:
            known = self._session.scans.get(id)
            if known is not None:
                return known
            if id not in self._of_scan:
                raise no_such("scan")
            return self._open(self._of_scan[id])

    def judge(self, id: str, word: Word | None, note: str) -> dict[str, Any]:
        """Store a verdict; returns the line of the case."""
        case = self.cases.get(id)
        if case is None:
            raise no_such("case")
        verdict = Verdict.now(case.result.id, word, note)
        with self._lock:
            write_verdict(self.folder, verdict)
            self.verdicts[verdict.case] = verdict
        return self._line(case)

    def table(self) -> str:
        """All verdicts, with tabs between the columns."""
        return as_table([case.result.id for case in self.cases.values()], self.verdicts)

    def _line(self, case: Case) -> dict[str, Any]:
        verdict = self.verdicts.get(case.result.id)
        told = None
        if verdict is not None:
            told = {"verdict": verdict.verdict, "note": verdict.note, "time": verdict.time}
        return {
            "id": case.id,
            "name": case.result.id,
            "flags": findings_json(case.result.flags),
            "volume_ml": case.result.volume_ml,
            "verdict": told,
            "thumbnail": case.thumbnail,
            "scan": case.scan,
        }

    def _open(self, case: Case) -> OpenScan:
        found = case.result
        if found.filled is None:
            raise MissingInputError(
                "IN-38",
                "the filled scan is not there any more",
                why="the record of the fill names it",
                fix="run the batch again: it fills what is missing",
                path=found.record,
            )
        session = self._session
        scan = session.add_scan(found.image or found.filled, id=case.scan, input_missing=found.image is None)
        mask = None
        if found.mask is not None and self._holds(found.mask):
            mask = OpenMask(new_id(), found.mask.name, found.mask, round(found.volume_ml, 4))
            session.shelf.put(found.mask, id=mask.id)
            scan.masks[mask.id] = mask
        files = {"filled": found.filled, "uncertainty": found.uncertainty, "mask": found.mask}
        files |= {f"sample-{number:02d}": path for number, path in enumerate(found.samples, 1)}
        outputs = {role: path for role, path in files.items() if path is not None and self._holds(path)}
        # Not read_sidecar: a BIDS dataset adds fields of its own. That this is a sidecar, find_results has seen.
        facts = json.loads(found.record.read_bytes())
        settings = facts["settings"]
        session.add_result(
            OpenResult(
                new_id(), scan.id, None if mask is None else mask.id, facts["model"]["name"],
                settings["samples"], settings["steps"], settings["seed"], None, outputs,
                tuple(Finding(f["code"], f["level"], f["message"]) for f in facts["findings"]), None,
                saved=[path.name for path in outputs.values()],
            )
        )  # fmt: skip
        return scan

    def _holds(self, path: Path) -> bool:
        """Whether a file that a record names really lies in the cohort, links followed."""
        return path.resolve().is_relative_to(self.folder.resolve())
