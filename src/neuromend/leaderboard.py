"""What a benchmark found: ranking, intervals, significance, groups, costs; as Markdown and as CSV.

Methods are compared on the cases that all of them have finished, case by case. Against the method with the best
mean, every other is tested with Wilcoxon's signed-rank test (1945; two-sided, paired), and the p-values of a
column are corrected by Holm (1979), so that among all tests of a column a false "worse" has a chance of 5 %.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from neuromend.benchmark import ORACLE
from neuromend.benchmark_runs import Row
from neuromend.evaluate import LEVEL, Summary, summarise, summary
from neuromend.metrics_samples import SAMPLE_COLUMNS
from neuromend.score_files import COLUMNS, score_columns, shown, table

RANKED_BY = "psnr_01"
SHOWN = ("psnr_01", "psnr", "ssim", "ssim_3d", "mse", "mae", "seam", "sharpness", "gradient_distance",
         "histogram_distance")  # fmt: skip
BY_GROUP = ("psnr_01", "ssim_3d", "sharpness")
ALPHA = 0.05

LEGEND = (
    f"Means over the cases. Bold: the best (↑ high, ↓ low, → 1 nearest to 1, case by case). =: not told apart from "
    f"the best (paired Wilcoxon test, Holm-corrected, {ALPHA:.0%}). MSE, MAE, PSNR and SSIM as the BraTS inpainting "
    "challenge defines them, inside the hole; PSNR 0-1: range 1; 3-D SSIM keeps the tissue around; seam and "
    "sharpness: 1 is as in real tissue. The last four columns tell how real a fill looks: a mean of many fills has "
    "little error, and little sharpness."
)

#: What is best, where it is neither high nor low.
_IDEALS = {"1": 1.0, "0.5": 0.5, "0.9": 0.9}


@dataclass(frozen=True, slots=True)
class Standing:
    """One method in one column: its summary, whether its mean is the best, and the corrected p-value of the
    difference to the best (NaN for the best itself and where nothing can be compared)."""

    found: Summary
    is_best: bool
    p: float

    @property
    def is_worse(self) -> bool:
        """Whether it was told apart from the best."""
        return self.p < ALPHA


@dataclass(frozen=True)
class Board:
    """All runs of a benchmark.

    Attributes:
        rows: a row a run, as ``run_benchmark`` gives them.
    """

    rows: Sequence[Row]

    @cached_property
    def _finished(self) -> dict[str, dict[str, Row]]:
        """Method -> case id -> row."""
        found: dict[str, dict[str, Row]] = {}
        for row in self.rows:
            if "failed" not in row:
                found.setdefault(row["method"], {})[row["id"]] = row
        return found

    @cached_property
    def failures(self) -> tuple[str, ...]:
        """A sentence a run that failed."""
        return tuple(f"{r['method']} on {r['id']}: {r['failed']}" for r in self.rows if "failed" in r)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The cases that every method (of those that finished any) has finished, in their order."""
        every = [row["id"] for row in self.rows]
        return tuple(
            name for name in dict.fromkeys(every) if all(name in found for found in self._finished.values())
        )

    @cached_property
    def left_out(self) -> int:
        """How many cases are not compared because a method failed on them."""
        return len({row["id"] for row in self.rows}) - len(self.ids)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """All methods that can be compared, the best first; the oracle, which is none, last."""
        scores = {name: self.summary_of(name, RANKED_BY).mean for name in self._finished if self.ids}
        return tuple(sorted(scores, key=lambda name: (name == ORACLE, _badness(scores[name], RANKED_BY))))

    def compared(self, method: str) -> list[Row]:
        """A method's rows on the cases that are compared."""
        return [self._finished[method][name] for name in self.ids]

    def values(self, method: str, column: str) -> list[float]:
        """A method's scores on the cases that are compared; NaN where it has none."""
        return [float(row.get(column, math.nan)) for row in self.compared(method)]

    def summary_of(self, method: str, column: str) -> Summary:
        """Mean, median and interval of a score."""
        return summary(self.values(method, column))

    def standings(self, column: str) -> dict[str, Standing]:
        """Every method's place in a column; the oracle is in no contest."""
        found = {name: self.summary_of(name, column) for name in self.methods}
        rivals = [name for name in self.methods if name != ORACLE and found[name].n]
        if not rivals:
            return {name: Standing(one, False, math.nan) for name, one in found.items()}
        turned = {name: [_badness(value, column) for value in self.values(name, column)] for name in rivals}
        best = min(rivals, key=lambda name: float(np.nanmean(turned[name])))
        others = [name for name in rivals if name != best]
        p = dict(zip(others, holm([signed_rank(turned[name], turned[best]) for name in others]), strict=True))
        return {name: Standing(one, name == best, p.get(name, math.nan)) for name, one in found.items()}


