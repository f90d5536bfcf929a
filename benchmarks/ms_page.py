"""docs/ms.md and docs/ms.png from the rows of ms_experiment.py: tables, paired tests, one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuromend.leaderboard import ALPHA, holm, signed_rank
from neuromend.leaderboard_text import END_OF_WORDS, WORDS, hardware, kept_words
from neuromend.provenance import version_string
from neuromend.score_files import table

Row = dict[str, Any]

LESIONED = "lesioned"
NAMES = {LESIONED: "not filled"}
# Column -> (heading, how to read it off a row, whether high is good)
COLUMNS: dict[str, tuple[str, Any, bool]] = {
    "gm": ("grey-matter volume error, %", lambda row: abs(_of(row, "whole", "GM", "error_percent")), False),
    "wm": ("white-matter volume error, %", lambda row: abs(_of(row, "whole", "WM", "error_percent")), False),
    "ring": (
        "white-matter Dice within 5 mm, lesions left out",
        lambda row: _of(row, "ring", "WM", "dice"),
        True,
    ),
    "lesion": ("voxels of the lesions labelled as before, %", lambda row: _right(row), True),
    "dice": (
        "mean Dice of the three tissues, whole brain",
        lambda row: _mean_dice(row, "against_original"),
        True,
    ),
    "labels": ("mean Dice against the labels", lambda row: _mean_dice(row, "against_labels"), True),
}


def write(rows: Sequence[Row], page: Path, methods: Sequence[str], command: str) -> None:
    """Write the page and its figure; what a person wrote between the marks stays."""
    order = [LESIONED, *(Path(method).name for method in methods)]
    simulated = [row for row in rows if row["kind"] == "simulated"]
    cases = list(dict.fromkeys(row["case"] for row in simulated))
    by_key = {(row["case"], row["method"]): row for row in simulated}
    whole = [case for case in cases if all((case, method) in by_key for method in order)]
    if not whole:
        raise SystemExit("no case was finished by all methods yet")
    values = {
        column: {method: np.array([read(by_key[case, method]) for case in whole]) for method in order}
        for column, (_, read, _) in COLUMNS.items()
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    figure(values, order, page.with_suffix(".png"))
    loads = [by_key[case, LESIONED]["load_ml"] for case in whole]
    counts = [by_key[case, LESIONED]["lesions"] for case in whole]
    spacings = sorted({by_key[case, LESIONED]["spacing_mm"] for case in whole})
    parts = [
        "# Lesion filling and tissue segmentation\n",
        f"{len(whole)} healthy dev scans of as many persons (voxels of {', '.join(f'{mm:g}' for mm in spacings)} mm)."
        f" Each got {min(counts)} to {max(counts)} simulated white-matter lesions"
        f" ({min(loads):.2g} to {max(loads):.3g} ml), painted dark as in T1. Three tissues are segmented by"
        " `neuromend tissue` in the healthy scan, in the scan with lesions, and in the scan filled by each method;"
        " volumes and Dice are against the segmentation of the healthy scan.\n",
        f"{WORDS}\n{kept_words(page)}\n{END_OF_WORDS}\n",
        f"![Errors by method]({page.with_suffix('.png').name})\n",
        "## Simulated lesions\n",
        "Means over the scans (volume errors: of their absolute values; standard deviation behind ±). Bold: the best. "
        f"=: not told apart from the best (paired Wilcoxon test, Holm-corrected, {ALPHA:.0%}).\n",
        main_table(values, order),
        "p-values of the paired Wilcoxon tests against the default model, Holm-corrected within a column:\n",
        test_table(values, order),
        *real_part([row for row in rows if row["kind"] == "real"], order),
        "## Made by\n",
        f"```\n{command}\n```\n",
        f"neuromend {version_string()}; {hardware()}.\n",
    ]
    page.write_text("\n".join(parts))


def main_table(values: dict[str, dict[str, Any]], order: Sequence[str]) -> str:
    lines = []
    marks = {column: _marks(values[column], order, COLUMNS[column][2]) for column in COLUMNS}
    for method in order:
        cells = [NAMES.get(method, method)]
        for column in COLUMNS:
            of = values[column][method]
            digits = 4 if column in ("ring", "dice", "labels") else 2
            deviation = f" ± {of.std(ddof=1):.{digits}f}" if len(of) > 1 else ""
            cells.append(marks[column][method].format(f"{of.mean():.{digits}f}{deviation}"))
        lines.append(cells)
    heads = [f"{heading} ({'↑' if high else '↓'})" for heading, _, high in COLUMNS.values()]
    return table(["method", *heads], lines)


def test_table(values: dict[str, dict[str, Any]], order: Sequence[str]) -> str:
    default = order[1]
    others = [method for method in order if method != default]
    columns = {
        column: holm(
            [signed_rank(list(values[column][other]), list(values[column][default])) for other in others]
        )
        for column in COLUMNS
    }
    lines = [
        [NAMES.get(other, other), *(f"{columns[column][i]:.2g}" for column in COLUMNS)]
        for i, other in enumerate(others)
    ]
    return table([f"against {default}", *(heading for heading, _, _ in COLUMNS.values())], lines)


def real_part(rows: Sequence[Row], order: Sequence[str]) -> list[str]:
    if not rows:
        return []
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        of = {row["method"]: row for row in rows if row["case"] == case}
        for method in order:
            if method in of:
                row = of[method]
                volumes = [f"{row['volumes_ml'][tissue]:.1f}" for tissue in ("CSF", "GM", "WM")]
                share = f"{100 * row['white_share_of_lesion']:.1f}"
                lines.append([case, NAMES.get(method, method), *volumes, share, f"{row['step']:.2f}"])
    return [
        "## A real patient\n",
        f"No truth is known. {rows[0]['load_ml']:.1f} ml of lesions were filled in two scans of one person. Step:"
        " across the border of the lesions, relative to that between neighbours just outside (1: no seam).\n",
        table(["scan", "method", "CSF ml", "GM ml", "WM ml", "white share of the lesions, %", "step"], lines),
    ]


def figure(values: dict[str, dict[str, Any]], order: Sequence[str], target: Path) -> None:
    """A panel a column: every scan a dot, the mean a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rng = np.random.default_rng(0)
    drawn, axes = pyplot.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    for axis, (column, (heading, _, _)) in zip(axes.flat, COLUMNS.items(), strict=True):
        for place, method in enumerate(order):
            of = values[column][method]
            colour = "#1b6ca8" if place == 1 else "#8a8f98"
            axis.scatter(
                place + rng.uniform(-0.15, 0.15, len(of)), of, s=16, color=colour, alpha=0.7, linewidths=0
            )
            axis.hlines(of.mean(), place - 0.3, place + 0.3, color="#d1495b", linewidth=2)
        axis.set_title(heading, fontsize=10)
        axis.set_xticks(
            range(len(order)), [NAMES.get(m, m) for m in order], rotation=25, ha="right", fontsize=8
        )
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    drawn.savefig(target, dpi=110, metadata={"Software": None})
    pyplot.close(drawn)


def _marks(of: dict[str, Any], order: Sequence[str], high: bool) -> dict[str, str]:
    """How a cell is written: the best bold, what the test cannot tell from it with an equals sign."""
    best = (max if high else min)(order, key=lambda method: float(of[method].mean()))
    others = [method for method in order if method != best]
    p = dict(zip(others, holm([signed_rank(list(of[o]), list(of[best])) for o in others]), strict=True))
    equal = {method for method in others if math.isnan(p[method]) or p[method] >= ALPHA}
    return {method: "**{}**" if method == best else "{} =" if method in equal else "{}" for method in order}


def _of(row: Row, region: str, tissue: str, score: str) -> float:
    return float(row["against_original"][region][tissue][score])


def _right(row: Row) -> float:
    """Share of the lesions' voxels that have the label of the healthy scan, from the Dice of the tissues there."""
    tissues = row["against_original"]["lesion"].values()
    both = sum(
        one["dice"] * (one["reference_ml"] + one["volume_ml"]) / 2
        for one in tissues
        if one["dice"] == one["dice"]
    )
    return 100 * both / sum(one["reference_ml"] for one in tissues)


def _mean_dice(row: Row, against: str) -> float:
    return float(np.mean([one["dice"] for one in row[against]["whole"].values()]))
