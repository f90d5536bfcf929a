"""Volumes of regions over samples: found by a pattern, named by a table, with an interval."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neuromend.cohort.regions import (
    check_pattern,
    find_segmentations,
    label_volumes,
    read_names,
    region_intervals,
    summarise,
)
from neuromend.errors import InputError, MissingInputError, UsageError

SHAPE = (16, 17, 18)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def segmentation(path: Path, sizes: dict[int, int]) -> Path:
    """A label map with so many voxels of each label, 0.006 ml each."""
    flat = np.zeros(int(np.prod(SHAPE)), np.int16)
    start = 0
    for label, size in sizes.items():
        flat[start : start + size] = label
        start += size
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(flat.reshape(SHAPE), AFFINE), path)
    return path


def test_volumes_are_mean_and_central_interval_over_samples(tmp_path: Path) -> None:
    paths = [
        segmentation(tmp_path / f"sub-01_sample-{number}_dseg.nii.gz", {17: size, 3: 100})
        for number, size in enumerate((100, 200, 300), 1)
    ]
    found = region_intervals(paths, {17: "hippocampus"})
    assert list(found) == ["label3", "hippocampus"]
    assert found["label3"].mean == pytest.approx(0.6)
    inside = found["hippocampus"]
    assert inside.mean == pytest.approx(1.2)
    # Linear between the ordered samples: 2.5 % of the way from 0.6 to 1.8 ml, and as far from the other end.
    assert (inside.low, inside.high, inside.count) == (pytest.approx(0.63), pytest.approx(1.77), 3)


def test_a_region_that_one_sample_lacks_has_no_volume_there(tmp_path: Path) -> None:
    paths = [segmentation(tmp_path / "a.nii.gz", {5: 100}), segmentation(tmp_path / "b.nii.gz", {6: 50})]
    found = region_intervals(paths)
    assert found["label5"].mean == pytest.approx(0.3)


def test_one_segmentation_gives_no_interval() -> None:
    assert summarise([2.0]).low is None


def test_patterns_find_the_segmentation_of_each_sample(tmp_path: Path) -> None:
    for number in ("01", "02"):
        segmentation(tmp_path / f"sub-01_ses-a_x{number}" / "aseg.nii.gz", {1: 1})
    pattern = f"{tmp_path}/sub-{{participant}}_ses-{{session}}_x{{sample}}/a*.nii.gz"
    found = find_segmentations(pattern, "sub-01_ses-a", 2)
    assert [path.parent.name[-2:] for path in found] == ["01", "02"]
    assert find_segmentations(pattern, "sub-02_ses-a", 2) == []
    with pytest.raises(MissingInputError, match="no segmentation of sample 3") as caught:
        find_segmentations(pattern, "sub-01_ses-a", 3)
    assert (caught.value.code, caught.value.exit_status) == ("BD-08", 66)
    with pytest.raises(InputError, match="2 files match") as several:
        find_segmentations(f"{tmp_path}/{{id}}_x*/aseg.nii.gz", "sub-01_ses-a", 0)
    assert (several.value.code, several.value.exit_status) == ("BD-08", 65)


@pytest.mark.parametrize("pattern", ["aseg.mgz", "{subject}/aseg.mgz", "{sample}.nii"])
def test_a_pattern_that_names_no_case_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_pattern(pattern)
    assert (caught.value.code, caught.value.exit_status) == ("BD-07", 2)
    assert pattern in str(caught.value)


def test_a_probability_map_is_no_segmentation(tmp_path: Path) -> None:
    path = tmp_path / "p.nii.gz"
    nib.save(nib.Nifti1Image(np.full(SHAPE, 0.5, np.float32), AFFINE), path)
    with pytest.raises(InputError) as caught:
        label_volumes(path)
    assert (caught.value.code, caught.value.path) == ("BD-08", path)


def test_names_come_from_a_bids_table_or_a_colour_table(tmp_path: Path) -> None:
    table, colours, other = tmp_path / "dseg.tsv", tmp_path / "lut.txt", tmp_path / "other.txt"
    table.write_text("index\tname\n17\tLeft hippocampus\n")
    colours.write_text("# No. Label Name: R G B A\n\n0 Unknown 0 0 0 0\n17 Left-Hippocampus 220 216 20 0\n")
    other.write_text("nothing\n")
    assert read_names(table) == {17: "Left-hippocampus"}
    assert read_names(colours)[17] == "Left-Hippocampus"
    with pytest.raises(InputError) as caught:
        read_names(other)
    assert (caught.value.code, caught.value.path) == ("BD-05", other)
