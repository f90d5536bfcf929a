"""The names of the files that a fill writes, plain and as BIDS derivatives."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

import neuromend
from neuromend.planning import OutputPlan
from neuromend.provenance import read_sidecar

from .filling_cases import contents, save_pair


def names(out: Path, samples: int = 0) -> dict[str, str]:
    root = out.parents[-2] if len(out.parents) > 1 else out.parent
    plan = OutputPlan.of(out, "scan.nii.gz", samples=samples)
    return {role: path.relative_to(root).as_posix() for role, path in plan.files.items()}


def test_a_bids_name_in_its_subject_folder_gives_bids_names() -> None:
    found = names(Path("/o/sub-01/ses-2/anat/sub-01_ses-2_run-1_desc-inpainted_T1w.nii.gz"), samples=2)
    anat = "sub-01/ses-2/anat/sub-01_ses-2_run-1"
    assert found == {
        "filled": f"{anat}_desc-inpainted_T1w.nii.gz",
        "mask": f"{anat}_label-lesion_desc-inpainted_mask.nii.gz",
        "uncertainty": f"{anat}_desc-inpaintedUncertainty_T1w.nii.gz",
        "sample-01": f"{anat}_desc-inpaintedSample01_T1w.nii.gz",
        "sample-02": f"{anat}_desc-inpaintedSample02_T1w.nii.gz",
        "picture": "sub-01/figures/sub-01_ses-2_run-1_desc-inpainted_T1w.png",
        "report": "sub-01/figures/sub-01_ses-2_run-1_desc-inpainted_T1w.html",
        "record": f"{anat}_desc-inpainted_T1w.json",
    }


def test_the_same_name_elsewhere_is_a_plain_name() -> None:
    found = names(Path("/o/filled/sub-01_desc-inpainted_T1w.nii.gz"))
    assert found["mask"] == "filled/sub-01_desc-inpainted_T1w_mask.nii.gz"
    assert found["report"] == "filled/sub-01_desc-inpainted_T1w_report.html"


def test_a_raw_bids_name_in_its_subject_folder_is_a_plain_name() -> None:
    found = names(Path("/o/sub-01/anat/sub-01_T1w_inpainted.nii.gz"))
    assert found["mask"] == "sub-01/anat/sub-01_T1w_inpainted_mask.nii.gz"


def test_recorded_names_are_relative_to_the_sidecar() -> None:
    plan = OutputPlan.of("/o/sub-01/anat/sub-01_desc-inpainted_T1w.nii.gz", "scan.nii.gz", samples=0)
    assert plan.recorded_name("filled") == "sub-01_desc-inpainted_T1w.nii.gz"
    assert plan.recorded_name("report") == "../figures/sub-01_desc-inpainted_T1w.html"


def test_skip_existing_finds_a_whole_bids_result_and_misses_a_changed_figure(tmp_path: Path) -> None:
    scan, mask = save_pair(tmp_path)
    out = tmp_path / "sub-01" / "anat" / "sub-01_desc-inpainted_T1w.nii.gz"
    first = neuromend.fill(scan, mask, out, model="harmonic")
    files = {output.file for output in read_sidecar(first.outputs["record"]).outputs}
    assert "../figures/sub-01_desc-inpainted_T1w.png" in files
    before = contents(tmp_path)
    assert neuromend.fill(scan, mask, out, model="harmonic", skip_existing=True).kept
    assert contents(tmp_path) == before
    first.outputs["report"].write_text("changed")
    again = neuromend.fill(scan, mask, out, model="harmonic", skip_existing=True)
    assert not again.kept
    assert any("desc-inpainted_T1w.html is missing or was changed" in f.message for f in again.findings)
    assert contents(tmp_path).keys() == before.keys()
    assert np.array_equal(np.asarray(nib.load(out).dataobj), np.asarray(first.image.dataobj))
