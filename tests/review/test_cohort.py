"""The list of a cohort and the verdicts on it: what reviewers decided must never be lost or mixed up."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import neuromend
from neuromend.errors import MissingInputError, NeuromendError
from neuromend.provenance import Sidecar
from neuromend.review.cohort import Cohort
from neuromend.review.desk import Desk
from neuromend.review.session import Session
from neuromend.review.verdicts import Verdict, as_table, read_verdicts, verdict_file, write_verdict

from .review_cases import client_of, make_desk, save_mask, save_scan

SEED = 2**60 + 1  # a browser's numbers cannot hold it

STRANGE = ["sub-01", "../../x", "a/b", "a_b", "<b>x</b>", "sub 01", "SUB-01", "", "." * 5, "x" * 300, "脑"]


@pytest.fixture
def cohort_folder(tmp_path: Path) -> Path:
    """Two cases: one with its scan beside it, one whose scan is gone."""
    folder = tmp_path / "cohort"
    for case, samples in (("one", 2), ("two", 0)):
        place = folder / case
        place.mkdir(parents=True)
        scan, mask = save_scan(place, f"{case}_T1w.nii.gz"), save_mask(place, f"{case}_lesion.nii.gz")
        neuromend.fill(scan, mask, place, model="ring-mean", samples=samples, seed=SEED)
    (folder / "two" / "two_T1w.nii.gz").unlink()
    return folder


def at(desk: Desk, folder: Path) -> TestClient:
    desk.cohort = Cohort(folder, desk.session)
    return client_of(desk)


def test_cases_are_listed_at_once_and_opened_one_by_one(tmp_path: Path, cohort_folder: Path) -> None:
    desk = make_desk(tmp_path, model="ring-mean")
    web = at(desk, cohort_folder)
    told = web.get("/api/session").json()
    assert told["scans"] == []
    one, two = told["cohort"]["cases"]
    assert (one["name"], two["name"]) == ("one_T1w", "two_T1w")
    assert one["volume_ml"] > 0
    assert one["verdict"] is None
    assert web.get(f"/api/files/{one['thumbnail']}").content[:4] == b"\x89PNG"

    scan = web.get(f"/api/scans/{one['scan']}").json()
    assert (scan["name"], scan["input_missing"]) == ("one_T1w.nii.gz", False)
    (result,) = scan["results"]
    assert set(result["files"]) == {"filled", "mask", "uncertainty", "sample-01", "sample-02"}
    assert (result["model"], result["samples"], result["mask"]) == ("ring-mean", 2, scan["masks"][0]["id"])
    assert result["seed"] == str(SEED)
    assert result["saved"]
    assert web.get(f"/api/scans/{one['scan']}").json() == scan
    assert [open_["id"] for open_ in web.get("/api/session").json()["scans"]] == [one["scan"]]
    assert web.get(f"/api/scans/{two['scan']}").json()["input_missing"]
    for file in (scan["id"], *result["files"].values()):
        assert web.get(f"/api/files/{file}").status_code == 200
    before = {path: path.stat().st_mtime_ns for path in cohort_folder.rglob("*") if path.is_file()}
    assert web.post(f"/api/results/{result['id']}/save", json={}).json()["files"] == result["saved"]
    assert web.delete(f"/api/results/{result['id']}").status_code == 204
    assert before == {path: path.stat().st_mtime_ns for path in cohort_folder.rglob("*") if path.is_file()}
    desk.close()


def test_a_verdict_is_a_file_and_a_row_and_is_there_after_a_restart(
    tmp_path: Path, cohort_folder: Path
) -> None:
    desk = make_desk(tmp_path, model="ring-mean")
    web = at(desk, cohort_folder)
    case = web.get("/api/session").json()["cohort"]["cases"][0]
    body = {"verdict": "needs-edit", "note": "seam\tat the\nback <b>"}
    line = web.put(f"/api/cases/{case['id']}/verdict", json=body).json()
    assert {"verdict": "needs-edit", "note": body["note"]}.items() <= line["verdict"].items()
    written = json.loads((cohort_folder / "review" / "one_T1w.json").read_text())
    assert (written["case"], written["verdict"], written["note"]) == ("one_T1w", "needs-edit", body["note"])
    table = web.get("/api/verdicts.tsv")
    assert table.headers["content-type"].startswith("text/tab-separated-values")
    rows = [row.split("\t") for row in table.text.splitlines()]
    assert rows[0] == ["case", "verdict", "note", "time"]
    assert rows[1][:3] == ["one_T1w", "needs-edit", "seam at the back <b>"]
    assert rows[2] == ["two_T1w", "n/a", "n/a", "n/a"]
    for wrong in ({"verdict": "maybe"}, {"note": "x"}, {"verdict": "accept", "note": "x" * 4001}):
        assert web.put(f"/api/cases/{case['id']}/verdict", json=wrong).status_code == 422
    again = Cohort(cohort_folder, Session(_folder(tmp_path / "again")))
    assert again.as_json()["cases"][0]["verdict"] == line["verdict"]
    assert len(again.cases) == 2  # a verdict is no result
    assert (
        web.put(f"/api/cases/{case['id']}/verdict", json={"verdict": None}).json()["verdict"]["verdict"]
        is None
    )
    desk.close()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_every_case_has_a_file_of_its_own_in_the_folder_of_verdicts(tmp_path: Path) -> None:
    """WE-06: an id comes from a table or a file name of others."""
    files = {verdict_file(tmp_path, case) for case in STRANGE}
    assert (
        len({str(path).casefold() for path in files}) == len(STRANGE) - 1
    )  # sub-01 and SUB-01 are plain names
    for case in STRANGE:
        path = verdict_file(tmp_path, case)
        assert path.resolve().parent == (tmp_path / "review").resolve()
        write_verdict(tmp_path, Verdict.now(case, "accept", case))
    assert {verdict.case for verdict in read_verdicts(tmp_path).values()} == set(STRANGE)


def test_files_that_are_no_verdicts_are_passed_over(tmp_path: Path) -> None:
    write_verdict(tmp_path, Verdict.now("good", "reject", ""))
    for name, text in {
        "a": "{", "b": "[]", "c": '{"case": "x"}', "d": '{"case": 1, "verdict": "accept", "note": "", "time": ""}',
        "e": '{"case": "x", "verdict": "evil", "note": "", "time": ""}', "f": " " * 70_000,
    }.items():  # fmt: skip
        (tmp_path / "review" / f"{name}.json").write_text(text)
    assert list(read_verdicts(tmp_path)) == ["good"]
    assert as_table(["good"], read_verdicts(tmp_path)).splitlines()[1].startswith("good\treject\tn/a\t20")


def test_a_cohort_that_cannot_be_written_to_says_so(tmp_path: Path) -> None:
    (tmp_path / "review").write_text("a file")
    with pytest.raises(NeuromendError) as refused:
        write_verdict(tmp_path, Verdict.now("x", "accept", ""))
    assert refused.value.code == "RT-01"


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_without_results_is_refused(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "none"
    if there:
        folder.mkdir()
    with pytest.raises(MissingInputError) as refused:
        Cohort(folder, Session(_folder(tmp_path / "session")))
    assert (refused.value.code, refused.value.exit_status) == ("IN-38", 66)


def test_a_link_that_leads_out_of_the_cohort_is_not_served(
    tmp_path: Path, make_sidecar: Callable[..., Sidecar]
) -> None:
    """WE-06: a cohort may come from elsewhere."""
    folder = _folder(tmp_path / "cohort")
    (tmp_path / "secret.png").write_text("secret")
    (folder / "case.png").symlink_to(tmp_path / "secret.png")
    outputs = [{"role": "picture", "file": "case.png", "sha256": "ab" * 32}]
    (folder / "case.json").write_text(make_sidecar(outputs=outputs).to_json())
    cohort = Cohort(folder, Session(_folder(tmp_path / "session")))
    assert cohort.as_json()["cases"][0]["thumbnail"] is None


def test_a_large_cohort_is_listed_in_little_memory(
    tmp_path: Path, make_sidecar: Callable[..., Sidecar]
) -> None:
    """A few kilobytes a case: nothing of a case is read but its sidecar."""
    folder = _folder(tmp_path / "cohort")
    text = make_sidecar().to_json()
    for number in range(200):
        (folder / f"case-{number:04d}.json").write_text(text)
    session = Session(_folder(tmp_path / "session"))
    Cohort(folder, session)  # what is loaded once
    tracemalloc.start()
    cohort: Any = Cohort(folder, session)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cohort.cases) == 200
    assert kept / 200 < 8_000
