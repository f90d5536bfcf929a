"""cohort.tsv and failures.tsv: ordered, whole, one row a case."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neuromend.cohort.cases import Case, Outcome
from neuromend.cohort.tables import COLUMNS, FAILURE_COLUMNS, Tables
from neuromend.errors import StorageError
from neuromend.findings import Finding

from .cohort_cases import rows


def case(folder: Path, name: str) -> Case:
    return Case(name, folder / "in" / f"{name}.nii", folder / "in" / "m.nii", folder / "out" / name / "f.nii")


def test_rows_stand_in_the_order_of_the_cases_however_they_came(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with Tables(out) as tables:
        for number, name in ((2, "C"), (0, "A"), (3, "D")):
            tables.add(number, case(tmp_path, name), Outcome(name, "done", record=out / name / "f.json"))
        tables.add(
            1,
            case(tmp_path, "B"),
            Outcome("B", "failed", code="IN-35", message="x:\tno\nfile", exit_status=66),
        )
        assert not tables.cohort.exists(), "a table is whole or absent"
    assert [row["id"] for row in rows(tables.cohort)] == ["A", "B", "C", "D"]
    first, second, *_ = rows(tables.cohort)
    assert tuple(first) == COLUMNS
    assert (first["image"], first["record"]) == ("../in/A.nii", "A/f.json")
    assert (second["status"], second["code"], second["record"]) == ("failed", "IN-35", "")
    (failure,) = rows(tables.failures)
    assert tuple(failure) == FAILURE_COLUMNS
    assert (failure["id"], failure["exit_status"], failure["message"]) == ("B", "66", "x: no file")
    assert tables.counts == {"done": 3, "failed": 1}
    assert sorted(path.name for path in out.iterdir()) == ["cohort.tsv", "failures.tsv"]


def test_flags_are_named_once(tmp_path: Path) -> None:
    flags = (
        Finding("MA-14", "warning", "a"),
        Finding("IN-18", "warning", "b"),
        Finding("MA-14", "warning", "c"),
    )
    with Tables(tmp_path) as tables:
        tables.add(0, case(tmp_path, "A"), Outcome("A", "kept", flags=flags, volume_ml=1.25))
    (row,) = rows(tables.cohort)
    assert (row["flags"], row["volume_ml"], row["status"]) == ("MA-14,IN-18", "1.2500", "kept")


def test_a_run_that_is_stopped_writes_what_it_knows(tmp_path: Path) -> None:
    tables = Tables(tmp_path)

    def stopped_run() -> None:
        with tables:
            tables.add(5, case(tmp_path, "F"), Outcome("F", "done"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_run()
    assert [row["id"] for row in rows(tables.cohort)] == ["F"]
    assert rows(tables.failures) == []


def test_rows_of_earlier_runs_about_other_cases_are_kept(tmp_path: Path) -> None:
    with Tables(tmp_path) as first:
        for number, name in enumerate("ABC"):
            first.add(number, case(tmp_path, name), Outcome(name, "failed", code="IN-01", message="bad"))
    with Tables(tmp_path) as second:
        second.add(0, case(tmp_path, "B"), Outcome("B", "done"))
        second.add(1, case(tmp_path, "D"), Outcome("D", "failed", code="IN-02"))
    assert [(row["id"], row["status"]) for row in rows(second.cohort)] == [
        ("B", "done"), ("D", "failed"), ("A", "failed"), ("C", "failed"),
    ]  # fmt: skip
    assert [row["id"] for row in rows(second.failures)] == ["D", "A", "C"]
    assert second.counts == {"done": 1, "failed": 1}, "the summary is of this run"
    second.cohort.write_text("id\tnote\nX\tof another program\n", encoding="utf-8")
    with Tables(tmp_path):
        pass
    assert rows(second.cohort) == []


def test_runs_that_end_together_keep_each_others_rows(tmp_path: Path) -> None:
    def job(name: str) -> None:
        with Tables(tmp_path) as tables:
            tables.add(0, case(tmp_path, name), Outcome(name, "failed", code="IN-01"))

    names = [f"sub-{number:02d}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(job, names))
    assert sorted(row["id"] for row in rows(tmp_path / "cohort.tsv")) == names
    assert sorted(row["id"] for row in rows(tmp_path / "failures.tsv")) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort.tsv", "failures.tsv"]


def test_a_name_that_is_no_text_keeps_its_bytes(tmp_path: Path) -> None:
    odd = b"caf\xe9.nii".decode("utf-8", "surrogateescape")
    with Tables(tmp_path) as tables:
        tables.add(0, Case("A", tmp_path / odd, tmp_path / "m", tmp_path / "o"), Outcome("A", "done"))
    assert b"caf\xe9.nii" in tables.cohort.read_bytes()


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="RT-01"):
        Tables(tmp_path / "no")
    assert issubclass(StorageError, OSError)
