"""What it means that two cases look alike: a leak, a duplicate, or perhaps brothers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuromend.corpus import leaks
from neuromend.corpus.cache import CaseRow, load_arrays
from neuromend.data.atomic import write_atomically
from neuromend.errors import InputError
from neuromend.findings import Finding

PAIRS_FILE = "alike.tsv"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two cases that look alike, the more alike the nearer ``correlation`` is to 1."""

    first: CaseRow
    second: CaseRow
    correlation: float
    mirrored: bool

    @property
    def same_file(self) -> bool:
        """Whether the two scans are the same file, byte for byte."""
        return self.first.sha256 == self.second.sha256

    @property
    def same_scan(self) -> bool:
        """Whether they show one brain: copies of a scan, or two scans of a person."""
        return self.same_file or self.correlation >= leaks.SAME_SCAN

    @property
    def across(self) -> bool:
        """Whether they are on two sides of the split."""
        return self.first.split != self.second.split

    def describe(self) -> str:
        """``a (train) = b (dev), correlation 0.998``."""
        how = "the same file" if self.same_file else f"correlation {self.correlation:.3f}"
        how += ", mirrored" if self.mirrored else ""
        return f"{self.first.id} ({self.first.split}) and {self.second.id} ({self.second.split}): {how}"


def alike_pairs(rows: Sequence[CaseRow], folder: Path) -> list[Pair]:
    """All pairs of cases that show one brain or nearly so, most alike first.

    Pairs of one subject are passed over: they are on one side by their subject.
    """
    brains = [_brain(row, folder) for row in rows]
    if not brains:
        return []
    descriptors = np.stack([leaks.describe(*brain) for brain in brains])
    pairs = []
    for twins in leaks.find_twins(descriptors, leaks.CANDIDATE):
        first, second = rows[twins.first], rows[twins.second]
        if first.subject == second.subject or first.kind != second.kind:
            continue
        correlation = twins.correlation
        if correlation < leaks.SAME_SCAN:
            moved = brains[twins.second]
            turned = (moved[0][::-1], moved[1][::-1]) if twins.mirrored else moved
            correlation = max(correlation, leaks.aligned_correlation(brains[twins.first], turned))
        if correlation >= leaks.SAME_PERSON:
            pairs.append(Pair(first, second, correlation, twins.mirrored))
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.first.id, pair.second.id))


def leak_error(pairs: Sequence[Pair], folder: Path) -> InputError | None:
    """The refusal, if a scan is on two sides: TR-10 for one file, TR-08 for copies of it."""
    leaking = [pair for pair in pairs if pair.same_scan and pair.across]
    if not leaking:
        return None
    listed = "; ".join(pair.describe() for pair in leaking[:5])
    more = f" and {len(leaking) - 5} more" if len(leaking) > 5 else ""
    why = "scores on a brain that the network has seen in training mean nothing"
    fix = (
        "give both the same subject in a table of cases, or their subjects the same split: --subjects SPLITS.tsv"
        " (docs/how-to/prepare.md); or remove one of them"
    )
    path = folder / PAIRS_FILE
    if any(pair.same_file for pair in leaking):
        return InputError(
            "TR-10", f"the same scan is in two splits: {listed}{more}", why=why, fix=fix, path=path
        )
    return InputError(
        "TR-08", f"the same brain is in two splits: {listed}{more}", why=why, fix=fix, path=path
    )


def twin_findings(pairs: Sequence[Pair]) -> list[Finding]:
    """Duplicates inside a split, and pairs on two sides that are nearly alike."""
    findings = [
        Finding("TR-09", "warning", f"one brain under two names: {pair.describe()}")
        for pair in pairs
        if pair.same_scan
    ]
    for pair in pairs:
        if not pair.same_scan and pair.across:
            message = f"very alike and on two sides; are they one person? {pair.describe()}"
            findings.append(Finding("TR-08", "warning", message))
    return findings


def write_pairs(folder: Path, pairs: Sequence[Pair]) -> None:
    """Write ``alike.tsv``: every pair, also those that are allowed."""
    lines = ["first\tfirst_split\tsecond\tsecond_split\tcorrelation\tmirrored\tsame_file"]
    for p in pairs:
        cells = (p.first.id, p.first.split, p.second.id, p.second.split, f"{p.correlation:.4f}")
        lines.append("\t".join((*cells, str(p.mirrored).lower(), str(p.same_file).lower())))
    write_atomically(folder / PAIRS_FILE, ("\n".join(lines) + "\n").encode())


def _brain(row: CaseRow, folder: Path) -> leaks.Brain:
    stored = load_arrays(folder / row.file, row).descriptor
    if stored is None:
        nothing = np.zeros(leaks.GRID_SHAPE, np.float32)
        return nothing, nothing
    mean, share = np.asarray(stored, np.float32)
    return mean, share
