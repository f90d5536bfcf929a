"""Adapters of other tools, with stand-ins for the tools: what they are told, and what is made of their answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend.errors import GeometryError, MissingInputError, ModelFaultError
from neuromend.external import EXTERNAL, fill_with, identity

SHAPE = (7, 8, 9)
AFFINE = np.array([[0.0, -2, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])

# Takes the place after -o (as FSL and NiftySeg) or below it (as neuroLIT), and copies a prepared answer there.
STAND_IN = """#!/bin/sh
pwd > "$FAKE/folder"; printf '%s\\n' "$@" > "$FAKE/words"; printf '%s' "$FSLOUTPUTTYPE" > "$FAKE/output-type"
cp "$2" "$FAKE/scan.nii.gz"; cp "$4" "$FAKE/mask.nii.gz"
while [ "$1" != -o ]; do shift; done
case "$0" in *lit-inpainting) mkdir "$2/inpainting_volumes"; target="$2/inpainting_volumes/inpainting_result.nii.gz";;
*) target="$2";; esac
cp "$FAKE/answer.nii.gz" "$target"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All three tools on the PATH, which answer with ``answer.nii.gz`` of this folder."""
    for tool in EXTERNAL.values():
        program = tmp_path / "bin" / tool.executable
        program.parent.mkdir(exist_ok=True)
        program.write_text(STAND_IN)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.delenv("FSLOUTPUTTYPE", raising=False)
    return tmp_path


def scan() -> Any:
    return nib.Nifti1Image(np.random.default_rng(1).uniform(10, 90, SHAPE).astype(np.float32), AFFINE)


def hole() -> Any:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 3:6, 4:6] = 1
    return nib.Nifti1Image(mask, AFFINE)


def answer(folder: Path, values: Any, affine: Any = AFFINE) -> np.ndarray:
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), affine), folder / "answer.nii.gz")
    return np.asarray(values, np.float32)


@pytest.mark.parametrize("name", EXTERNAL)
def test_only_voxels_of_the_hole_are_taken(name: str, fake: Path) -> None:
    given, mask = np.asarray(scan().dataobj), np.asarray(hole().dataobj) == 1
    returned = answer(fake, np.where(mask, 55.0, given))
    if name == "neurolit":
        returned = answer(fake, returned * 2.5 + 4)
    filled = fill_with(EXTERNAL[name], scan(), hole())
    assert filled.dtype == np.float32
    assert np.array_equal(filled[~mask], given[~mask])
    np.testing.assert_allclose(filled[mask], 55.0, rtol=1e-4)


def test_what_a_tool_does_outside_the_hole_is_dropped(fake: Path) -> None:
    answer(fake, np.full(SHAPE, 33.0))
    filled = fill_with(EXTERNAL["fsl"], scan(), hole())
    assert (filled == np.where(np.asarray(hole().dataobj) == 1, 33, np.asarray(scan().dataobj))).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fsl", ["-i", "scan.nii.gz", "-l", "mask.nii.gz", "-o", "filled.nii.gz"]),
        ("niftyseg", ["-i", "scan.nii.gz", "-l", "mask.nii.gz", "-o", "filled.nii.gz"]),
        ("neurolit", ["-i", "scan.nii.gz", "-m", "mask.nii.gz", "-o", "out", "--keepgeom"]),
    ],
)
def test_each_is_called_as_its_documentation_says(name: str, words: list[str], fake: Path) -> None:
    answer(fake, scan().dataobj)
    fill_with(EXTERNAL[name], scan(), hole())
    said = (fake / "words").read_text().splitlines()
    assert [Path(word).name for word in said] == words
    assert np.array_equal(nib.load(fake / "scan.nii.gz").get_fdata(dtype=np.float32), scan().dataobj)
    assert np.array_equal(np.asarray(nib.load(fake / "mask.nii.gz").dataobj), hole().dataobj)
    assert not Path((fake / "folder").read_text().strip()).exists()  # the temporary folder is gone


def test_fsl_is_told_the_file_type_unless_the_user_has(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(fake, scan().dataobj)
    fill_with(EXTERNAL["fsl"], scan(), hole())
    assert (fake / "output-type").read_text() == "NIFTI_GZ"
    monkeypatch.setenv("FSLOUTPUTTYPE", "NIFTI")
    fill_with(EXTERNAL["fsl"], scan(), hole())
    assert (fake / "output-type").read_text() == "NIFTI"


@pytest.mark.parametrize("tool", EXTERNAL.values(), ids=EXTERNAL)
def test_a_tool_that_is_not_installed_is_named(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingInputError) as caught:
        fill_with(tool, scan(), hole())
    assert (caught.value.code, caught.value.exit_status) == ("BM-01", 66)
    assert tool.executable in caught.value.what
    assert tool.name in caught.value.fix


def test_a_tool_that_fails_is_quoted(fake: Path) -> None:
    (fake / "bin" / "seg_FillLesions").write_text("#!/bin/sh\necho first; echo 'no licence' >&2; exit 3\n")
    with pytest.raises(ModelFaultError) as caught:
        fill_with(EXTERNAL["niftyseg"], scan(), hole())
    assert (caught.value.code, caught.value.exit_status) == ("BM-02", 70)
    assert "seg_FillLesions ended with status 3: no licence" in caught.value.what


def test_a_tool_that_writes_nothing_has_failed_too(fake: Path) -> None:
    (fake / "bin" / "lesion_filling").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(ModelFaultError, match=r"did not write filled.nii.gz: it said nothing"):
        fill_with(EXTERNAL["fsl"], scan(), hole())


@pytest.mark.parametrize("wrong", ["shape", "affine"])
def test_a_result_on_another_grid_is_refused(wrong: str, fake: Path) -> None:
    values = np.zeros((9, 8, 7) if wrong == "shape" else SHAPE)
    answer(fake, values, AFFINE + (0 if wrong == "shape" else np.eye(4)[[3, 3, 3, 0]] * 0.01))
    with pytest.raises(GeometryError) as caught:
        fill_with(EXTERNAL["neurolit"], scan(), hole())
    assert (caught.value.code, caught.value.exit_status) == ("BM-03", 65)
    assert "lit-inpainting" in caught.value.what
    assert "(7, 8, 9)" in caught.value.what


def test_clipped_extremes_do_not_spoil_the_scale(fake: Path) -> None:
    given, mask = np.asarray(scan().dataobj), np.asarray(hole().dataobj) == 1
    low, high = np.percentile(given[~mask], [1, 99])
    answer(fake, (np.where(mask, 40.0, given).clip(low, high) - low) / (high - low) * 255)
    filled = fill_with(EXTERNAL["neurolit"], scan(), hole())
    np.testing.assert_allclose(filled[mask], 40.0, rtol=1e-3)


def test_another_version_of_a_tool_is_another_method(fake: Path) -> None:
    before = identity(EXTERNAL["fsl"])
    assert identity(EXTERNAL["fsl"]) == before
    with (fake / "bin" / "lesion_filling").open("a") as file:
        file.write("# newer\n")
    assert identity(EXTERNAL["fsl"]) != before
