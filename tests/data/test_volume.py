"""What the reader accepts, and what it says about it."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend.data.volume import Volume, read_volume, volume_from_image
from neuromend.errors import InputError

from .scan_files import (
    AFFINE,
    ORIENTATIONS,
    SHAPE,
    SPACING,
    extension,
    mgh_bytes,
    nifti_bytes,
    save,
    voxels_of,
)


def codes(volume: Volume) -> list[tuple[str, str]]:
    return [(finding.code, finding.level) for finding in volume.findings]


def read(folder: Path, payload: bytes, name: str = "scan.nii", **options: Any) -> Volume:
    return read_volume(save(folder, name, payload), **options)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_stored_type_is_read(tmp_path: Path, dtype: str, order: str, version: int, name: str) -> None:
    """IN-20."""
    voxels = voxels_of(dtype)
    volume = read(tmp_path, nifti_bytes(voxels, order=order, version=version), name)
    exact = dtype in ("u1", "i1", "u2", "i2", "f4")
    assert volume.values.dtype == (np.float32 if exact else np.float64)
    assert volume.values.dtype.isnative
    np.testing.assert_array_equal(volume.values, voxels.astype(volume.values.dtype))
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert volume.spacing_mm == pytest.approx(SPACING)
    assert (volume.container, volume.has_world) == (f"nifti{version}", True)
    assert volume.stored_dtype == np.dtype(dtype).newbyteorder(order)
    assert volume.findings == ()
    assert volume.sha256_file == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert volume.sha256_voxels == hashlib.sha256(voxels.astype(volume.stored_dtype).tobytes("F")).hexdigest()


def test_nothing_of_a_volume_can_be_written_to(tmp_path: Path) -> None:
    volume = read(tmp_path, nifti_bytes(voxels_of("f4")))
    for array in (volume.values, volume.raw, volume.stored()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(
    ("dtype", "slope", "inter"), [("i2", 0.0137, -3.0), ("f4", 2.0, 0.0), ("u1", -1.0, 255.0)]
)
def test_scaled_intensities_are_float64(tmp_path: Path, dtype: str, slope: float, inter: float) -> None:
    voxels = voxels_of(dtype)
    volume = read(tmp_path, nifti_bytes(voxels, slope=slope, inter=inter))
    assert volume.values.dtype == np.float64
    np.testing.assert_array_equal(volume.values, voxels.astype("f8") * np.float32(slope).item() + inter)
    np.testing.assert_allclose(volume.values, nib.load(tmp_path / "scan.nii").get_fdata(), rtol=1e-12)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_all_orientations_agree_with_nibabel(tmp_path: Path, orientation: Any) -> None:
    """IN-27, IN-28: the reader's affine is the one nibabel computes, by sform, by qform and oblique."""
    tilt = nib.eulerangles.euler2mat(0.3, 0.2, -0.4)
    for rotation in (np.eye(3), tilt):
        affine = np.eye(4)
        affine[:3, :3] = rotation @ orientation * SPACING
        affine[:3, 3] = (-11.5, 23.25, 7.75)
        image = nib.Nifti1Image(voxels_of("i2"), affine)
        for forms in ((1, 0), (0, 1), (1, 1)):
            image.header["sform_code"], image.header["qform_code"] = forms
            volume = read(tmp_path, image.to_bytes())
            # A quaternion in float32 tells a half turn to 3e-4 rad only, whoever reads it.
            np.testing.assert_allclose(volume.affine, affine, atol=2e-5 if forms[0] else 2e-3)
            assert all(finding.level == "note" for finding in volume.findings)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4"])
def test_mgh_agrees_with_nibabel(tmp_path: Path, dtype: str) -> None:
    voxels = voxels_of(dtype)
    payload = mgh_bytes(voxels)
    volume = read(tmp_path, payload, "scan.mgz")
    expected = nib.MGHImage.from_bytes(payload)
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)
    np.testing.assert_array_equal(volume.values, np.asarray(expected.dataobj))
    assert (volume.container, volume.findings) == ("mgh", ())


def test_files_of_newer_freesurfer_carry_an_intent(tmp_path: Path) -> None:
    assert read(tmp_path, mgh_bytes(voxels_of("u1"), version=0x0201), "scan.mgz").container == "mgh"


