"""Scores as files: ``scores.csv`` (a row a case), ``summary.json`` and ``summary.md``.

Nothing of time or machine is in them, so the same predictions give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuromend.data.atomic import OutputSet
from neuromend.data.outputs import check_output
from neuromend.evaluate import BOOTSTRAP_SEED, LEVEL, RESAMPLES, Summary, summarise
from neuromend.findings import Finding
from neuromend.metrics import CHALLENGE_COLUMNS, OLDER_COLUMNS, OWN_COLUMNS
from neuromend.metrics_samples import SAMPLE_COLUMNS
from neuromend.provenance import version_string
from neuromend.scoring import Evaluation

NAMES = {"scores": "scores.csv", "markdown": "summary.md", "summary": "summary.json"}

FACTS = ("volume_ml", "size_class", "site")

# Column -> (heading, factor for display, decimals, what is best).
COLUMNS: dict[str, tuple[str, float, int, str]] = {
    "ssim": ("SSIM", 1, 4, "high"),
    "mse": ("MSE x1000", 1000, 2, "low"),
    "rmse": ("RMSE x1000", 1000, 1, "low"),
    "mae": ("MAE x1000", 1000, 1, "low"),
    "msle": ("MSLE x1000", 1000, 2, "low"),
    "psnr": ("PSNR dB", 1, 2, "high"),
    "psnr_eps": ("PSNR (eps) dB", 1, 2, "high"),
    "psnr_01": ("PSNR 0-1 dB", 1, 2, "high"),
    "psnr_01_eps": ("PSNR 0-1 (eps) dB", 1, 2, "high"),
    "psnr_max": ("PSNR (before 08/2025) dB", 1, 2, "high"),
    "psnr_max_eps": ("PSNR (before 08/2025, eps) dB", 1, 2, "high"),
    "ssim_3d": ("3-D SSIM", 1, 4, "high"),
    "seam": ("seam", 1, 2, "1"),
    "sharpness": ("sharpness", 1, 2, "1"),
    "histogram_distance": ("histogram distance x1000", 1000, 1, "low"),
    "gradient_distance": ("gradient distance x1000", 1000, 1, "low"),
    "crps": ("CRPS x1000", 1000, 1, "low"),
    "coverage_50": ("coverage of 50 %", 1, 3, "0.5"),
    "coverage_90": ("coverage of 90 %", 1, 3, "0.9"),
    "spread_error_correlation": ("spread-error correlation", 1, 3, "high"),
}
BY_GROUP = ("ssim", "mse", "psnr", "psnr_01", "ssim_3d", "seam", "sharpness")

DEFINITIONS = """\
Mean over the cases, its {level:.0%} bootstrap interval and the median; scores that are not finite are left out
and counted. SSIM, MSE, RMSE, MAE, MSLE and PSNR as the BraTS inpainting challenge defines them: inside the mask,
intensities scaled by the 0.5 and 99.5 percentiles of the voided scan. PSNR: range of the truth in the hole; PSNR
0-1: range 1. 3-D SSIM keeps the surrounding tissue. Seam and sharpness: 1 is as in real tissue.
"""


def check_outputs(out: Path, *, overwrite: bool) -> list[Finding]:
    """Refuse a folder that cannot be written or that holds scores, before any work is done (RT-01 to RT-04)."""
    findings = [
        finding
        for name in NAMES.values()
        for finding in check_output(out / name, [], overwrite=overwrite, needed_bytes=0)
    ]
    return list(dict.fromkeys(findings))


def write_scores(evaluation: Evaluation, out: Path) -> dict[str, Path]:
    """Write the three files, all or none.

    Args:
        evaluation: the scores.
        out: an existing folder.

    Returns:
        role ("scores", "markdown", "summary") -> path.

    Raises:
        StorageError, OutputPermissionError, OutputError: RT-01 to RT-07.
    """
    summary = json.dumps(summary_json(evaluation), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    texts = {
        "scores": csv_text(evaluation),
        "markdown": markdown(evaluation),
        "summary": summary,
    }
    paths = {role: out / name for role, name in NAMES.items()}
    with OutputSet() as outputs:
        for role, path in paths.items():
            outputs.add(path, texts[role].encode())
        outputs.publish()
    return paths


def score_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The scores in their order: the challenge's, ours, those of samples where a case has them."""
    drawn = SAMPLE_COLUMNS if any(SAMPLE_COLUMNS[0] in row for row in rows) else ()
    return (*CHALLENGE_COLUMNS, *OLDER_COLUMNS, *OWN_COLUMNS, *drawn)