def signed_rank(first: Sequence[float], second: Sequence[float]) -> float:
    """p-value of Wilcoxon's signed-rank test of pairs; 1 where all are equal, NaN without any pair."""
    pairs = np.array([first, second], dtype=np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    differences = pairs[0] - pairs[1]
    if not differences.size:
        return math.nan
    if not differences.any():
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few pairs, for which the exact test is used anyway
        return float(wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; NaN stays NaN and counts as no test."""
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[index] = highest
    return corrected


def main_table(board: Board) -> str:
    """A line a method, a column a score: bold is the best mean, = was not told apart from it."""
    standings = {column: board.standings(column) for column in SHOWN}
    lines = []
    for method in board.methods:
        cells = [_cell(standings[column][method], column) for column in SHOWN]
        lines.append([method, *cells])
    return table(["method", *(f"{COLUMNS[c][0]} ({_wanted(c)})" for c in SHOWN)], lines)


def details_table(board: Board, column: str = RANKED_BY) -> str:
    """The intervals and p-values behind one column."""
    lines = []
    for method, place in board.standings(column).items():
        one = place.found
        interval = f"{shown(one.low, column)} to {shown(one.high, column)}" if one.n else ""
        p = "best" if place.is_best else "" if math.isnan(place.p) else f"{place.p:.2g}"
        lines.append([method, shown(one.mean, column), interval, shown(one.median, column), p])
    head = [
        "method",
        f"mean {COLUMNS[column][0]}",
        f"{LEVEL:.0%} interval",
        "median",
        "p against the best (Holm)",
    ]
    return table(head, lines)


def group_table(board: Board, column: str) -> str:
    """A line a size class or site, a column a method: the means of one score, the best of a line in bold."""
    rivals = [name for name in board.methods if name != ORACLE]
    found = {name: summarise(_with_badness(board.compared(name), column), [column, "bad"]) for name in rivals}
    lines = []
    for group in next(iter(found.values()), {}):
        means = {name: found[name][group][column] for name in rivals}
        bad = {name: found[name][group]["bad"].mean for name, one in means.items() if one.n}
        best = min(bad, key=lambda name: bad[name], default="")
        cells = [_bold(shown(one.mean, column), name == best) for name, one in means.items()]
        lines.append([group, str(max((one.n for one in means.values()), default=0)), *cells])
    return table(["group", "cases", *rivals], lines)


def cost_table(board: Board) -> str:
    """Time, memory, device and steps of every method."""
    lines = []
    for method in board.methods:
        rows = board.compared(method)
        seconds = [row["seconds"] for row in rows]
        gpu = [row["gpu_memory_mb"] for row in rows if row["gpu_memory_mb"] is not None]
        memory = max(row["peak_memory_mb"] for row in rows)
        sizes = [f"{memory:.0f}" if memory else "", f"{max(gpu):.0f}" if gpu else ""]
        names = [_joined(row[name] for row in rows) for name in ("steps", "device")]
        lines.append([method, f"{np.mean(seconds):.1f}", f"{np.max(seconds):.1f}", *sizes, *names])
    head = ["method", "s a case", "slowest", "peak memory MB", "GPU memory MB", "steps", "device"]
    return table(head, lines)


def sample_table(board: Board) -> str:
    """How honest the spread of the samples is; empty where no method drew any."""
    drawn = [name for name in board.methods if SAMPLE_COLUMNS[0] in board.compared(name)[0]]
    lines = [[name, *(shown(board.summary_of(name, c).mean, c) for c in SAMPLE_COLUMNS)] for name in drawn]
    return (
        table(["method", *(f"{COLUMNS[c][0]} (best: {COLUMNS[c][3]})" for c in SAMPLE_COLUMNS)], lines)
        if drawn
        else ""
    )


def csv_text(board: Board) -> str:
    """``scores.csv``: a row a run, numbers in full, an empty cell where a score is not defined or not finite."""
    facts = ("method", "id", "volume_ml", "largest_piece_ml", "size_class", "site", "spacing_mm",
             "seconds", "peak_memory_mb", "gpu_memory_mb", "device", "steps", "samples", "seed", "failed")  # fmt: skip
    file = io.StringIO()
    writer = csv.DictWriter(
        file, [*facts, *score_columns(board.rows)], restval="", extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    for row in board.rows:
        writer.writerow({name: "" if _is_unsayable(value) else value for name, value in row.items()})
    return file.getvalue()


def _with_badness(rows: Sequence[Row], column: str) -> list[Mapping[str, Any]]:
    values = [float(row.get(column, math.nan)) for row in rows]
    return [{**row, column: v, "bad": _badness(v, column)} for row, v in zip(rows, values, strict=True)]


def _badness(value: float, column: str) -> float:
    """A score turned so that low is good."""
    best = COLUMNS[column][3]
    if best in _IDEALS:
        return abs(value - _IDEALS[best])
    return -value if best == "high" else value


def _wanted(column: str) -> str:
    return {"high": "↑", "low": "↓"}.get(COLUMNS[column][3], f"→ {COLUMNS[column][3]}")


def _cell(place: Standing, column: str) -> str:
    text = shown(place.found.mean, column)
    tied = not place.is_best and not math.isnan(place.p) and not place.is_worse
    return f"{text} =" if tied else _bold(text, place.is_best)


def _bold(text: str, wanted: bool) -> str:
    return f"**{text}**" if wanted and text else text


def _joined(values: Any) -> str:
    return ", ".join(sorted({str(value) for value in values if value is not None}))


def _is_unsayable(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
