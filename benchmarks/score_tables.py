"""The Markdown tables of score_dev.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuromend.evaluate import Summary, paired_differences, summarise, summary
from neuromend.metrics_samples import SAMPLE_COLUMNS
from neuromend.score_files import COLUMNS, table

Row = Mapping[str, Any]

SHOWN = {
    column: COLUMNS[column]
    for column in (
        "mse", "psnr", "psnr_01", "ssim", "ssim_3d", "mae", "seam", "sharpness", "gradient_distance",
    )
}  # fmt: skip
BY_GROUP = ("psnr_01", "mse", "ssim", "ssim_3d", "seam", "sharpness")


def report(rows: Sequence[Row], baselines: Sequence[str]) -> str:
    """All tables: means, differences to the best baseline, groups, and samples where they were drawn."""
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    by_model = {model: [row for row in rows if row["model"] == model] for model in models}
    cases = len({row["id"] for row in rows})
    parts = [
        f"# Dev cases: {cases} holes\n",
        "Mean over the cases with its 95 % bootstrap interval. MSE, MAE, PSNR and SSIM as the challenge\n"
        "defines them (PSNR: range of the truth in the hole; PSNR 0-1: range 1); seam and sharpness: 1 is\n"
        "as in real tissue.\n",
        means(by_model),
    ]
    for model in models:
        if baselines and model not in baselines:
            parts += [
                f"\n## {model} against the best classical fill, case by case\n",
                against(by_model, model, baselines),
            ]
    parts += [
        f"\n## {SHOWN[column][0]}, by size and site\n\n{groups(by_model, column)}" for column in BY_GROUP
    ]
    drawn = {model: found for model, found in by_model.items() if "crps" in found[0]}
    if drawn:
        parts += ["\n## Spread of the samples\n", samples(drawn)]
    return "\n".join(parts)


def means(by_model: Mapping[str, Sequence[Row]]) -> str:
    """A line a model, a column a score."""
    lines = []
    for model, rows in by_model.items():
        found = summarise(rows, list(SHOWN))["all"]
        cells = [interval(found[column], column) for column in SHOWN]
        seconds = [row["seconds"] for row in rows if "seconds" in row]
        lines.append([model, *cells, f"{np.mean(seconds):.1f}" if seconds else ""])
    return table(["model", *(heading for heading, *_ in SHOWN.values()), "s a case"], lines)


def against(by_model: Mapping[str, Sequence[Row]], model: str, baselines: Sequence[str]) -> str:
    """For each score the baseline with the best mean, and the paired difference to it.

    Seam and sharpness are compared by their distance from 1, the ideal.
    """
    ours = badness(by_model[model])
    others = {name: badness(by_model[name]) for name in baselines}
    lines = []
    for column, (heading, factor, digits, better) in SHOWN.items():
        averages = {name: summary([row[column] for row in rows]).mean for name, rows in others.items()}
        best = min(averages, key=lambda name: averages[name])
        gain = paired_differences(others[best], ours, [column])[column]
        mean, low, high = (f"{value * factor:+.{digits}f}" for value in (gain.mean, gain.low, gain.high))
        theirs = {row["id"]: row[column] for row in others[best]}
        wins = sum(row[column] < theirs[row["id"]] for row in ours)
        verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "not told apart"
        label = f"{heading}, off 1" if better == "1" else heading
        lines.append([label, best, f"{mean} [{low}, {high}]", f"{wins}/{len(ours)}", verdict])
    return table(["score", "best classical", "gain (positive: better)", "cases won", "mean"], lines)


def badness(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The same rows with every score turned so that low is good."""
    turn = {"low": float, "high": lambda v: -v, "1": lambda v: abs(v - 1)}
    return [{"id": row["id"], **{c: turn[SHOWN[c][3]](row[c]) for c in SHOWN}} for row in rows]


def groups(by_model: Mapping[str, Sequence[Row]], column: str) -> str:
    """A line a size class or site, a column a model: the means of one score."""
    found = {model: summarise(rows, [column]) for model, rows in by_model.items()}
    _, factor, digits, _ = SHOWN[column]
    lines = [
        [
            group,
            str(len_of(found, group, column)),
            *(f"{s[group][column].mean * factor:.{digits}f}" for s in found.values()),
        ]
        for group in next(iter(found.values()))
    ]
    return table(["group", "cases", *by_model], lines)


def len_of(found: Mapping[str, Mapping[str, Mapping[str, Summary]]], group: str, column: str) -> int:
    return max(summaries[group][column].n for summaries in found.values())


def samples(by_model: Mapping[str, Sequence[Row]]) -> str:
    lines = []
    for model, rows in by_model.items():
        found = [summary([row[column] for row in rows]) for column in SAMPLE_COLUMNS]
        lines.append(
            [
                model,
                *(f"{s.mean:.4f} [{s.low:.4f}, {s.high:.4f}]" if s.n else "too few samples" for s in found),
            ]
        )
    return table(["model", *SAMPLE_COLUMNS], lines)


def interval(found: Summary, column: str) -> str:
    _, factor, digits, _ = SHOWN[column]
    mean, low, high = (f"{value * factor:.{digits}f}" for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]"