def csv_text(evaluation: Evaluation) -> str:
    """``scores.csv``: numbers in full, an empty cell where a score is not defined."""
    file = io.StringIO()
    writer = csv.DictWriter(
        file, ["id", *score_columns(evaluation.rows), *FACTS], restval="", lineterminator="\n"
    )
    writer.writeheader()
    for row in evaluation.rows:
        writer.writerow({name: "" if _is_nan(value) else value for name, value in row.items()})
    return file.getvalue()


def summary_json(evaluation: Evaluation) -> dict[str, Any]:
    """``summary.json``: the summaries by group, how they were made, and the files of every case."""
    groups = _groups(evaluation)
    return {
        "neuromend": version_string(),
        "cases": len(evaluation.rows),
        "missing": list(evaluation.missing),
        "extra": list(evaluation.extra),
        "interval": {"level": LEVEL, "method": "percentile bootstrap of the mean", "resamples": RESAMPLES,
                     "seed": BOOTSTRAP_SEED},
        "groups": {
            group: {name: _plain(found) for name, found in columns.items()} for group, columns in groups.items()
        },
        "findings": [asdict(finding) for finding in evaluation.findings],
        "files": evaluation.files,
    }  # fmt: skip


def markdown(evaluation: Evaluation) -> str:
    """``summary.md``: the same for people."""
    groups = _groups(evaluation)
    parts = [
        f"# Scores (cases: {len(evaluation.rows)})\n",
        DEFINITIONS.format(level=LEVEL),
        _all_cases(groups["all"]),
        "## By size and site\n",
        _by_group(groups),
    ]
    for heading, names in (
        ("Cases without a prediction", evaluation.missing),
        ("Predictions without a case", evaluation.extra),
        ("Remarks", [f"[{f.code}] {f.message}" for f in evaluation.findings]),
    ):
        if names:
            parts += [f"## {heading}\n", "\n".join(f"- {name}" for name in names) + "\n"]
    return "\n".join([*parts, f"neuromend {version_string()}\n"])


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads in a terminal too."""
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    padded = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in [head, *lines]
    ]
    rule = "-|-".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [padded[0], rule, *padded[1:]]) + "\n"


def shown(value: float, column: str) -> str:
    """A score as the tables show it; empty where there is none."""
    _, factor, digits, _ = COLUMNS[column]
    return "" if math.isnan(value) else f"{value * factor:.{digits}f}"


def _groups(evaluation: Evaluation) -> dict[str, dict[str, Summary]]:
    columns = score_columns(evaluation.rows)
    full = [{name: row.get(name, math.nan) for name in ("id", *columns, *FACTS)} for row in evaluation.rows]
    return summarise(full, columns)


def _all_cases(found: Mapping[str, Summary]) -> str:
    lines = []
    for name, one in found.items():
        interval = f"{shown(one.low, name)} to {shown(one.high, name)}" if one.n else ""
        cells = (shown(one.mean, name), interval, shown(one.median, name), str(one.n))
        lines.append([COLUMNS[name][0], COLUMNS[name][3], *cells])
    return table(["score", "best", "mean", f"{LEVEL:.0%} interval", "median", "cases"], lines)


def _by_group(groups: Mapping[str, Mapping[str, Summary]]) -> str:
    lines = [
        [group, str(max(one.n for one in found.values())), *(shown(found[c].mean, c) for c in BY_GROUP)]
        for group, found in groups.items()
    ]
    return table(["group", "cases", *(COLUMNS[column][0] for column in BY_GROUP)], lines)


def _plain(found: Summary) -> dict[str, float | None]:
    return {name: None if _is_nan(value) else value for name, value in asdict(found).items()}


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
