"""The tables: who is best, who cannot be told apart, on which cases; and the page that shows them."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from neuromend.benchmark import ORACLE, methods_of
from neuromend.benchmark_cases import Case, load
from neuromend.benchmark_runs import fill_path, save_fill
from neuromend.evaluate import score_case, size_class
from neuromend.leaderboard import (
    SHOWN,
    Board,
    cost_table,
    csv_text,
    details_table,
    group_table,
    holm,
    main_table,
    sample_table,
    signed_rank,
)
from neuromend.leaderboard_page import figure_png, page
from neuromend.leaderboard_text import END_OF_WORDS, WORDS, Facts, facts_of, hardware, kept_words, markdown

from .filling_cases import ball, head, image, save_network

FACTS = Facts("neuromend benchmark --out <x>", "3 holes", "1.2.3+abc", "a machine", ())


def row(method: str, case: int, psnr: float, **more: Any) -> dict[str, Any]:
    return {
        "digest": f"{method}-{case}", "id": f"case-{case:02d}", "method": method, "model": method,
        "volume_ml": 0.5 + case, "largest_piece_ml": 0.4 + case,
        "size_class": size_class(0.5 + case), "site": "cortex" if case % 2 else "",
        "spacing_mm": 1.0, "seconds": 1.0 + case, "peak_memory_mb": 500.0 + case, "gpu_memory_mb": None,
        "device": "cpu", "steps": 2, "samples": 0, "seed": 0,
        **dict.fromkeys(SHOWN, 0.5), "psnr_01": psnr, "sharpness": 0.9, **more,
    }  # fmt: skip


def board(cases: int = 12) -> Board:
    """Good always beats poor; close beats good in every second case."""
    rng = np.random.default_rng(0)
    level = rng.uniform(15, 25, cases)
    rows = [row("poor", k, level[k] - 2 - 0.1 * k) for k in range(cases)]
    rows += [row("good", k, level[k]) for k in range(cases)]
    rows += [row("close", k, level[k] + (0.3 if k % 2 else -0.31)) for k in range(cases)]
    rows += [row(ORACLE, k, math.inf, sharpness=1.0, steps=None) for k in range(cases)]
    return Board(rows)


def cells(table: str) -> dict[str, list[str]]:
    """First cell -> the others, of every line."""
    lines = [[c.strip() for c in line.strip("|").split(" | ")] for line in table.strip().splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_the_best_is_first_and_the_oracle_last() -> None:
    assert board().methods == ("good", "close", "poor", ORACLE)


def test_the_best_is_bold_the_equal_are_marked_the_worse_are_not() -> None:
    found = cells(main_table(board()))
    assert re.fullmatch(r"\*\*\d+\.\d\d\*\*", found["good"][0])
    assert found["close"][0].endswith(" =")
    assert re.fullmatch(r"\d+\.\d\d", found["poor"][0])
    assert found[ORACLE][0] == ""  # an infinite score is none


def test_the_ideal_of_a_ratio_is_one_whichever_side_it_is_missed_on() -> None:
    rows = [row("high", k, 20, sharpness=1.1) for k in range(8)] + [
        row("low", k, 20, sharpness=0.8) for k in range(8)
    ]
    rows += [row("both", k, 20, sharpness=0.5 if k % 2 else 1.5) for k in range(8)]
    standings = Board(rows).standings("sharpness")
    assert standings["high"].is_best
    assert standings["low"].is_worse
    assert standings["both"].is_worse  # though its mean is exactly 1


def test_only_cases_that_all_have_finished_are_compared() -> None:
    rows = [*board(4).rows[:-4], {**row("good", 9, 0), "failed": "[BM-02] broken"}, row("poor", 9, 99)]
    rows += [{"digest": "x", "id": "case-00", "method": "dead", "failed": "[BM-01] not there"}]
    found = Board(rows)
    assert found.ids == tuple(f"case-{k:02d}" for k in range(4))
    assert found.left_out == 1
    assert "dead" not in found.methods  # what finished nothing does not empty the table
    assert found.failures == ("good on case-09: [BM-02] broken", "dead on case-00: [BM-01] not there")
    assert max(found.values("poor", "psnr_01")) < 99


def test_a_board_without_a_case_says_so(tmp_path: Path) -> None:
    found = Board([{"digest": "x", "id": "one", "method": "dead", "failed": "[BM-01] not there"}])
    assert "No case was finished by all methods" in markdown(found, FACTS, figure=None)
    assert "dead on one" in markdown(found, FACTS, figure=None)
    assert figure_png(found, [], tmp_path) is None
    assert "No case was finished" in page(found, FACTS, [], tmp_path, None)


def test_the_signed_rank_test_has_its_known_values() -> None:
    """All of n differences on one side: 2 / 2^n (two-sided, exact)."""
    first = np.arange(1.0, 9.0)
    assert signed_rank(first * 1.1, first) == pytest.approx(2 / 2**8)
    assert signed_rank(first, first) == 1.0
    assert math.isnan(signed_rank([math.nan, math.inf], [1.0, math.inf]))
    assert signed_rank([*first * 1.1, math.nan], [*first, 1.0]) == pytest.approx(2 / 2**8)


def test_holm_corrects_step_by_step() -> None:
    """The example of Wright 1992 (Biometrics 48: 1005), table 1."""
    p = [0.000, 0.010, 0.020, 0.025, 0.030, 0.050]
    np.testing.assert_allclose(holm(p), [0.0, 0.05, 0.08, 0.08, 0.08, 0.08])
    np.testing.assert_allclose(holm([0.04, math.nan, 0.01]), [0.04, math.nan, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_and_the_p_value_stand_behind_the_ranking() -> None:
    found = cells(details_table(board()))
    assert found["good"][3] == "best"
    assert float(found["poor"][3]) == pytest.approx(2 * 2 / 2**12, rel=0.05)
    low, high = (float(v) for v in found["poor"][1].split(" to "))
    assert low < float(found["poor"][0]) < high


def test_groups_have_their_own_best() -> None:
    rows = [row("small", k, 30 if k == 0 else 10) for k in range(4)] + [row("large", k, 20) for k in range(4)]
    found = cells(group_table(Board(rows), "psnr_01"))
    assert list(found)[2:] == ["all", "<1 ml", "1-5 ml", "cortex"]
    assert found["<1 ml"] == ["1", "20.00", "**30.00**"]
    assert found["1-5 ml"] == ["3", "**20.00**", "10.00"]


def test_costs_are_summed_up() -> None:
    found = cells(cost_table(Board([row("a", k, 20, gpu_memory_mb=700.0 if k else None) for k in range(3)])))
    assert found["a"] == ["2.0", "3.0", "502", "700", "2", "cpu"]


def test_the_spread_is_shown_where_samples_were_drawn() -> None:
    drawn = {"crps": 0.03, "coverage_50": 0.4, "coverage_90": math.nan, "spread_error_correlation": 0.2}
    rows = [row("plain", k, 20) for k in range(3)] + [row("drawn", k, 19, **drawn) for k in range(3)]
    assert cells(sample_table(Board(rows)))["drawn"] == ["30.0", "0.400", "", "0.200"]
    assert sample_table(Board(rows[:3])) == ""


def test_the_csv_has_every_run_in_full() -> None:
    found = board(3)
    rows = [*found.rows, {"digest": "x", "id": "case-00", "method": "dead", "failed": "[BM-01] a, b"}]
    lines = list(csv.DictReader(io.StringIO(csv_text(Board(rows)))))
    assert len(lines) == 13
    assert float(lines[0]["psnr_01"]) == rows[0]["psnr_01"]
    assert lines[-2]["psnr_01"] == ""  # infinite
    assert lines[-1]["failed"] == "[BM-01] a, b"


def test_words_of_a_person_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    assert kept_words(path) == ""
    path.write_text(markdown(board(), FACTS, figure="x.png", words="Good wins.\n\nClose is close."))
    assert kept_words(path) == "Good wins.\n\nClose is close."
    path.write_text(f"no marks {END_OF_WORDS}")
    assert kept_words(path) == ""
    assert WORDS in markdown(board(), FACTS, figure=None)


def test_the_page_says_how_it_was_made(tmp_path: Path) -> None:
    folder = save_network(tmp_path / "tiny")
    found = board(3)
    facts = facts_of(found, methods_of([str(folder), "harmonic", ORACLE], 2), "neuromend benchmark ...")
    assert facts.cases == "3 holes of 0.5 to 2.5 ml, voxels of 1 mm"
    assert [line[0] for line in facts.budgets] == ["tiny"]
    assert facts.budgets[0][1].startswith("fastwavelet3d, ")
    assert facts.budgets[0][2:] == ("not told", "CC0-1.0")
    text = markdown(found, facts, figure="a figure.png")
    for wanted in (
        "neuromend benchmark ...",
        facts.version,
        hardware(),
        "## Training budgets",
        "(a figure.png)",
    ):
        assert wanted in text
    assert "cores" in hardware()


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Board, list[Case], Path]:
    """Two cases that two methods filled with constants, and the oracle with the truth."""
    nib.save(image(head()), tmp_path / "scan.nii.gz")
    cases = []
    for name, hole in (("one", ball()), ("two", ball(0.2, (-0.3, 0.1, 0.0)))):
        nib.save(image(hole), tmp_path / f"{name}.nii.gz")
        cases.append(Case(name, tmp_path / "scan.nii.gz", tmp_path / f"{name}.nii.gz", site="<cortex>"))
    rows = []
    for method, value in (("black & <white>", 100.0), ("grey", 850.0), (ORACLE, None)):
        for number, case in enumerate(cases):
            loaded = load(case)
            made = (
                loaded.healthy[loaded.mask]
                if value is None
                else np.full(loaded.mask.sum(), value, np.float32)
            )
            save_fill(fill_path(tmp_path / "out", method, case.id), made)
            full = loaded.healthy.copy()
            full[loaded.mask] = made
            scores = score_case(full, loaded.healthy, loaded.mask)
            rows.append(row(method, number, 0, id=case.id, site=loaded.site) | scores)
    return Board(rows), cases, tmp_path / "out"


def test_the_figure_has_a_column_a_method(filled: tuple[Board, list[Case], Path]) -> None:
    made = figure_png(*filled)
    assert made is not None
    picture = np.asarray(Image.open(io.BytesIO(made)).convert("L"), dtype=float)
    height, width = picture.shape
    assert width / height == pytest.approx(4 * 1.7 / (3 * 1.7 + 0.7), rel=0.02)
    # Given, healthy, grey, black, from left to right: the middle of the hole in the first row of planes.
    middle = [picture[int(0.24 * height), int((k + 0.5) / 4 * width)] for k in range(4)]
    assert middle[0] < 10
    assert middle[3] < 60
    assert min(middle[1], middle[2]) > 120
    assert figure_png(*filled) == made


def test_the_figure_shows_the_case_whose_largest_piece_is_nearest_to_20_ml(
    filled: tuple[Board, list[Case], Path],
) -> None:
    found, cases, out = filled
    pieces = {"one": 3.0, "two": 90.0}
    first = figure_png(Board([{**r, "largest_piece_ml": pieces[r["id"]]} for r in found.rows]), cases, out)
    pieces = {"one": 3.0, "two": 30.0}
    second = figure_png(Board([{**r, "largest_piece_ml": pieces[r["id"]]} for r in found.rows]), cases, out)
    assert first == figure_png(Board([r for r in found.rows if r["id"] == "two"]), cases, out)
    assert second == first
    pieces = {"one": 19.0, "two": 30.0}
    assert (
        figure_png(Board([{**r, "largest_piece_ml": pieces[r["id"]]} for r in found.rows]), cases, out)
        != first
    )


def test_the_page_needs_nothing_else_and_shows_every_method(filled: tuple[Board, list[Case], Path]) -> None:
    found, cases, out = filled
    text = page(found, FACTS, cases, out, figure_png(found, cases, out))
    assert "http:" not in text
    assert "https:" not in text
    assert "<cortex>" not in text
    assert "black & <white>" not in text
    assert text.count("black &amp; &lt;white&gt;: best, median and worst case") == 1
    assert text.count("grey: best, median and worst case") == 1
    assert f"{ORACLE}: best" not in text
    assert text.count("<figure>") == 6
    assert text.count("data:image/png;base64,") == 13
    assert "best: one" in text or "best: two" in text
    assert "neuromend benchmark --out &lt;x&gt;" in text
    assert text.count("<b>") >= len(SHOWN)