@pytest.mark.parametrize("dims", [(*SHAPE, 1), (*SHAPE, 1, 1), (*SHAPE, 1, 1, 1, 1)])
def test_singleton_axes_are_squeezed(tmp_path: Path, dims: tuple[int, ...]) -> None:
    """IN-11."""
    voxels = voxels_of("i2")
    volume = read(tmp_path, nifti_bytes(voxels.reshape(dims)))
    np.testing.assert_array_equal(volume.values, voxels)
    assert volume.header.dims == dims


@pytest.mark.parametrize("half", ["scan.hdr", "scan.img"])
@pytest.mark.parametrize("compressed", [("", ""), (".gz", ".gz"), ("", ".gz")])
def test_either_half_of_a_pair_may_be_given(tmp_path: Path, half: str, compressed: tuple[str, str]) -> None:
    voxels = voxels_of("i2")
    save(tmp_path, f"scan.hdr{compressed[0]}", nifti_bytes(voxels, pair=True))
    save(tmp_path, f"scan.img{compressed[1]}", voxels.tobytes(order="F"))
    volume = read_volume(tmp_path / (half + compressed[half.endswith("img")]))
    np.testing.assert_array_equal(volume.values, voxels)
    assert (volume.container, volume.path) == ("nifti1-pair", tmp_path / f"scan.img{compressed[1]}")


@pytest.mark.parametrize("name", ["scan.img", "scan.hdr", "scan.HDR"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_single_file_under_the_name_of_a_pair_is_read(tmp_path: Path, name: str, version: int) -> None:
    assert read(tmp_path, nifti_bytes(version=version), name).container == f"nifti{version}"


def test_names_do_not_matter_contents_do(tmp_path: Path) -> None:
    """IN-06."""
    plain = tmp_path / "plain.nii.gz"
    plain.write_bytes(nifti_bytes())
    packed = tmp_path / "packed.nii"
    packed.write_bytes(gzip.compress(nifti_bytes()))
    for path, words in ((plain, "not compressed"), (packed, "gzip-compressed")):
        volume = read_volume(path)
        assert codes(volume) == [("IN-06", "note")]
        assert words in volume.findings[0].message
        np.testing.assert_array_equal(volume.values, voxels_of("i2"))


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_bytes_behind_the_last_voxel_are_noted(tmp_path: Path, name: str) -> None:
    """IN-04."""
    volume = read(tmp_path, nifti_bytes() + b"tail" * 5, name)
    assert codes(volume) == [("IN-04", "note")]
    assert "20 bytes" in volume.findings[0].message


def test_bytes_behind_the_gzip_stream_are_noted(tmp_path: Path) -> None:
    """IN-04."""
    path = save(tmp_path, "scan.nii.gz", nifti_bytes())
    path.write_bytes(path.read_bytes() + bytes(70_000))
    volume = read_volume(path)
    assert codes(volume) == [("IN-04", "note")]
    assert "70000 bytes" in volume.findings[0].message
    assert volume.sha256_file == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_stream_of_many_gzip_members_is_one_file(tmp_path: Path) -> None:
    payload = nifti_bytes()
    path = tmp_path / "scan.nii.gz"
    members = [payload[at : at + 700] for at in range(0, len(payload), 700)]
    path.write_bytes(b"".join(gzip.compress(member) for member in members))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values, voxels_of("i2"))
    assert volume.findings == ()


def test_header_extensions_are_noted(tmp_path: Path) -> None:
    """IN-37."""
    volume = read(tmp_path, nifti_bytes(extension=extension(b"x" * 100)))
    assert codes(volume) == [("IN-37", "note")]
    assert "112 bytes" in volume.findings[0].message


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf, -np.inf])
def test_a_slope_that_is_none_means_no_scaling(tmp_path: Path, slope: float) -> None:
    """IN-19: the intercept beside it means nothing either."""
    volume = read(tmp_path, nifti_bytes(slope=slope, inter=5.0))
    assert codes(volume) == [("IN-19", "note")]
    np.testing.assert_array_equal(volume.values, voxels_of("i2"))


def test_slope_and_intercept_zero_are_the_usual_way_to_say_no_scaling(tmp_path: Path) -> None:
    assert read(tmp_path, nifti_bytes(slope=0.0)).findings == ()


@pytest.mark.parametrize("slope", [1e-30, -1e13])
def test_an_extreme_slope_is_used_and_warned_of(tmp_path: Path, slope: float) -> None:
    """IN-19."""
    volume = read(tmp_path, nifti_bytes(slope=slope))
    assert codes(volume) == [("IN-19", "warning")]
    assert f"{np.float32(slope).item()}" in volume.findings[0].message
    np.testing.assert_allclose(volume.values, voxels_of("i2") * slope, rtol=1e-6)


