"""What was prepared, for people: prepare.json with every number and prepare.md with those that matter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuromend.corpus.cache import SPLITS, CaseRow
from neuromend.corpus.layouts import Layout
from neuromend.corpus.preparing import Outcome
from neuromend.corpus.twins import Pair
from neuromend.data.atomic import OutputSet
from neuromend.provenance import version_string


@dataclass(frozen=True)
class Summary:
    """What a preparation found and made.

    Attributes:
        digest: of the cache. version: of neuromend. config: the settings.
        splits: for each split the number of scans, label maps, subjects, lesions, stored masks and tissue maps.
        made, kept, refused, removed: how many cases were made now, kept from before, put into quarantine, and
            removed because they are in the data set no more.
        without_image: cases that have no scan with its true tissue.
        spacing_mm, shape: smallest, median and largest along each axis.
        megabytes: size of the cache. seconds: how long it took.
        quarantine: id, file, code and message of each bad case.
        codes: how many cases have which finding.
        alike: pairs of cases that look alike.
    """

    digest: str
    version: str
    config: Mapping[str, Any]
    splits: Mapping[str, Mapping[str, int]]
    made: int
    kept: int
    refused: int
    removed: int
    without_image: tuple[str, ...]
    spacing_mm: Mapping[str, list[float]]
    shape: Mapping[str, list[float]]
    megabytes: float
    seconds: float
    quarantine: tuple[Mapping[str, str], ...]
    codes: Mapping[str, int]
    alike: tuple[str, ...]

    def lines(self) -> list[str]:
        """The same in a few lines for the terminal."""
        each = [
            f"{name}: {n['scans']} scans of {n['subjects']} subjects"
            + (f", {n['labels']} label maps" if n["labels"] else "")
            for name, n in self.splits.items()
        ]
        work = f"{self.made} made, {self.kept} kept from before, {self.refused} in quarantine"
        work += f", {self.removed} removed (no longer in the data set)" if self.removed else ""
        if self.without_image:
            work += f", {len(self.without_image)} without a t1n"
        return [*each, work, f"{self.megabytes:,.0f} MB in {self.seconds:.0f} s"]


def summarise(
    layout: Layout,
    rows: Sequence[CaseRow],
    outcomes: Sequence[Outcome],
    pairs: Sequence[Pair],
    *,
    digest: str,
    config: Mapping[str, Any],
    seconds: float,
    removed: int,
) -> Summary:
    """Count everything."""
    refused = [outcome.refused for outcome in outcomes if outcome.refused is not None]
    kept = sum(outcome.kept for outcome in outcomes)
    return Summary(
        digest=digest,
        version=version_string(),
        config=config,
        splits={split: _counts([row for row in rows if row.split == split]) for split in SPLITS},
        made=len(rows) - kept,
        kept=kept,
        refused=len(refused),
        removed=removed,
        without_image=layout.without_image,
        spacing_mm=_range([row.spacing_mm for row in rows]),
        shape=_range([row.shape for row in rows]),
        megabytes=round(sum(row.bytes for row in rows) / 1e6, 1),
        seconds=round(seconds, 1),
        quarantine=tuple(asdict(each) for each in refused),
        codes=dict(sorted(Counter(f.code for o in outcomes for f in set(o.findings)).items())),
        alike=tuple(pair.describe() for pair in pairs),
    )


def write_summary(folder: Path, summary: Summary) -> None:
    """Write prepare.json and prepare.md."""
    with OutputSet() as outputs:
        outputs.add(folder / "prepare.md", _page(summary).encode())
        outputs.add(folder / "prepare.json", json.dumps(asdict(summary), indent=1, sort_keys=True).encode())
        outputs.publish()


def _counts(rows: Sequence[CaseRow]) -> dict[str, int]:
    return {
        "scans": sum(row.kind == "scan" for row in rows),
        "labels": sum(row.kind == "labels" for row in rows),
        "subjects": len({row.subject for row in rows if row.kind == "scan"}),
        "lesions": sum(row.has_lesion for row in rows),
        "masks": sum(len(row.masks) for row in rows),
        "tissues": sum(row.has_tissue for row in rows),
    }


def _range(triples: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    table = np.array(triples, np.float64)
    values = (table.min(axis=0), np.median(table, axis=0), table.max(axis=0))
    names = ("smallest", "median", "largest")
    return {name: [round(float(n), 3) for n in row] for name, row in zip(names, values, strict=True)}


def _page(summary: Summary) -> str:
    """The page in Markdown."""
    kinds = ("scans", "subjects", "labels", "lesions", "masks", "tissues")
    lines = [
        "# Prepared training data",
        "",
        f"neuromend {summary.version}, {summary.config['layout']} layout, digest `{summary.digest}`.",
        "",
        *[f"{line}  " for line in summary.lines()[-2:]],
        "",
        f"| split | {' | '.join(kinds)} |",
        f"|---|{'---|' * len(kinds)}",
        *[
            f"| {split} | {' | '.join(str(n[kind]) for kind in kinds)} |"
            for split, n in summary.splits.items()
        ],
        "",
        "| | smallest | median | largest |",
        "|---|---|---|---|",
        f"| voxels | {' | '.join(_triple(summary.shape[name]) for name in summary.shape)} |",
        f"| voxel size, mm | {' | '.join(_triple(summary.spacing_mm[name]) for name in summary.spacing_mm)} |",
    ]
    if summary.quarantine:
        lines += ["", "## In quarantine", "", "| case | file | code | why |", "|---|---|---|---|"]
        for bad in summary.quarantine:
            cells = (bad["id"], bad["file"], bad["code"], bad["message"].replace("|", "\\|"))
            lines.append(f"| {' | '.join(cells)} |")
    if summary.codes:
        lines += ["", "## Noticed", "", "docs/errors.md explains the codes.", ""]
        lines += [f"- {code}: {count} cases" for code, count in summary.codes.items()]
    if summary.alike:
        lines += ["", "## Alike", "", *[f"- {pair}" for pair in summary.alike]]
    return "\n".join(lines) + "\n"


def _triple(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
