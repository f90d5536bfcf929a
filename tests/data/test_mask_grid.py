"""Which mask belongs to which scan: names, shapes, affines, and the way from one grid to the other."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from neuromend.data.volume import read_volume
from neuromend.errors import GeometryError, InputError

from .mask_phantom import AFFINE, SHAPE, ball, levels, message, prepare, stripped, volume

LESION = ball()


def moved(*offset_mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += offset_mm
    return affine


def test_the_image_itself_as_mask_is_refused() -> None:
    image = stripped(name="/data/scan.nii.gz")
    with pytest.raises(InputError, match=r"the same file as the image /data/scan\.nii\.gz") as caught:
        prepare(image, image)
    assert (caught.value.code, caught.value.exit_status) == ("MA-17", 65)


def test_a_copy_of_the_image_as_mask_is_refused(tmp_path: Path) -> None:
    picture = nib.Nifti1Image(stripped().values, AFFINE)
    for name in ("scan.nii", "copy.nii.gz"):
        nib.save(picture, tmp_path / name)
    with pytest.raises(InputError, match="a file with the same voxels") as caught:
        prepare(read_volume(tmp_path / "copy.nii.gz"), read_volume(tmp_path / "scan.nii"))
    assert caught.value.code == "MA-17"


@pytest.mark.parametrize(
    ("mask", "image", "says"),
    [
        ("sub-02_lesion.nii", "sub-01_T1w.nii", "named sub-02 and the image sub-01_T1w.nii sub-01"),
        ("sub-01_ses-b_lesion.nii", "sub-01_ses-a_T1w.nii", "named ses-b and the image"),
        ("/d/sub-02/masks/lesion.nii", "/d/sub-01/anat/sub-01_T1w.nii", "named sub-02"),
    ],
)
def test_a_mask_named_after_another_person_or_session_is_refused(mask: str, image: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        prepare(volume(LESION, name=mask), stripped(name=image))
    assert (caught.value.code, caught.value.exit_status) == ("MA-18", 65)
    assert "--force-pair" in caught.value.fix


def test_a_forced_pair_is_accepted_with_a_warning() -> None:
    pair = volume(LESION, name="sub-02_lesion.nii"), stripped(name="sub-01_T1w.nii")
    assert levels(prepare(*pair, force_pair=True)) == {"MA-18": "warning"}


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ("sub-01_label-lesion_mask.nii", "sub-01_ses-a_T1w.nii"),
        ("subsub-2.nii", "sub-1.nii"),
        ("lesion.nii", "sub-1.nii"),
        ("/other/sub-9/sub-1_mask.nii", "sub-1.nii"),
    ],
)
def test_names_that_do_not_contradict_each_other_pass(mask: str, image: str) -> None:
    assert levels(prepare(volume(LESION, name=mask), stripped(name=image))) == {}


def test_another_shape_is_refused() -> None:
    with pytest.raises(
        GeometryError, match=r"43 x 48 x 40 voxels and the image scan\.nii\.gz 44 x 48 x 40"
    ) as caught:
        prepare(volume(LESION[:-1]))
    assert (caught.value.code, caught.value.exit_status) == ("MA-09", 65)
    assert "--resample-mask" in caught.value.fix


def finer() -> tuple[np.ndarray, np.ndarray]:
    """The lesion drawn at twice the resolution, and its affine: each scan voxel is cut into eight."""
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= AFFINE[:3, :3] @ (0.25, 0.25, 0.25)
    return LESION.repeat(2, 0).repeat(2, 1).repeat(2, 2), affine


def test_a_mask_of_another_shape_is_resampled_when_asked_and_its_volume_reported() -> None:
    result = prepare(volume(*finer()), resample=True)
    assert np.array_equal(result.voxels, LESION)
    ml = LESION.sum() * 2.0 * 1.8 * 2.2 / 1000
    assert message(result, "MA-09").endswith(f"{ml:.3g} ml in 1 pieces before, {ml:.3g} ml in 1 after")
    assert levels(result) == {"MA-09": "note"}


def test_the_nearest_voxel_is_taken_through_an_oblique_space() -> None:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (11, -7, 23), degrees=True).as_matrix()
    affine = turn @ np.diag([1.5, 1.3, 1.7, 1])
    affine[:3, 3] = -affine[:3, :3] @ (30, 37, 31)
    drawn = np.zeros((61, 75, 63), np.uint8)
    rng = np.random.default_rng(8)
    drawn[28:40, 33:45, 30:44] = rng.random((12, 12, 14)) < 0.6
    result = prepare(volume(drawn, affine), resample=True)
    index = np.stack(np.indices(SHAPE), axis=-1)
    places = nib.affines.apply_affine(np.linalg.inv(affine) @ AFFINE, index)
    nearest = np.clip(np.rint(places), 0, np.array(drawn.shape) - 1).astype(int)
    expected = drawn[tuple(np.moveaxis(nearest, -1, 0))] > 0
    # Points half-way between two voxels may go either way.
    certain = (np.abs(places - np.floor(places) - 0.5) > 1e-3).all(axis=-1)
    assert result.voxels.sum() > 500
    assert np.array_equal(result.voxels[certain], expected[certain])


def test_lesions_lost_between_the_voxels_are_reported_as_a_warning() -> None:
    drawn, affine = finer()
    drawn[30, 48, 36] = True
    result = prepare(volume(drawn, affine), resample=True)
    assert levels(result)["MA-09"] == "warning"
    assert "in 2 pieces before" in message(result, "MA-09")
    assert message(result, "MA-09").endswith("in 1 after")


def test_a_lesion_that_vanishes_between_the_voxels_is_refused() -> None:
    drawn, affine = finer()
    drawn[:] = False
    drawn[48, 48, 40] = True
    with pytest.raises(GeometryError, match="vanishes on the coarser grid") as caught:
        prepare(volume(drawn, affine @ np.diag([0.9, 0.9, 0.9, 1])), resample=True)
    assert caught.value.code == "MA-09"


@pytest.mark.parametrize("offset_mm", [0.0, 0.004, 0.009])
def test_header_noise_up_to_a_hundredth_of_a_millimetre_is_silent(offset_mm: float) -> None:
    assert levels(prepare(volume(LESION, moved(0, offset_mm, 0)))) == {}


@pytest.mark.parametrize("offset_mm", [0.02, 0.5, 0.89])
def test_up_to_half_a_voxel_is_a_warning(offset_mm: float) -> None:
    result = prepare(volume(LESION, moved(0, offset_mm, 0)))
    assert levels(result) == {"MA-10": "warning"}
    assert f"differ by {offset_mm:g} mm" in message(result, "MA-10")
    assert np.array_equal(result.voxels, LESION)


def test_more_than_half_a_voxel_is_refused_with_the_worst_corner() -> None:
    scaled = AFFINE.copy()
    scaled[:3, 0] *= 1.1
    with pytest.raises(
        GeometryError, match=r"the \(last, 0, 0\) corner is 8.7 mm \(4.35 voxels\) apart"
    ) as caught:
        prepare(volume(LESION, scaled))
    assert (caught.value.code, caught.value.exit_status) == ("MA-10", 65)
    assert "--resample-mask" in caught.value.fix
    assert "fslcpgeom IMAGE MASK" in caught.value.fix


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, -1), (-1, 1, 1), (-1, -1, -1)])
def test_other_axes_of_the_same_space_are_refused_and_undone_exactly_by_resampling(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    orientation = np.array(list(zip(order, flips, strict=True)))
    turned = nib.Nifti1Image(LESION.astype(np.uint8), AFFINE).as_reoriented(orientation)
    mask = volume(np.asarray(turned.dataobj), turned.affine)
    with pytest.raises(GeometryError, match="--resample-mask reorders the voxels") as caught:
        prepare(mask)
    assert caught.value.code == ("MA-10" if mask.shape == SHAPE else "MA-09")
    assert np.array_equal(prepare(mask, resample=True).voxels, LESION)


@pytest.mark.parametrize("resample", [False, True])
def test_a_mask_outside_the_field_of_view_is_refused_with_the_distance(resample: bool) -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[4:9, 24, 20] = 1
    # The image ends at 44 mm on the right; the first lesion voxel is centred at -35 mm.
    with pytest.raises(GeometryError, match="the mask lies 143 mm outside the field of view") as caught:
        prepare(volume(drawn, moved(222, 0, 0)), resample=resample)
    assert (caught.value.code, caught.value.exit_status) == ("MA-12", 65)


def test_the_part_of_a_mask_that_is_cut_off_by_the_field_of_view_is_reported() -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[:44, 24:27, 20:22] = 1
    result = prepare(volume(drawn, moved(22, 0, 0)), resample=True)
    assert levels(result)["MA-12"] == "warning"
    assert "25.0% of the mask lies outside" in message(result, "MA-12")


def without_world(path: Path, values: np.ndarray) -> Path:
    image = nib.Nifti1Image(values, None)
    image.header.set_zooms((2.0, 1.8, 2.2))
    image.to_filename(path)
    return path


def test_two_files_without_world_coordinates_are_matched_by_voxel_with_a_warning(
    tmp_path: Path,
) -> None:
    mask = read_volume(without_world(tmp_path / "m.nii", LESION.astype(np.uint8)), assume_orientation="RAS")
    image = read_volume(without_world(tmp_path / "i.nii", stripped().values), assume_orientation="RAS")
    result = prepare(mask, image)
    assert np.array_equal(result.voxels, LESION)
    assert "MAY BE WRONG" in message(result, "IN-22")


def test_one_file_without_world_coordinates_is_refused(tmp_path: Path) -> None:
    mask = read_volume(without_world(tmp_path / "m.nii", LESION.astype(np.uint8)), assume_orientation="RAS")
    with pytest.raises(GeometryError, match="the mask does not say where it lies") as caught:
        prepare(mask, resample=True)
    assert (caught.value.code, caught.value.exit_status) == ("IN-22", 65)
    image = read_volume(without_world(tmp_path / "i.nii", stripped().values), assume_orientation="RAS")
    with pytest.raises(GeometryError, match="the image does not say where it lies"):
        prepare(volume(LESION), image)


def test_two_files_of_other_shapes_without_world_are_refused(tmp_path: Path) -> None:
    mask = read_volume(
        without_world(tmp_path / "m.nii", LESION[2:].astype(np.uint8)), assume_orientation="RAS"
    )
    image = read_volume(without_world(tmp_path / "i.nii", stripped().values), assume_orientation="RAS")
    with pytest.raises(GeometryError, match="different shapes and neither says") as caught:
        prepare(mask, image, resample=True)
    assert caught.value.code == "IN-22"


def answer(affine: np.ndarray, mask_affine: np.ndarray) -> str:
    """What happens to a mask with this header: the code of the refusal, or the levels found."""
    image = volume(stripped().values, affine, name="scan.nii.gz")
    try:
        return str(sorted(levels(prepare(volume(LESION, mask_affine), image)).items()))
    except GeometryError as refusal:
        return refusal.code


@pytest.mark.parametrize("seed", range(100))
def test_no_error_of_half_a_voxel_passes_and_no_header_noise_alarms(seed: int) -> None:
    """Scorecard B7: random oblique, anisotropic pairs; shifts of 0.1 to 50 voxels, flips and swaps."""
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(1.3, 3.0, 3)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = rng.uniform(-120, 120, 3)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)

    noisy, slightly, far, flipped, swapped = (affine.copy() for _ in range(5))
    noisy[:3, 3] += direction * rng.uniform(0, 0.0099)
    slightly[:3, 3] += affine[:3, :3] @ direction * rng.uniform(0.1, 0.49)
    far[:3, 3] += affine[:3, :3] @ direction * np.exp(rng.uniform(np.log(0.51), np.log(50)))
    axis = int(rng.integers(3))
    flipped[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
    flipped[:3, axis] *= -1
    swapped[:3, [0, 1, 2]] = affine[:3, [(1, 0, 2), (2, 1, 0), (0, 2, 1)][axis]]

    assert answer(affine, noisy) == "[]"
    assert answer(affine, slightly) == "[('MA-10', 'warning')]"
    assert answer(affine, far) in ("MA-10", "MA-12")
    assert answer(affine, flipped) in ("MA-10", "MA-12")
    assert answer(affine, swapped) in ("MA-10", "MA-12")
