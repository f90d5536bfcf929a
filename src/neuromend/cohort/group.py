"""All results of a folder in one table and on one page: what a person looks at after a cohort was filled.

Results are read one at a time and put down on the disk at once; what stays in memory of a case are its id and the
place of its row, some hundred bytes.
"""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from neuromend.cohort.bids_names import parse_name
from neuromend.cohort.bids_outputs import DESC, sidecar_of_image
from neuromend.cohort.regions import Interval, find_segmentations, region_intervals
from neuromend.cohort.results import CaseResult, find_results
from neuromend.cohort.streams import written_whole
from neuromend.cohort.tables import FAILURES_TABLE
from neuromend.errors import MissingInputError, NeuromendError
from neuromend.provenance import read_sidecar

GROUP_TABLE = f"group_{DESC}.tsv"

SEAM_LIMIT = 2.0
"""Above it a seam is likely to be visible (neuromend.report.statistics)."""

INTENSITY_LIMIT = 2.0
"""Standard deviations of the tissue around by which the mean of a fill may lie off before it is worth a look."""

NOTHING = "n/a"
"""An empty cell, as BIDS writes it."""

COLUMNS = (
    "id", "participant_id", "session_id", "status", "flags", "volume_ml", "lesions", "seam", "intensity_z",
    "clipped_voxels", "model", "method", "samples", "steps", "seed", "seconds", "device", "neuromend", "created",
    "record",
)  # fmt: skip

Extra = Callable[[CaseResult, int], Mapping[str, Interval]]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A case in the table and on the page.

    Attributes:
        status: "done", "failed" (the last run) or "missing" (neither result nor failure).
        flags: (code, sentence) of each warning, seams and intensities out of the ordinary included.
        cells: the other columns of the table.
        regions: volumes by region: mean, low, high.
        picture: its PNG; report: relative to the folder of the results; empty where there is none.
    """

    id: str
    status: str
    flags: list[list[str]] = field(default_factory=list)
    cells: dict[str, Any] = field(default_factory=dict)
    regions: dict[str, list[float | None]] = field(default_factory=dict)
    picture: str = ""
    report: str = ""

    @property
    def rank(self) -> tuple[int, int, str]:
        """Doubtful cases first: failed, missing, flagged (the more flags the earlier), then the others by id."""
        order = {"failed": 0, "missing": 1}.get(self.status, 2 if self.flags else 3)
        return order, -len(self.flags), self.id


class Spool:
    """Rows on the disk, and where each begins; read back in the order of their rank as often as wanted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: list[tuple[tuple[int, int, str], int]] = []
        self.regions: dict[str, None] = {}

    def add(self, row: GroupRow) -> None:
        """Put down a row."""
        self._places.append((row.rank, self._file.seek(0, os.SEEK_END)))
        self._file.write(json.dumps(asdict(row)).encode() + b"\n")
        self.regions.update(dict.fromkeys(row.regions))

    def __len__(self) -> int:
        return len(self._places)

    def count(self, *ranks: int) -> int:
        """How many rows have one of these first numbers of the rank."""
        return sum(rank[0] in ranks for rank, _ in self._places)

    def ranked(self) -> Iterator[GroupRow]:
        """The rows, doubtful cases first."""
        return self._read(sorted(self._places))

    def by_id(self) -> Iterator[GroupRow]:
        """The rows by id."""
        return self._read(sorted(self._places, key=lambda place: place[0][2]))

    def _read(self, places: Iterable[tuple[Any, int]]) -> Iterator[GroupRow]:
        for _, place in places:
            self._file.seek(place)
            yield GroupRow(**json.loads(self._file.readline()))


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """What a group level found: cases in all, of them failed or missing, and flagged; the files written."""

    cases: int
    failed: int
    flagged: int
    table: Path
    page: Path


def write_group(
    folder: Path,
    *,
    expected: Iterable[str] = (),
    segmentations: str | None = None,
    names: Mapping[int, str] | None = None,
    extra: Extra | None = None,
    on_case: Callable[[int], None] = lambda count: None,
) -> GroupSummary:
    """Write ``group_inpainted.tsv`` and ``index.html`` about all results below a folder.

    Volumes that cannot be told of a case (no segmentation of some of its samples, no brain mask) become its flag.

    Args:
        folder: outputs of ``neuromend batch`` or ``bids`` (or of several runs of ``fill``).
        expected: ids that should be there; those that are not are listed as missing.
        segmentations: pattern of the user's segmentations (:mod:`neuromend.cohort.regions`).
        names: of their labels.
        extra: other volumes of a case, by region; called with the result and the number of its samples.
        on_case: called with the number of cases read so far.

    Raises:
        MissingInputError: IN-38, no such folder; BD-09, no result in it.
        OutputError, OutputPermissionError, StorageError: the files cannot be written.
    """
    from neuromend.cohort.index_page import INDEX_PAGE, write_page

    folder = folder.absolute()
    with tempfile.TemporaryFile() as file:
        spool = Spool(file)
        failures = _failures(folder)
        seen: set[str] = set()
        for result in find_results(folder):
            row = _row(result, folder, failures.pop(case_id(result), None))
            try:
                volumes = _regions(result, row, segmentations, names, extra)
                row.regions.update({name: [v.mean, v.low, v.high] for name, v in volumes.items()})
            except NeuromendError as error:
                if error.code == "TI-01":  # what is not installed lacks for every case
                    raise
                row.flags.append([error.code, error.what])
            seen.add(row.id)
            spool.add(row)
            on_case(len(spool))
        for id_, failure in failures.items():
            spool.add(GroupRow(id_, "failed", [failure], _names_of(id_)))
            seen.add(id_)
        for id_ in expected:
            if id_ not in seen:
                flag = ["", "neither a result nor a failure of it is there: it was not run"]
                spool.add(GroupRow(id_, "missing", [flag], _names_of(id_)))
        if not len(spool):
            raise MissingInputError(
                "BD-09",
                "no result in this folder: expected the JSON files of filled scans",
                why="the group level is about cases that were filled",
                fix="run neuromend batch, or the participant level of neuromend bids, first",
                path=folder,
            )
        table, page = folder / GROUP_TABLE, folder / INDEX_PAGE
        write_table(spool, table)
        write_page(spool, page)
        return GroupSummary(len(spool), spool.count(0, 1), spool.count(2), table, page)


