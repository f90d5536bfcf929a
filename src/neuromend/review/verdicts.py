"""Verdicts on the cases of a cohort: one small JSON file a case, beside the results, and a table of all.

A file a case means that two people can review two cases at the same moment, and that nothing is lost by a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from neuromend.data.atomic import write_atomically

Word = Literal["accept", "reject", "needs-edit"]

FOLDER = "review"
MAX_BYTES = 1 << 16
COLUMNS = ("case", "verdict", "note", "time")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person decided about a case, and when (UTC, ISO 8601); None takes a decision back."""

    case: str
    verdict: Word | None
    note: str
    time: str

    @classmethod
    def now(cls, case: str, verdict: Word | None, note: str) -> Verdict:
        """Decided at this moment."""
        return cls(case, verdict, note, datetime.now(UTC).isoformat(timespec="seconds"))


def read_verdicts(cohort: Path) -> dict[str, Verdict]:
    """Case -> its verdict; files that are none are passed over."""
    found = {}
    for path in sorted((cohort / FOLDER).glob("*.json")):
        try:
            if path.stat().st_size > MAX_BYTES:
                continue
            verdict = Verdict(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue
        if verdict.verdict in (None, *get_args(Word)) and all(
            isinstance(text, str) for text in (verdict.case, verdict.note, verdict.time)
        ):
            found[verdict.case] = verdict
    return found


def write_verdict(cohort: Path, verdict: Verdict) -> Path:
    """Write the file of a case, complete or not at all.

    Raises:
        OutputError, OutputPermissionError, StorageError: an older verdict is untouched.
    """
    path = verdict_file(cohort, verdict.case)
    with contextlib.suppress(OSError):  # a folder that cannot be written to is told by the writing below
        path.parent.mkdir(exist_ok=True)
    write_atomically(path, (json.dumps(asdict(verdict), indent=2, ensure_ascii=False) + "\n").encode())
    return path


def verdict_file(cohort: Path, case: str) -> Path:
    """``COHORT/review/sub-01.json``; an id that is no plain name is made one, told apart by a digest."""
    plain = re.sub(r"[^A-Za-z0-9_+.-]", "_", case)[:100].lstrip(".")
    if plain != case:
        plain = f"{plain}-{hashlib.sha256(case.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
    return cohort / FOLDER / f"{plain}.json"


def as_table(cases: list[str], verdicts: dict[str, Verdict]) -> str:
    """A row a case with tabs between the columns, cases without a verdict too; a note becomes one line."""
    lines = ["\t".join(COLUMNS)]
    for case in cases:
        verdict = verdicts.get(case)
        cells = ("n/a", "", "n/a") if verdict is None else (verdict.verdict, verdict.note, verdict.time)
        lines.append("\t".join(" ".join((cell or "n/a").split()) for cell in (case, *cells)))
    return "\n".join(lines) + "\n"
