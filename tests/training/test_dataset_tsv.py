"""The table of the development data: train and dev by person, never anything else."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neuromend.corpus.tables import read_cases_table

from .conftest import load_script


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("dataset_tsv", monkeypatch)


def test_only_train_and_dev_scans_are_listed(data: Path, tmp_path: Path, script: ModuleType) -> None:
    rows = read_cases_table(script.write_table(data, tmp_path))
    assert [(row["id"], row["split"], row["kind"]) for row in rows] == [
        ("ixi2mm-IXI002", "train", "scan"),
        ("ixi2mm-IXI012", "train", "scan"),
        ("ixi2mm-IXI013", "dev", "scan"),
        ("labels-seg01", "train", "labels"),
        ("malf-1000", "train", "scan"),
        ("malf-1001", "dev", "scan"),
    ]
    assert all(row["image"].is_file() for row in rows)


def test_the_registration_of_each_scan_stands_beside_the_table(
    data: Path, tmp_path: Path, script: ModuleType
) -> None:
    rows = read_cases_table(script.write_table(data, tmp_path))
    assert np.loadtxt(rows[0]["mni"])[0, 3] == 1.5
    assert "mni" not in rows[3]


@pytest.mark.shared
def test_no_scan_kept_for_evaluation_is_listed(tmp_path: Path, script: ModuleType) -> None:
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (shared / "subjects.tsv").is_file():
        pytest.skip("needs ../shared/data")
    rows = read_cases_table(script.write_table(shared, tmp_path))
    assert {row["split"] for row in rows} == {"train", "dev"}
    assert not [row["id"] for row in rows if "other" in row["image"].parts]
    people: dict[str, set[str]] = {}
    for row in rows:
        people.setdefault(row["subject"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in people.values())
    assert len(rows) == 208
