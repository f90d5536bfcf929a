"""The lesion back in a segmentation: its voxels only, in any format, on any grid that fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend.cli import main
from neuromend.errors import GeometryError, InputError, OutputError
from neuromend.relabel import LESION_LABEL, relabel

from .filling_cases import AFFINE, ball, radius, turned

LESION = ball()


def segmentation(dtype: str = "int32") -> np.ndarray[Any, Any]:
    """Cortex 3, white matter 2, background 0."""
    r = radius()
    return np.where(r < 0.6, 2, np.where(r < 0.8, 3, 0)).astype(dtype)


def write(
    folder: Path, name: str = "aseg.nii.gz", dtype: str = "int32", codes: str = "RAS"
) -> tuple[Path, Path]:
    seg, mask = nib.Nifti1Image(segmentation(dtype), AFFINE), nib.Nifti1Image(LESION.astype(np.uint8), AFFINE)
    image = turned(seg, codes) if codes != "RAS" else seg
    if name.endswith(("mgz", "mgh")):
        image = nib.MGHImage(np.asarray(image.dataobj), image.affine)
    nib.save(image, folder / name)
    nib.save(mask, folder / "lesion.nii.gz")
    return folder / name, folder / "lesion.nii.gz"


def labels_of(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("name", ["aseg.nii.gz", "aseg.nii", "aseg.mgz", "aseg.img"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_only_the_lesion_changes_in_every_format_and_type(name: str, dtype: str, tmp_path: Path) -> None:
    if name.endswith("img"):
        seg, mask = write(tmp_path, "aseg.nii", dtype)
        nib.save(nib.Nifti1Pair.from_image(nib.load(seg)), tmp_path / name)
        seg = tmp_path / name
    else:
        seg, mask = write(tmp_path, name, dtype)
    out = tmp_path / "out" / name
    done = relabel(seg, mask, out)
    before, after = labels_of(seg), labels_of(out)
    assert after.dtype == before.dtype
    assert np.array_equal(after != before, LESION)
    assert (after[LESION] == LESION_LABEL).all()
    assert nib.load(out).affine.tolist() == nib.load(seg).affine.tolist()
    assert done.volume_ml == pytest.approx(LESION.sum() * 0.008)
    assert sum(done.replaced.values()) == pytest.approx(done.volume_ml)
    assert list(done.replaced) == sorted(done.replaced, key=lambda k: -done.replaced[k])


def test_a_mask_in_another_orientation_is_told_and_then_accepted(tmp_path: Path) -> None:
    seg, mask = write(tmp_path, codes="LIA")
    with pytest.raises(GeometryError) as caught:
        relabel(seg, mask, tmp_path / "out.nii.gz")
    assert "--resample-mask" in str(caught.value)
    assert not (tmp_path / "out.nii.gz").exists()
    relabel(seg, mask, tmp_path / "out.nii.gz", resample_mask=True)
    back = nib.as_closest_canonical(nib.load(tmp_path / "out.nii.gz"))
    assert np.array_equal(np.asarray(back.dataobj) == LESION_LABEL, LESION)


def test_intensities_are_no_segmentation(tmp_path: Path) -> None:
    seg, mask = write(tmp_path, dtype="float32")
    nib.save(nib.Nifti1Image(segmentation("float32") + np.float32(0.25), AFFINE), seg)
    with pytest.raises(InputError, match="no whole numbers") as caught:
        relabel(seg, mask, tmp_path / "out.nii.gz")
    assert (caught.value.code, caught.value.exit_status) == ("RL-01", 65)


@pytest.mark.parametrize("label", [0, -4, 256])
def test_a_label_that_the_type_cannot_hold_is_refused(label: int, tmp_path: Path) -> None:
    seg, mask = write(tmp_path, dtype="uint8")
    with pytest.raises(InputError, match=f"label {label} cannot be stored as uint8") as caught:
        relabel(seg, mask, tmp_path / "out.nii.gz", label=label)
    assert caught.value.code == "RL-02"


def test_a_label_that_means_something_else_is_refused_with_a_free_one(tmp_path: Path) -> None:
    seg, mask = write(tmp_path)
    with pytest.raises(InputError, match="used already") as caught:
        relabel(seg, mask, tmp_path / "out.nii.gz", label=2)
    assert caught.value.code == "RL-03"
    assert "--label 1" in str(caught.value)


def test_doing_it_twice_is_doing_it_once(tmp_path: Path) -> None:
    seg, mask = write(tmp_path)
    relabel(seg, mask, tmp_path / "once.nii.gz")
    again = relabel(tmp_path / "once.nii.gz", mask, tmp_path / "twice.nii.gz")
    assert again.replaced == {}
    assert np.array_equal(labels_of(tmp_path / "once.nii.gz"), labels_of(tmp_path / "twice.nii.gz"))


def test_nothing_is_overwritten_without_consent(tmp_path: Path) -> None:
    seg, mask = write(tmp_path)
    relabel(seg, mask, tmp_path / "out.nii.gz")
    with pytest.raises(OutputError) as caught:
        relabel(seg, mask, tmp_path / "out.nii.gz")
    assert caught.value.code == "RT-04"
    with pytest.raises(OutputError):
        relabel(seg, mask, seg, overwrite=True)


def test_another_format_for_the_output_is_refused(tmp_path: Path) -> None:
    seg, mask = write(tmp_path)
    with pytest.raises(OutputError) as caught:
        relabel(seg, mask, tmp_path / "out.mgz")
    assert caught.value.code == "IN-34"


def test_relabel_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seg, mask = write(tmp_path)
    assert (
        main(["relabel", str(seg), str(mask), "-o", str(tmp_path / "out.nii.gz"), "--label", "77", "--json"])
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["label"] == 77
    assert set(told["replaced_ml"]) <= {"0", "2", "3"}
    assert (labels_of(tmp_path / "out.nii.gz")[LESION] == 77).all()
