from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest

from neuromend.errors import OutputError
from neuromend.evaluate import score_case
from neuromend.findings import Finding
from neuromend.metrics import CHALLENGE_COLUMNS, OLDER_COLUMNS, OWN_COLUMNS
from neuromend.metrics_samples import SAMPLE_COLUMNS
from neuromend.score_files import (
    COLUMNS,
    check_outputs,
    csv_text,
    markdown,
    score_columns,
    summary_json,
    write_scores,
)
from neuromend.scoring import Evaluation

from .brats_cases import brain, hole


@pytest.fixture
def evaluation() -> Evaluation:
    rows = []
    for n, site in enumerate(("cortex", "", "cortex")):
        row = {"id": f"case-{n}", **score_case(brain() + 30 * n, brain(), hole())}
        row |= {"volume_ml": 3.24, "size_class": "1-5", "site": site}
        rows.append(row)
    rows[2] |= {"crps": 0.01, "coverage_50": 0.5, "coverage_90": math.nan, "spread_error_correlation": 0.3}
    remark = Finding("EV-02", "warning", "1 files among the predictions belong to no case: stray.nii.gz")
    return Evaluation(
        tuple(rows), (remark,), {"case-0": {"truth": {"file": "t.nii", "sha256": "ab"}}},
        missing=("case-9",), extra=("stray.nii.gz",),
    )  # fmt: skip


def test_the_table_has_the_official_columns_first_and_a_row_a_case(evaluation: Evaluation) -> None:
    rows = list(csv.reader(io.StringIO(csv_text(evaluation))))
    assert rows[0] == [
        "id", *CHALLENGE_COLUMNS, *OLDER_COLUMNS, *OWN_COLUMNS, *SAMPLE_COLUMNS, "volume_ml", "size_class", "site",
    ]  # fmt: skip
    official = "ssim mse rmse mae msle psnr psnr_eps psnr_01 psnr_01_eps"
    assert rows[0][1:10] == official.split()
    first, _, third = (dict(zip(rows[0], row, strict=True)) for row in rows[1:])
    assert (first["id"], first["psnr"], first["crps"], first["coverage_90"]) == ("case-0", "inf", "", "")
    assert (third["crps"], third["coverage_90"], third["site"]) == ("0.01", "", "cortex")
    assert float(third["mse"]) == evaluation.rows[2]["mse"]


def test_samples_have_no_column_where_no_case_has_them(evaluation: Evaluation) -> None:
    assert set(SAMPLE_COLUMNS).isdisjoint(score_columns(evaluation.rows[:2]))
    assert set(score_columns(evaluation.rows)) == set(COLUMNS)


def test_the_summary_is_by_size_and_site_and_counts_what_is_finite(evaluation: Evaluation) -> None:
    found = summary_json(evaluation)
    assert list(found["groups"]) == ["all", "1-5 ml", "cortex"]
    assert (found["cases"], found["missing"], found["extra"]) == (3, ["case-9"], ["stray.nii.gz"])
    assert found["groups"]["all"]["psnr"]["n"] == 2  # the perfect fill has no finite PSNR
    mse = found["groups"]["all"]["mse"]
    assert mse["low"] <= mse["median"] <= mse["high"]
    assert found["groups"]["all"]["coverage_90"] == {
        "n": 0,
        "mean": None,
        "median": None,
        "low": None,
        "high": None,
    }
    assert found["findings"][0]["code"] == "EV-02"
    assert found["files"]["case-0"]["truth"]["sha256"] == "ab"


def test_the_page_for_people_shows_scores_groups_and_what_is_missing(evaluation: Evaluation) -> None:
    text = markdown(evaluation)
    assert text.startswith("# Scores (cases: 3)\n")
    assert "| 3-D SSIM " in text
    assert "## By size and site" in text
    assert "| cortex | 2     |" in text
    assert "## Cases without a prediction\n\n- case-9\n" in text
    assert "## Predictions without a case\n\n- stray.nii.gz\n" in text
    assert "- [EV-02] 1 files" in text
    assert "nan" not in text
    whole = Evaluation(evaluation.rows[:1], (), {})
    assert "without" not in markdown(whole)


def test_the_same_scores_give_the_same_bytes(evaluation: Evaluation, tmp_path: Path) -> None:
    first = write_scores(evaluation, tmp_path)
    before = {role: path.read_bytes() for role, path in first.items()}
    assert {path.name for path in tmp_path.iterdir()} == {"scores.csv", "summary.md", "summary.json"}
    assert {role: path.read_bytes() for role, path in write_scores(evaluation, tmp_path).items()} == before
    assert json.loads(before["summary"]) == summary_json(evaluation)


def test_scores_that_are_there_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    out = tmp_path / "new" / "scores"
    (made,) = check_outputs(out, overwrite=False)
    assert (made.code, out.is_dir()) == ("RT-01", True)
    (out / "summary.md").write_text("precious")
    with pytest.raises(OutputError) as caught:
        check_outputs(out, overwrite=False)
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == (
        "RT-04",
        73,
        out / "summary.md",
    )
    assert check_outputs(out, overwrite=True) == []