def test_large_integers_and_floats_are_kept(tmp_path: Path) -> None:
    """IN-21."""
    voxels = voxels_of("i4")
    voxels[3, 4, 5] = 2**24 + 1
    assert read(tmp_path, nifti_bytes(voxels)).values[3, 4, 5] == 2**24 + 1
    floats = voxels_of("f4")
    floats[3, 4, 5] = 1e33
    assert read(tmp_path, nifti_bytes(floats)).values[3, 4, 5] == np.float32(1e33)


def test_voxels_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    """IN-15: counted by ``check_intensities``."""
    voxels = voxels_of("f4")
    voxels[1, 2, 3], voxels[4, 5, 6] = np.nan, -np.inf
    np.testing.assert_array_equal(read(tmp_path, nifti_bytes(voxels)).values, voxels)


@pytest.mark.parametrize("kind", ["nifti", "mgh"])
@pytest.mark.parametrize("orientation", ["RAS", "lps", "PIR"])
def test_a_stated_orientation_is_used_where_there_is_none(
    tmp_path: Path, kind: str, orientation: str
) -> None:
    """IN-22."""
    voxels = voxels_of("i2")
    if kind == "nifti":
        volume = read(tmp_path, nifti_bytes(voxels, sform_code=0), assume_orientation=orientation)
    else:
        volume = read(tmp_path, mgh_bytes(voxels, goodRASFlag=0), "s.mgz", assume_orientation=orientation)
    assert "".join(nib.aff2axcodes(volume.affine)) == orientation.upper()
    assert volume.spacing_mm == pytest.approx(SPACING)
    np.testing.assert_allclose(volume.affine @ [*(np.array(SHAPE) - 1) / 2, 1], [0, 0, 0, 1], atol=1e-9)
    assert not volume.has_world


def test_a_stated_orientation_does_not_override_the_file(tmp_path: Path) -> None:
    volume = read(tmp_path, nifti_bytes(), assume_orientation="RAS")
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert volume.has_world


def test_analyze_is_read_with_a_stated_orientation(tmp_path: Path) -> None:
    """IN-34."""
    voxels = voxels_of("i2")
    save(tmp_path, "scan.hdr", nifti_bytes(voxels, pair=True, magic=b"", order=">"))
    save(tmp_path, "scan.img", voxels.astype(">i2").tobytes(order="F"))
    volume = read_volume(tmp_path / "scan.img", assume_orientation="LAS")
    np.testing.assert_array_equal(volume.values, voxels)
    assert (volume.container, "".join(nib.aff2axcodes(volume.affine))) == ("analyze", "LAS")


@pytest.mark.parametrize(("shift", "level"), [(0.0005, None), (0.05, "note"), (7.25, "warning")])
def test_the_sform_wins_and_the_difference_is_told(tmp_path: Path, shift: float, level: str | None) -> None:
    """IN-23, IN-26."""
    moved = AFFINE.copy()
    moved[0, 3] += shift
    image = nib.Nifti1Image(voxels_of("i2"), AFFINE)
    image.set_sform(moved, 2)
    image.set_qform(AFFINE, 1)
    volume = read(tmp_path, image.to_bytes())
    np.testing.assert_allclose(volume.affine, moved, atol=1e-5)
    assert codes(volume) == ([] if level is None else [("IN-23", level)])
    assert level is None or f"{shift:.3g} mm" in volume.findings[0].message


@pytest.mark.parametrize("pixdim", [0.0, np.nan, np.inf, -3.0, 1.0])
def test_the_affine_gives_the_spacing_where_pixdim_differs(tmp_path: Path, pixdim: float) -> None:
    """IN-25."""
    volume = read(tmp_path, nifti_bytes(pixdim=[1, pixdim, *SPACING[1:], 1, 1, 1, 1]))
    assert codes(volume) == [("IN-25", "warning")]
    assert volume.spacing_mm == pytest.approx(SPACING)


def test_header_noise_is_no_difference(tmp_path: Path) -> None:
    """IN-26."""
    assert read(tmp_path, nifti_bytes(pixdim=[1, 3.0000002, 3.2499, 3.5001, 1, 1, 1, 1])).findings == ()


