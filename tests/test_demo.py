"""The demo: a lesion planted into a healthy scan, filled, and compared with the truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neuromend import cli, demo
from neuromend.data.volume import volume_from_image
from neuromend.doctor import synthetic_head
from neuromend.errors import MissingInputError, UsageError


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # main() sets it for the process; here that is pytest's


@pytest.fixture(scope="module")
def healthy() -> nib.Nifti1Image:
    """A toy brain (80 x 96 x 72 voxels of 2 mm) as a float image with an offset: nothing like the template."""
    scan, _ = synthetic_head()
    values = np.asarray(scan.dataobj, np.float32) * 0.01 - 3
    return nib.Nifti1Image(values, scan.affine)


def test_the_whole_demo(healthy: nib.Nifti1Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nib.save(healthy, tmp_path / "mine.nii")
    before = (tmp_path / "mine.nii").read_bytes()
    words = ["demo", "-i", str(tmp_path / "mine.nii"), "-o", str(tmp_path / "demo"), "--model", "harmonic"]
    words += ["--lesion-ml", "8", "--seed", "2", "--device", "cpu"]
    assert cli.main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    files = {role: Path(path) for role, path in found["outputs"].items()}
    assert set(files) == {"scan", "lesion", "healthy", "filled", "mask", "picture", "report", "record"}
    assert {path.name for path in files.values()} == {path.name for path in (tmp_path / "demo").iterdir()}

    scan, truth, lesion, filled = (
        np.asarray(nib.load(files[role]).dataobj) for role in ("scan", "healthy", "lesion", "filled")
    )
    assert scan.dtype == truth.dtype == filled.dtype == np.int16
    mask = lesion > 0
    assert np.array_equal(scan[~mask], truth[~mask])
    assert np.array_equal(filled[~mask], truth[~mask])
    assert found["lesion_ml"] == pytest.approx(mask.sum() * 0.008)
    assert found["lesion_ml"] == pytest.approx(8, rel=0.05)
    assert scan[mask].mean() < 0.7 * truth[mask].mean()  # it looks like a cavity
    assert (
        abs(filled[mask] - truth[mask]).mean() < 0.6 * abs(scan[mask] - truth[mask]).mean()
    )  # the fill does not
    assert found["psnr_db"] == pytest.approx(found["harmonic_psnr_db"], abs=0.5)
    assert "likeness to the hidden truth inside the mask: PSNR " in err
    assert "MNI152" not in err

    # Again into the same folder: replaced, and the same bytes.
    first = {role: path.read_bytes() for role, path in files.items() if role not in ("record", "report")}
    assert cli.main(words) == 0
    assert {role: files[role].read_bytes() for role in first} == first
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(": ")[0] for line in lines} == set(files)
    assert (tmp_path / "mine.nii").read_bytes() == before


def test_the_input_is_never_replaced(healthy: nib.Nifti1Image, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    image = tmp_path / "demo" / "demo_T1w.nii.gz"
    nib.save(healthy, image)
    before = image.read_bytes()
    assert cli.main(["demo", "-i", str(image), "-o", str(tmp_path / "demo")]) == 73
    assert image.read_bytes() == before


def test_a_lesion_too_large_is_refused(healthy: nib.Nifti1Image) -> None:
    scan = volume_from_image(healthy)
    with pytest.raises(UsageError, match="a lesion of 900 ml") as refused:
        demo.plant_lesion(scan, 900.0, np.random.default_rng(0))
    assert (refused.value.code, refused.value.exit_status) == ("UX-14", 2)


@pytest.mark.parametrize("ml", [0.05, 3.0, 30.0])
@pytest.mark.parametrize("flip", [1, -1])
def test_a_lesion_lies_in_one_hemisphere_and_in_the_brain(
    healthy: nib.Nifti1Image, ml: float, flip: int
) -> None:
    values, affine = np.asarray(healthy.dataobj)[::flip], healthy.affine
    scan = volume_from_image(nib.Nifti1Image(values, affine))
    for seed in range(3):
        mask = demo.plant_lesion(scan, ml, np.random.default_rng(seed))
        side = np.sign((np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3])[:, 0])
        assert len(set(side)) == 1
        assert mask.sum() * 0.008 == pytest.approx(ml, rel=0.2)
        assert (values[mask] > values.min()).all()
        assert np.array_equal(mask, demo.plant_lesion(scan, ml, np.random.default_rng(seed)))


def test_a_cavity_is_dark_inside_and_changes_nothing_outside() -> None:
    image = np.ones((11, 12, 13), np.float32)
    mask = np.zeros(image.shape, np.bool_)
    mask[2:9, 3:9, 4:10] = True
    painted = demo.paint_cavity(image, mask, (1.0, 1.2, 0.9), np.random.default_rng(0))
    assert np.array_equal(painted[~mask], image[~mask])
    assert painted[5, 6, 7] == pytest.approx(0.25 + 0.75 * np.exp(-2), abs=0.15)
    assert painted[5, 6, 7] < painted[2, 6, 7] < 1


def test_the_template_is_a_scan_of_a_brain_and_needs_no_network() -> None:
    scan = volume_from_image(demo.load_template())
    assert scan.spacing_mm == (1.0, 1.0, 1.0)
    assert scan.values.max() == 1.0
    mask = demo.plant_lesion(scan, 20.0, np.random.default_rng(0))
    assert (scan.values[mask] > 0.05).mean() > 0.99


def test_without_nilearn_the_command_to_install_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(MissingInputError):
        demo.load_template()
    assert cli.main(["demo", "-o", str(tmp_path)]) == 66
    err = capsys.readouterr().err
    assert "[UX-13] the demo scan comes with nilearn" in err
    assert "pip install 'neuromend[demo]'" in err


def test_the_story_says_that_the_template_is_easy() -> None:
    done = demo.DemoResult({}, (), 20.0, 6.5, 25.0, 21.5, is_template=True)
    assert done.story() == [
        "filled 20.0 ml in 6.5 s",
        "likeness to the hidden truth inside the mask: PSNR 25.00 dB (harmonic fill: 21.50 dB)",
        demo.TEMPLATE_NOTE,
    ]
    assert done.as_json()["psnr_db"] == 25.0