def case_id(result: CaseResult) -> str:
    """The id of a result: of the cohort's table, or for a BIDS derivative its entities."""
    return re.sub(rf"_desc-{DESC}_[A-Za-z0-9]+$", "", result.id)


def write_table(spool: Spool, path: Path) -> None:
    """The table with a row a case, by id; ``NOTHING`` where there is no value."""
    regions = sorted(spool.regions)
    heading = [*COLUMNS, *(f"{name}{end}" for name in regions for end in ("_ml", "_ml_low", "_ml_high"))]
    with written_whole(path) as file:
        file.write("\t".join(heading) + "\n")
        for row in spool.by_id():
            cells = {"id": row.id, "status": row.status, **row.cells}
            cells["flags"] = ",".join(dict.fromkeys(code or "missing" for code, _ in row.flags))
            volumes = [value for name in regions for value in row.regions.get(name, [None] * 3)]
            values = [*(cells.get(column) for column in COLUMNS), *volumes]
            file.write("\t".join(_cell(value) for value in values) + "\n")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return NOTHING
    return f"{value:.4f}" if isinstance(value, float) else " ".join(str(value).split())


def _failures(folder: Path) -> dict[str, list[str]]:
    """Id -> (code, message) of the cases that failed in the last run."""
    path = folder / FAILURES_TABLE
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["id"]: [row.get("code") or "", row.get("message") or ""] for row in rows if row.get("id")}


def _row(result: CaseResult, folder: Path, failure: list[str] | None) -> GroupRow:
    """The row of a result; a failure of the last run goes before what an earlier one left."""
    record = read_sidecar(result.record)
    began, ended = (datetime.fromisoformat(text) for text in (record.run.started, record.run.ended))
    lesions = _lesions(result)
    seams = [lesion["Seam"] for lesion in lesions if lesion.get("Seam") is not None]
    shifts = [lesion["IntensityZ"] for lesion in lesions if lesion.get("IntensityZ") is not None]
    seam, shift = max(seams, default=None), max(shifts, key=abs, default=None)
    flags = [[flag.code, flag.message] for flag in result.flags]
    if seam is not None and seam > SEAM_LIMIT:
        flags.append(["seam", f"the step across the border of a fill is {seam:.1f} times the texture around"])
    if shift is not None and abs(shift) > INTENSITY_LIMIT:
        where = "brighter" if shift > 0 else "darker"
        flags.append(
            ["intensity", f"a fill is {abs(shift):.1f} standard deviations {where} than the tissue around"]
        )
    if failure is not None:
        flags.insert(0, [failure[0], f"{failure[1]} (what stands here is of an earlier run)"])
    cells = {
        **_names_of(case_id(result)),
        "volume_ml": result.volume_ml,
        "lesions": len(lesions) or None,
        "seam": seam,
        "intensity_z": shift,
        "clipped_voxels": record.result.clipped_voxels,
        "model": record.model.name,
        "method": record.model.method,
        "samples": record.settings.samples,
        "steps": record.settings.steps,
        "seed": record.settings.seed,
        "seconds": (ended - began).total_seconds(),
        "device": record.run.device,
        "neuromend": record.run.neuromend,
        "created": record.run.ended,
        "record": _relative(result.record, folder),
    }
    files = {output.role: result.record.parent / output.file for output in record.outputs}
    report = files.get("report")
    return GroupRow(
        case_id(result),
        "done" if failure is None else "failed",
        flags,
        cells,
        picture="" if result.picture is None else str(result.picture),
        report=_relative(report, folder) if report is not None and report.is_file() else "",
    )


def _lesions(result: CaseResult) -> list[dict[str, Any]]:
    """What the sidecar of the mask tells about each lesion; nothing outside of BIDS derivatives."""
    if result.mask is None:
        return []
    try:
        facts = json.loads(sidecar_of_image(result.mask).read_bytes())
    except (OSError, ValueError):
        return []
    lesions = facts.get("Lesions") if isinstance(facts, dict) else None
    return [lesion for lesion in lesions if isinstance(lesion, dict)] if isinstance(lesions, list) else []


def _regions(
    result: CaseResult,
    row: GroupRow,
    segmentations: str | None,
    names: Mapping[int, str] | None,
    extra: Extra | None,
) -> dict[str, Interval]:
    samples = int(row.cells["samples"])
    found = {} if extra is None else dict(extra(result, samples))
    if segmentations is not None:
        paths = find_segmentations(segmentations, row.id, samples)
        if paths:
            found |= region_intervals(paths, names)
        else:
            row.flags.append(["BD-08", "no segmentation of this case was found"])
    return found


def _names_of(id_: str) -> dict[str, Any]:
    """Participant and session, as BIDS writes them, of an id that names them."""
    name = parse_name(f"{id_}_T1w.nii")
    entities = name.entities if name is not None else {}
    return {f"{word}_id": f"{key}-{entities[key]}" for word, key in (("participant", "sub"), ("session", "ses"))
            if key in entities}  # fmt: skip


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