def test_shear_is_warned_of(tmp_path: Path) -> None:
    """IN-29."""
    for degrees, expected in ((0.5, []), (4.0, [("IN-29", "warning")])):
        affine = AFFINE.copy()
        affine[:3, 1] = 3.25 * np.array([np.sin(np.radians(degrees)), np.cos(np.radians(degrees)), 0])
        volume = read(tmp_path, nifti_bytes(affine=affine))
        assert codes(volume) == expected
        assert not expected or "4.0 degrees" in volume.findings[0].message


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 4.5), (0.5, 3.0, 3.5)])
def test_coarse_and_flat_voxels_are_warned_of(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    """IN-30."""
    volume = read(tmp_path, nifti_bytes(affine=np.diag([*spacing, 1.0])))
    assert codes(volume) == [("IN-30", "warning")]


@pytest.mark.parametrize(("code", "mm"), [(1, 1000.0), (3, 0.001)])
def test_units_are_converted_to_mm(tmp_path: Path, code: int, mm: float) -> None:
    """IN-31."""
    affine = np.diag([1 / mm, 1 / mm, 1 / mm, 1]) @ AFFINE
    volume = read(tmp_path, nifti_bytes(affine=affine, xyzt_units=code))
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6)
    assert codes(volume) == [("IN-31", "note")]


@pytest.mark.parametrize(
    "name", ["with space.nii.gz", "naïve-頭.nii", "quo'te\".nii", "new\nline.nii", "~tilde.nii", "-dash.nii"]
)
def test_any_legal_name_works(tmp_path: Path, name: str) -> None:
    """IN-38."""
    assert read(tmp_path, nifti_bytes(), name).path == tmp_path / name


def test_a_link_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "link.nii"
    link.symlink_to(save(tmp_path, "scan.nii", nifti_bytes()))
    assert read_volume(str(link)).findings == ()


def memory_image(kind: Any, array: Any, affine: Any = AFFINE) -> Any:
    return kind(array, affine)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.MGHImage])
def test_images_in_memory_are_read(kind: Any) -> None:
    voxels = voxels_of("i2")
    volume = volume_from_image(memory_image(kind, voxels))
    np.testing.assert_array_equal(volume.values, voxels)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert (volume.path, volume.findings) == (None, ())


@pytest.mark.parametrize(
    ("array", "stored"),
    [(np.bool_, "u1"), (np.float16, "f4"), (np.int8, "i1"), (np.float64, "f8"), (">i4", ">i4")],
)
def test_arrays_are_stored_in_a_type_that_loses_nothing(array: Any, stored: str) -> None:
    voxels = voxels_of("u1").astype(array)
    header = nib.Nifti1Image(np.zeros(SHAPE, "f4"), AFFINE).header
    image = nib.Nifti1Image(voxels, AFFINE, header)
    volume = volume_from_image(image)
    assert volume.stored_dtype.newbyteorder("=") == np.dtype(stored).newbyteorder("=")
    np.testing.assert_array_equal(volume.values, voxels)


def test_an_image_from_a_file_keeps_stored_voxels_scaling_and_extensions(tmp_path: Path) -> None:
    payload = nifti_bytes(slope=0.0137, inter=2.0, order=">", extension=extension(b"vendor", order=">"))
    path = save(tmp_path, "scan.nii.gz", payload)
    assert volume_from_image(nib.load(path)).raw.tobytes() == read_volume(path).raw.tobytes() == payload


def test_an_affine_assigned_in_memory_is_the_one_used() -> None:
    image = nib.Nifti1Image(voxels_of("i2"), AFFINE)
    image.affine[:3, 3] = (1.5, 2.5, 3.5)
    np.testing.assert_allclose(volume_from_image(image).affine, image.affine)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (nib.AnalyzeImage(voxels_of("i2"), None), "IN-34"),
        ("a string", "IN-34"),
        (nib.Nifti1Image(voxels_of("i2"), None), "IN-22"),
        (nib.Nifti1Image(voxels_of("f4") + 1j, AFFINE), "IN-14"),
        (nib.Nifti1Image(np.zeros((20, 30), np.float32), AFFINE), "IN-13"),
        (nib.Nifti1Image(voxels_of("i2", (*SHAPE, 2)), AFFINE), "IN-12"),
    ],
)
def test_images_in_memory_that_cannot_be_filled_are_refused(image: Any, code: str) -> None:
    with pytest.raises(InputError) as caught:
        volume_from_image(image)
    assert (caught.value.code, caught.value.exit_status) == (code, 65)
