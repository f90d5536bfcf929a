"""``neuromend healthy-masks``: which files it reads and writes, and how it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from neuromend import cli
from neuromend.mask_making import PAGE
from neuromend.report import mask_sheet
from neuromend.report.mask_sheet import SheetRow, render_row, render_sheet

from .brats_cases import AFFINE, IDS, SHAPE, save

Run = Callable[..., tuple[int, str, str]]
SPACING_MM = 3.0


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command and returns its exit status, stdout and stderr."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        status = cli.main(["healthy-masks", *(str(argument) for argument in arguments)])
        return status, *capsys.readouterr()

    return command


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    return np.linalg.norm(np.moveaxis(np.indices(BIG), 0, -1) - centre, axis=-1) <= radius


BIG = (34, 38, 36)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cases; the last has its unhealthy mask instead of a segmentation."""
    rng = np.random.default_rng(0)
    brain = ball((16.5, 18, 17.5), 16)
    for number, name in enumerate(IDS):
        lesion = ball((12, 14, 10 + 2 * number), 2 + number)
        place = tmp_path / "cases" / name
        scan = np.where(brain, 900 + 100 * rng.standard_normal(BIG), 0).astype(np.int16)
        save(place / f"{name}-t1n.nii.gz", scan)
        kind = "mask-unhealthy" if number == 2 else "seg"
        save(place / f"{name}-{kind}.nii.gz", (lesion * (1 if number == 2 else 3)).astype(np.uint8))
    return tmp_path / "cases"


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_every_case_of_a_folder_gets_a_mask_on_its_own_grid(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    status, stdout, stderr = run("--cases", folder, "--out", out)
    assert status == 0, stderr
    for name in IDS:
        path = out / name / f"{name}-mask-healthy.nii.gz"
        assert str(path) in stdout
        image = nib.load(path)
        assert image.shape == BIG
        np.testing.assert_allclose(image.affine, AFFINE)
        assert image.get_data_dtype() == np.uint8
        mask = voxels(path)
        assert set(np.unique(mask)) == {0, 1}
        source = next((folder / name).glob(f"{name}-[sm]*"))
        lesion = voxels(source) > 0
        distance = ndimage.distance_transform_edt(~lesion, sampling=SPACING_MM)
        assert distance[mask > 0].min() >= (5.0 if "unhealthy" in source.name else 8.0)
    page = (out / PAGE).read_text()
    assert page.count("<section>") == 3
    assert page.count("<svg") == 9
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    bytes_of = {}
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert run("--cases", folder, "--out", tmp_path / name, "--seed", seed)[0] == 0
        bytes_of[name] = [p.read_bytes() for p in sorted((tmp_path / name).glob("*/*.nii.gz"))]
    assert bytes_of["a"] == bytes_of["b"]
    assert bytes_of["a"] != bytes_of["c"]


def test_one_scan_with_shapes_of_real_lesions(run: Run, folder: Path, tmp_path: Path) -> None:
    shape = np.zeros((20, 20, 20), np.uint8)
    shape[4:16, 4:16, 4:14] = 1
    save(tmp_path / "strokes" / "one.nii.gz", shape, np.eye(4))
    place = folder / IDS[0]
    status, stdout, stderr = run(
        "-i", place / f"{IDS[0]}-t1n.nii.gz", "--lesion", place / f"{IDS[0]}-seg.nii.gz",
        "--shapes", tmp_path / "strokes", "--out", tmp_path / "one", "--json",
    )  # fmt: skip
    assert status == 0, stderr
    (made,) = json.loads(stdout)["masks"]
    assert made["path"].endswith(f"{IDS[0]}-t1n-mask-healthy.nii.gz")
    assert made["volume_ml"] == pytest.approx(1.44, rel=0.3)
    assert made["brain_share"] >= 0.75


def test_a_healthy_scan_and_one_with_its_skull_get_masks_too(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    head = (np.where(ball((16.5, 18, 17.5), 15), 900, 10) + 20 * rng.random(BIG)).astype(np.int16)
    scan = save(tmp_path / "head.nii.gz", head)
    status, _, stderr = run("--image", scan, "--out", tmp_path / "out")
    assert status == 0, stderr
    mask = voxels(tmp_path / "out" / "head-mask-healthy.nii.gz") > 0
    assert (head[mask] > 500).mean() > 0.7


def test_masks_that_are_there_are_kept_unless_told_otherwise(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("--cases", folder, "--out", tmp_path / "m")[0] == 0
    status, _, stderr = run("--cases", folder, "--out", tmp_path / "m")
    assert status == 73
    assert "RT-04" in stderr
    assert run("--cases", folder, "--out", tmp_path / "m", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    "arguments", [(), ("--cases", "a", "--image", "b"), ("--cases", "a", "--lesion", "c")]
)
def test_one_scan_or_a_folder_must_be_given(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    status, _, stderr = run(*arguments, "--out", tmp_path)
    assert status == 2
    assert "UX-16" in stderr


def test_a_case_without_its_lesion_is_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / IDS[0] / f"{IDS[0]}-seg.nii.gz").unlink()
    status, _, stderr = run("--cases", folder, "--out", tmp_path / "m")
    assert status == 66
    assert "EV-04" in stderr
    assert f"{IDS[0]}-mask-unhealthy" in stderr
    assert not list((tmp_path / "m").rglob("*.nii.gz"))


def test_a_scan_that_is_all_lesion_is_refused(run: Run, tmp_path: Path) -> None:
    lesion = ball((16.5, 18, 17.5), 13)
    scan = np.where(ball((16.5, 18, 17.5), 14), 900, 0).astype(np.int16)
    scan[ball((16.5, 18, 17.5), 14)] += np.random.default_rng(0).integers(
        0, 90, int((scan > 0).sum()), np.int16
    )
    status, _, stderr = run(
        "--image", save(tmp_path / "t.nii.gz", scan),
        "--lesion", save(tmp_path / "l.nii.gz", lesion.astype(np.uint8)), "--out", tmp_path / "m",
    )  # fmt: skip
    assert status == 65
    assert re.search("TR-34|MA-", stderr)


# The page


def test_a_hostile_name_stays_text_and_the_page_says_what_is_left_out() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[5:9, 6:11, 7:13] = True
    values = np.random.default_rng(0).random(SHAPE)
    values[0, 0, 0] = np.nan
    row = SheetRow("<script>", "1 & 2", values, mask, np.zeros(SHAPE, bool), (1.0, 2.0, 3.0))
    page = render_sheet("Masks", [render_row(row)], 7)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "7 more cases are not shown" in page
    assert 'viewBox="0 0 20.0 44.0"' in page  # axial: 20 voxels of 1 mm across, 22 of 2 mm up
    assert mask_sheet.MOST_ROWS > 0
