"""Every finished result below a folder, read back from the sidecars: what review pages and tables are made of."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from neuromend.errors import MissingInputError
from neuromend.findings import Finding
from neuromend.provenance import MAX_SIDECAR_BYTES, Sidecar

COHORT_TABLE = "cohort.tsv"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """A filled scan and what belongs to it; paths are absolute, and None where a file is not there (any more).

    Attributes:
        id: of the case in cohort.tsv; without that table, the record's name without ``.json`` and ``_inpainted``.
        record: the JSON sidecar.
        image: the scan that was filled, if the cohort's table tells where it is or it stands beside the record.
        mask: what was filled; filled: the result; uncertainty: standard deviation over the samples.
        samples: the single samples, in their order.
        picture: the PNG.
        volume_ml: of the mask.
        flags: the findings that are warnings.
        created: when the run ended.
    """

    id: str
    record: Path
    image: Path | None
    mask: Path | None
    filled: Path | None
    uncertainty: Path | None
    samples: tuple[Path, ...]
    picture: Path | None
    volume_ml: float
    flags: tuple[Finding, ...]
    created: datetime


def find_results(folder: Path | str) -> Iterator[CaseResult]:
    """Every result below a folder, of ``neuromend fill``, ``batch`` or ``bids``, ordered by path, one at a time.

    Hidden folders and JSON files that are no sidecars of ours are passed over.

    Raises:
        MissingInputError: IN-38, no such folder.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise MissingInputError(
            "IN-38",
            "no such folder",
            why="results are looked for in it",
            fix=f"check the path: ls '{folder.parent}'",
            path=folder,
        )
    return _walk(folder)


def _walk(folder: Path) -> Iterator[CaseResult]:
    known = _listed(folder / COHORT_TABLE)
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.endswith(".json") or name.startswith("."):
                continue
            record = Path(place, name)
            sidecar = _sidecar(record)
            if sidecar is not None:
                listed = known.get(record.relative_to(folder).as_posix(), {})
                yield _result(record, sidecar, listed, folder)


def _listed(table: Path) -> dict[str, dict[str, str]]:
    """Record (as written in cohort.tsv) -> id and image of the case."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {
            row["record"]: {"id": row["id"], "image": row["image"]}
            for row in rows
            if row.get("record") and row.get("image") is not None
        }


def _sidecar(path: Path) -> Sidecar | None:
    """The sidecar, fields that others added left out; None for another kind of JSON file."""
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            return None
        content: Any = json.loads(path.read_bytes())
        if not isinstance(content, dict) or "outputs" not in content or "settings" not in content:
            return None
        ours = {name: content[name] for name in Sidecar.model_fields if name in content}
        return Sidecar.model_validate_json(json.dumps(ours))
    except (OSError, ValueError, ValidationError):
        return None


def _result(record: Path, sidecar: Sidecar, listed: dict[str, str], folder: Path) -> CaseResult:
    files = {output.role: Path(os.path.normpath(record.parent / output.file)) for output in sidecar.outputs}
    there = {role: path for role, path in files.items() if path.is_file()}
    samples = sorted(role for role in there if role.startswith("sample-") and role.split("-")[-1].isdigit())
    beside = None if sidecar.image.file is None else record.with_name(sidecar.image.file)
    named = folder / listed["image"] if listed.get("image") else None
    found = [
        path for path in (named, beside)
        if path is not None and path.name == sidecar.image.file and path.is_file()
    ]  # fmt: skip
    return CaseResult(
        id=listed.get("id") or record.stem.removesuffix("_inpainted"),
        record=record,
        image=Path(os.path.normpath(found[0])) if found else None,
        mask=there.get("mask"),
        filled=there.get("filled"),
        uncertainty=there.get("uncertainty"),
        samples=tuple(there[role] for role in samples),
        picture=there.get("picture"),
        volume_ml=sidecar.mask.used_volume_ml,
        flags=tuple(Finding(f.code, f.level, f.message) for f in sidecar.findings if f.level == "warning"),
        created=datetime.fromisoformat(sidecar.run.ended),
    )
