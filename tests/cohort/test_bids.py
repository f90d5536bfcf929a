"""The BIDS App: derivatives that the validator takes, faults told case by case, the group's table and page."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from neuromend.cli import main
from neuromend.cohort.bids_app import run_participants
from neuromend.cohort.clusters import EngineOptions
from neuromend.cohort.group import write_group
from neuromend.cohort.results import find_results
from neuromend.errors import OutputError
from neuromend.provenance import read_sidecar

from ..filling_cases import contents
from .bids_cases import SETTINGS, cases_of, run, validate, write

SINGLE = {
    "sub-01/anat/sub-01_T1w.nii.gz": "scan",
    "sub-01/anat/sub-01_label-lesion_roi.nii.gz": "mask",
    "sub-02/anat/sub-02_T1w.nii": "scan",
    "sub-02/anat/sub-02_desc-tumor_mask.nii.gz": "mask",
}
RUNS = {
    f"sub-01/ses-{session}/anat/sub-01_ses-{session}_run-{number}_{name}": what
    for session in ("a", "b")
    for number in (1, 2)
    for name, what in (("T1w.nii.gz", "scan"), ("label-lesion_mask.nii.gz", "mask"))
}
DERIVED = {
    "sub-01/anat/sub-01_acq-mprage_T1w.nii.gz": "scan",
    "sub-02/anat/sub-02_T1w.nii.gz": "scan",
    "derivatives/manual/dataset_description.json": '{"Name": "m", "BIDSVersion": "1.10.0", "DatasetType": '
    '"derivative", "GeneratedBy": [{"Name": "Manual"}]}',
    "derivatives/manual/dseg.tsv": "index\tname\n1\tbrain\n7\tLesion\n",
    "derivatives/manual/sub-01/anat/sub-01_acq-mprage_dseg.nii.gz": "dseg",
    "derivatives/manual/sub-02/anat/sub-02_desc-manual_mask.nii.gz": "mask",
    "derivatives/manual/sub-02/anat/sub-02_desc-manual_mask.json": '{"Type": "Lesion"}',
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize(
    "layout", [SINGLE, RUNS, DERIVED], ids=["single", "sessions-and-runs", "derived-masks"]
)
def test_the_validator_finds_no_error_in_the_derivatives(layout: dict[str, str], tmp_path: Path) -> None:
    root = write(tmp_path / "raw", layout)
    out = root / "derivatives" / "neuromend"
    done = run(root, out, replace(SETTINGS, samples=2 if layout is SINGLE else 0))
    assert len(done) == len([name for name in layout if "_T1w" in name])
    write_group(out, expected=done)
    assert validate(out) == []


def test_names_sources_and_fields_are_those_of_bids(tmp_path: Path) -> None:
    root = write(tmp_path / "raw", DERIVED)
    out = root / "derivatives" / "neuromend"
    run(root, out)
    anat = out / "sub-01" / "anat"
    record = read_sidecar(anat / "sub-01_acq-mprage_desc-inpainted_T1w.json")
    scan = "bids:raw:sub-01/anat/sub-01_acq-mprage_T1w.nii.gz"
    drawn = "bids:manual:sub-01/anat/sub-01_acq-mprage_dseg.nii.gz"
    assert record.Sources == [scan, drawn]
    assert record.settings.options["labels"] == [7]
    mask = json.loads((anat / "sub-01_acq-mprage_label-lesion_desc-inpainted_mask.json").read_text())
    assert (mask["Type"], mask["Sources"], mask["SpatialReference"]) == ("Lesion", [drawn], scan)
    assert len(mask["Lesions"]) == 1
    assert mask["Lesions"][0]["VolumeML"] == pytest.approx(record.mask.used_volume_ml, abs=1e-3)
    described = json.loads((out / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "neuromend"
    assert described["DatasetLinks"] == {"raw": "../..", "manual": "../manual"}
    assert described["SourceDatasets"] == [{"URL": "../..", "DOI": "doi:10.0/x"}]
    assert "ring-mean" in (out / "logs" / "CITATION.md").read_text()
    assert (out / "sub-01" / "figures" / "sub-01_acq-mprage_desc-inpainted_T1w.html").is_file()


def test_a_kept_result_is_completed_and_else_left_alone(tmp_path: Path) -> None:
    root = write(tmp_path / "raw", {name: what for name, what in SINGLE.items() if "sub-01" in name})
    out = tmp_path / "out"
    run(root, out)
    before = contents(out)
    sidecar = out / "sub-01" / "anat" / "sub-01_label-lesion_desc-inpainted_mask.json"
    sidecar.unlink()
    assert run(root, out)["sub-01"].kept
    assert contents(out) == before


def test_a_folder_of_another_program_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "raw", SINGLE)
    out = write(tmp_path / "out", {})
    with pytest.raises(OutputError) as caught:
        cases_of(root, out)
    assert (caught.value.code, caught.value.exit_status) == ("BD-06", 73)
    assert "not made by neuromend" in str(caught.value)
    assert str(out) in str(caught.value)
    with pytest.raises(OutputError, match="the dataset itself"):
        cases_of(root, root)


def test_one_scan_without_a_mask_fails_alone_on_a_cluster(tmp_path: Path) -> None:
    root = write(tmp_path / "raw", {**SINGLE, "sub-03/anat/sub-03_T1w.nii.gz": "scan"})
    write(root, {"sub-04/anat/sub-04_T1w.nii.gz": "scan", "sub-04/anat/sub-04_label-lesion_mask.nii.gz": ""})
    out = tmp_path / "out"
    cases = cases_of(root, out, participants=frozenset({"01", "03", "04"}))
    summary = run_participants(cases, SETTINGS, EngineOptions(workers=1))
    assert (summary.done, summary.failed) == (1, 2)
    failure, unreadable = rows(summary.failures)
    assert (unreadable["id"], unreadable["code"]) == ("sub-04", "IN-01")
    assert (failure["id"], failure["code"], failure["exit_status"]) == ("sub-03", "BD-03", "66")
    assert not (out / "sub-03").exists()
    assert not (out / "sub-04").exists(), "what failed leaves no empty folders"
    (result,) = find_results(out)
    assert result.id == "sub-01"
    assert result.picture == out / "sub-01" / "figures" / "sub-01_desc-inpainted_T1w.png"
    group = write_group(out, expected=["sub-01", "sub-02", "sub-03"])
    assert (group.cases, group.failed) == (4, 3)
    table = {row["id"]: row for row in rows(group.table)}
    assert [table[name]["status"] for name in ("sub-01", "sub-02", "sub-03")] == ["done", "missing", "failed"]
    assert table["sub-03"]["flags"] == "BD-03"
    assert table["sub-03"]["volume_ml"] == "n/a"
    page = group.page.read_text(encoding="utf-8")
    places = [page.index(f'data-id="{name}"') for name in ("sub-03", "sub-02", "sub-01")]
    assert places == sorted(places)
    assert 'href="sub-01/figures/sub-01_desc-inpainted_T1w.html"' in page


def test_the_command_takes_several_labels_after_one_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "raw", SINGLE)
    status = main(
        ["bids", str(root), str(tmp_path / "out"), "participant", "--participant_label", "01", "sub-09"]
    )
    told = capsys.readouterr().err
    assert status == 66
    assert "[BD-02]" in told
    assert "no sub-09 here" in told
