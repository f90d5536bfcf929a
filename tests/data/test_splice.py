"""The first promise: outside the mask, nothing changes."""

from __future__ import annotations

import gzip
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from neuromend.data.companion import companion
from neuromend.data.splice import (
    Spliced,
    check_suffix,
    encode,
    far_outside,
    files_of,
    splice,
    spliced_image,
    to_stored,
    verify_header_half,
    verify_identical_outside,
)
from neuromend.data.volume import Volume, read_volume, volume_from_image
from neuromend.errors import ModelFaultError, OutputError, StorageError

from .scan_files import (
    ORIENTATIONS,
    SHAPE,
    SPACING,
    blob,
    extension,
    mgh_bytes,
    nifti_bytes,
    save,
    voxels_of,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SCALINGS = [(1.0, 0.0), (0.0137, 0.0), (-2.5, 1024.0)]
SPACINGS = [SPACING, (4.0, 3.0, 3.5), (3.1, 5.0, 3.0)]


def placed(orientation: NDArray[np.float64], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = orientation * spacing
    affine[:3, 3] = (-20.5, 31.25, 7.0)
    return affine


def independent_diff(
    before: bytes, after: bytes, offset: int, itemsize: int, mask: NDArray[np.bool_]
) -> NDArray[Any]:
    """Which bytes differ outside the mask, without any of our code; both uncompressed."""
    allowed = np.zeros(len(before), dtype=np.bool_)
    allowed[offset : offset + mask.size * itemsize] = np.repeat(mask.ravel(order="F"), itemsize)
    return np.flatnonzero((np.frombuffer(before, "u1") != np.frombuffer(after, "u1")) & ~allowed)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_byte_outside_the_mask_is_untouched(tmp_path: Path, dtype: str, order: str) -> None:
    """A sixth of the 432 scaling x spacing x orientation combinations each, 1,152 in all, spread by a seed."""
    combinations = list(product(SCALINGS, SPACINGS, ORIENTATIONS))
    chosen = np.random.default_rng([ord(order), *map(ord, dtype)]).permutation(len(combinations))[:72]
    voxels, mask = voxels_of(dtype), blob()
    path = tmp_path / "scan.nii"
    for (slope, inter), spacing, orientation in (combinations[i] for i in chosen):
        before = nifti_bytes(
            voxels, order=order, slope=slope, inter=inter, affine=placed(orientation, spacing)
        )
        path.write_bytes(before)
        volume = read_volume(path)
        filled = np.random.default_rng(1).normal(200, 90, SHAPE) * abs(slope) + inter
        after = splice(volume, filled, mask).payload
        assert independent_diff(before, after, 352, np.dtype(dtype).itemsize, mask).size == 0
        assert before != after
        path.write_bytes(after)
        assert verify_identical_outside(volume, path, mask) == mask.size - mask.sum()
        # A2: what is read back is the prediction, to half a quantum where the type can hold it.
        wanted = (filled[mask] - inter) / slope
        found = volume.stored(np.frombuffer(after, np.uint8))[mask].astype(np.float64)
        low, high = (-np.inf, np.inf) if dtype[0] == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        quantum = 1e-4 if dtype[0] == "f" else 1.0
        assert np.abs(found - wanted)[(wanted > low) & (wanted < high)].max() <= 0.5 * quantum


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4"])
@pytest.mark.parametrize("name", ["scan.mgh", "scan.mgz"])
def test_mgh_keeps_every_byte_and_its_footer(tmp_path: Path, dtype: str, name: str) -> None:
    before = mgh_bytes(voxels_of(dtype))
    volume, mask = read_volume(save(tmp_path, name, before)), blob()
    spliced = splice(volume, np.full(SHAPE, 77.0), mask)
    assert independent_diff(before, spliced.payload, 284, np.dtype(dtype).itemsize, mask).size == 0
    assert spliced.payload.endswith(b"tr, te, tags")
    [(path, encoded)] = files_of(spliced, tmp_path / name)
    path.write_bytes(encoded)
    assert verify_identical_outside(volume, path, mask) == mask.size - mask.sum()
    image = nib.MGHImage.from_bytes(spliced.payload)
    assert (np.asarray(image.dataobj)[mask] == 77).all()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_header_extensions_are_kept_byte_for_byte(tmp_path: Path, version: int, order: str) -> None:
    """IN-37."""
    vendor = extension(b"<vendor>private</vendor>", order=order) + extension(b"AFNI", 4, order)
    before = nifti_bytes(version=version, order=order, extension=vendor)
    volume = read_volume(save(tmp_path, "scan.nii.gz", before))
    after = splice(volume, np.zeros(SHAPE), blob()).payload
    start = 348 if version == 1 else 540
    assert after[: start + 4 + len(vendor)] == before[: start + 4 + len(vendor)]
    assert [(f.code, f.level) for f in volume.findings] == [("IN-37", "note")]
    image = spliced_image(volume, splice(volume, np.zeros(SHAPE), blob()))
    assert [e.get_code() for e in image.header.extensions] == [6, 4]


def test_only_the_chosen_volume_of_a_series_changes(tmp_path: Path) -> None:
    voxels, mask = voxels_of("i2", (*SHAPE, 3, 2)), blob()
    volume = read_volume(save(tmp_path, "series.nii.gz", nifti_bytes(voxels)), volume_index=4)
    np.testing.assert_array_equal(volume.values, voxels[..., 1, 1])
    path = save(tmp_path, "filled.nii", splice(volume, np.full(SHAPE, -9.0), mask).payload)
    found = np.asarray(nib.load(path).dataobj)
    expected = voxels.copy()
    expected[..., 1, 1][mask] = -9
    np.testing.assert_array_equal(found, expected)
    assert verify_identical_outside(volume, path, mask) == voxels.size - mask.sum()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_both_halves_of_a_pair_are_kept(tmp_path: Path, version: int, suffix: str) -> None:
    voxels, mask = voxels_of("u2"), blob()
    header = nifti_bytes(voxels, version=version, pair=True)
    save(tmp_path, f"scan.hdr{suffix}", header)
    save(tmp_path, f"scan.img{suffix}", voxels.tobytes(order="F"))
    volume = read_volume(tmp_path / f"scan.hdr{suffix}")
    spliced = splice(volume, np.full(SHAPE, 1234.0), mask)
    written = files_of(spliced, tmp_path / f"filled.img{suffix}")
    assert [path.name for path, _ in written] == [f"filled.hdr{suffix}", f"filled.img{suffix}"]
    for path, payload in written:
        path.write_bytes(payload)
    verify_header_half(volume, tmp_path / f"filled.hdr{suffix}")
    assert verify_identical_outside(volume, tmp_path / f"filled.img{suffix}", mask) == mask.size - mask.sum()
    expected = voxels.copy()
    expected[mask] = 1234
    for image in (nib.load(tmp_path / f"filled.img{suffix}"), spliced_image(volume, spliced)):
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected)


def test_nan_payloads_outside_the_mask_survive(tmp_path: Path) -> None:
    voxels = voxels_of("f4")
    voxels[10] = np.array([0x7FC12345], "u4").view("f4")[0]
    before = nifti_bytes(voxels)
    volume = read_volume(save(tmp_path, "scan.nii", before))
    after = splice(volume, np.zeros(SHAPE), blob()).payload
    assert independent_diff(before, after, 352, 4, blob()).size == 0


def test_clipped_predictions_are_counted(tmp_path: Path) -> None:
    """IN-18, A5: the count equals an independent one."""
    volume = read_volume(save(tmp_path, "s.nii", nifti_bytes(voxels_of("u1"), slope=0.5, inter=10)))
    filled = np.random.default_rng(2).normal(70, 60, SHAPE)
    spliced = splice(volume, filled, blob())
    quanta = (filled[blob()] - 10) / 0.5
    assert spliced.clipped == np.count_nonzero((quanta < -0.5) | (quanta >= 255.5))
    stored = volume.stored(np.frombuffer(spliced.payload, np.uint8))[blob()]
    np.testing.assert_array_equal(stored, np.clip(np.rint(quanta), 0, 255))


def test_predictions_that_nearly_fit_are_told_from_those_far_outside(tmp_path: Path) -> None:
    """IN-18: beyond 0..255 by more than 2.55 stored values, which are 1.275 in the scan's units."""
    volume = read_volume(save(tmp_path, "s.nii", nifti_bytes(voxels_of("u1"), slope=0.5, inter=10)))
    filled = np.full(SHAPE, 70.0)
    inside = np.flatnonzero(blob())
    filled.flat[inside[:6]] = [10 - 1.2, 10 - 1.3, 137.5 + 1.2, 137.5 + 1.3, 1e6, 137.5]
    spliced = splice(volume, filled, blob())
    assert (spliced.clipped, spliced.clipped_far) == (5, 3)


@pytest.mark.parametrize(
    ("dtype", "value", "far"),
    [("<f4", 3.5e38, 1), ("<f4", 3.4e38, 0), ("<f8", np.inf, 1), ("<f8", 1.7e308, 0), (">i2", -33_500, 1)],
)
def test_far_outside_is_counted_in_every_type(dtype: str, value: float, far: int) -> None:
    assert far_outside(np.array([value, 0.0]), np.dtype(dtype)) == far


@pytest.mark.parametrize(
    ("dtype", "values", "stored", "clipped"),
    [
        ("u1", [-0.5, -0.51, 0.5, 1.5, 255.5, 255.49], [0, 0, 0, 2, 255, 255], 2),
        (">i2", [-32768.5, 32767.6, 1e9], [-32768, 32767, 32767], 2),
        ("<i8", [2.0**63, -(2.0**63), 2.0**62], [2**63 - 1, -(2**63), 2**62], 1),
        ("<u8", [2.0**64, 2.0**63, -1.0], [2**64 - 1, 2**63, 0], 2),
        ("<f4", [1e39, -1e39, 1e-50], [np.finfo("f4").max, -np.finfo("f4").max, 0], 2),
        ("<f8", [np.inf, 1e300, 0.1], [np.finfo("f8").max, 1e300, 0.1], 1),
    ],
)
def test_values_are_rounded_to_nearest_and_clipped(
    dtype: str, values: Any, stored: Any, clipped: int
) -> None:
    found, count = to_stored(np.array(values, dtype=np.float64), np.dtype(dtype))
    assert found.tolist() == np.array(stored, dtype=np.dtype(dtype)).tolist()
    assert count == clipped


def test_a_prediction_equal_to_the_image_changes_nothing(tmp_path: Path) -> None:
    """Quantising what was read gives back what was stored."""
    before = nifti_bytes(voxels_of("i2"), slope=0.0137, inter=-3.25)
    volume = read_volume(save(tmp_path, "s.nii", before))
    assert splice(volume, volume.values, np.ones(SHAPE, dtype=np.bool_)).payload == before


def test_a_prediction_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path, "s.nii", nifti_bytes()))
    filled = np.zeros(SHAPE)
    filled[3, 5, 11] = np.nan
    with pytest.raises(ModelFaultError, match="1 of 210 filled voxels") as caught:
        splice(volume, filled, blob())
    assert (caught.value.code, caught.value.exit_status) == ("RT-15", 70)


def test_arrays_of_other_shapes_are_a_programming_error(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path, "s.nii", nifti_bytes()))
    with pytest.raises(ValueError, match="expected arrays"):
        splice(volume, np.zeros((3, 4, 5)), blob())
    with pytest.raises(ValueError, match="expected an array"):
        companion(volume, np.zeros((3, 4, 5)), np.uint8)


def damage_header(raw: bytearray) -> None:
    raw[200] ^= 1


def damage_voxel(raw: bytearray) -> None:
    raw[352 + 2 * 100] ^= 4


def append(raw: bytearray) -> None:
    raw += b"x"


def cut(raw: bytearray) -> None:
    del raw[-1:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [(damage_header, "header"), (damage_voxel, "1 voxels"), (append, "9793 bytes"), (cut, "truncated")],
)
def test_a_written_file_that_differs_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    volume = read_volume(save(tmp_path, "s.nii", nifti_bytes(voxels_of("i2"))))
    payload = bytearray(splice(volume, np.zeros(SHAPE), blob()).payload)
    damage(payload)
    path = tmp_path / "filled.nii"
    path.write_bytes(payload)
    with pytest.raises(StorageError, match=message.replace("9793", str(352 + 2 * 4896 + 1))) as caught:
        verify_identical_outside(volume, path, blob())
    assert (caught.value.code, caught.value.exit_status) == ("RT-06", 74)


def test_a_changed_header_half_is_refused(tmp_path: Path) -> None:
    voxels = voxels_of("u2")
    header = save(tmp_path, "s.hdr", nifti_bytes(voxels, pair=True))
    save(tmp_path, "s.img", voxels.tobytes(order="F"))
    volume = read_volume(header)
    (tmp_path / "f.hdr").write_bytes(header.read_bytes()[:-1] + b"!")
    with pytest.raises(StorageError, match="header differs"):
        verify_header_half(volume, tmp_path / "f.hdr")


def test_the_same_payload_gives_the_same_compressed_bytes() -> None:
    payload = nifti_bytes()
    first = encode(payload, "a.nii.gz")
    assert first == encode(payload, "other.mgz")
    assert gzip.decompress(first) == payload
    assert first[3:10] == b"\0\0\0\0\0\0\xff"
    assert zlib.decompressobj(31).decompress(first) == payload
    assert encode(payload, "a.nii") is payload


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_companions_share_the_geometry(tmp_path: Path, order: str, version: int, dtype: Any) -> None:
    oblique = nib.eulerangles.euler2mat(0.2, -0.3, 0.4)
    affine = placed(oblique @ ORIENTATIONS[17], SPACING)
    source = save(
        tmp_path,
        "s.nii",
        nifti_bytes(
            order=order,
            version=version,
            affine=affine,
            slope=3,
            extension=extension(b"private", order=order),
            cal_max=9,
        ),
    )
    volume, values = read_volume(source), np.random.default_rng(3).integers(0, 2, SHAPE)
    path = save(tmp_path, "mask.nii.gz", companion(volume, values, dtype))
    found, original = nib.load(path), nib.load(source)
    assert found.get_data_dtype().newbyteorder("=") == dtype
    assert found.header.endianness == order
    np.testing.assert_array_equal(np.asarray(found.dataobj), values)
    np.testing.assert_array_equal(found.affine, original.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(found.header[field], original.header[field])
    assert len(found.header.extensions) == 0
    assert read_volume(path).findings == ()


def test_companions_of_mgh_are_mgh(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path, "s.mgz", mgh_bytes(voxels_of("i2"))))
    values = np.random.default_rng(3).normal(size=SHAPE).astype("f4")
    path = save(tmp_path, "u.mgz", companion(volume, values, np.float32))
    found = read_volume(path)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.affine, volume.affine)
    np.testing.assert_array_equal(nib.load(path).affine, volume.affine)


def test_the_companion_of_analyze_says_where_it_is(tmp_path: Path) -> None:
    voxels = voxels_of("i2")
    save(tmp_path, "s.hdr", nifti_bytes(voxels, pair=True, magic=b"", sform_code=0))
    save(tmp_path, "s.img", voxels.tobytes(order="F"))
    volume = read_volume(tmp_path / "s.img", assume_orientation="LAS")
    mask = read_volume(save(tmp_path, "mask.nii.gz", companion(volume, blob(), np.uint8)))
    np.testing.assert_allclose(mask.affine, volume.affine)
    np.testing.assert_array_equal(mask.values, blob())


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("scan.nii.gz", ["out.nii.gz", "OUT.NII"], ["out.mgz", "out.img", "out", "out.nii.gz.txt"]),
        ("scan.mgz", ["out.mgh", "out.mgz"], ["out.nii.gz"]),
    ],
)
def test_the_output_has_the_format_of_the_input(
    tmp_path: Path, name: str, allowed: list[str], refused: list[str]
) -> None:
    voxels = voxels_of("i2")
    volume = read_volume(
        save(tmp_path, name, mgh_bytes(voxels) if name.endswith("mgz") else nifti_bytes(voxels))
    )
    for target in allowed:
        check_suffix(volume, tmp_path / target)
    for target in refused:
        with pytest.raises(OutputError, match="must end in") as caught:
            check_suffix(volume, tmp_path / target)
        assert (caught.value.code, caught.value.exit_status) == ("IN-34", 73)


def in_memory(kind: str) -> Any:
    voxels = voxels_of("i2")
    classes = {"nifti1": nib.Nifti1Image, "nifti2": nib.Nifti2Image, "mgh": nib.MGHImage}
    return classes[kind](voxels, placed(ORIENTATIONS[5], SPACING))


@pytest.mark.parametrize("kind", ["nifti1", "nifti2", "mgh"])
def test_images_in_memory_come_back_as_the_same_class(kind: str) -> None:
    image = in_memory(kind)
    volume: Volume = volume_from_image(image)
    spliced: Spliced = splice(volume, np.full(SHAPE, 5.0), blob())
    found = spliced_image(volume, spliced)
    expected = np.where(blob(), 5, np.asarray(image.dataobj))
    assert type(found) is type(image)
    assert found.get_data_dtype() == image.get_data_dtype()
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)


def real_scans() -> list[Path]:
    patterns = [
        "healthy/oasis/1000_T1w*",
        "ms/patient26_T1w.*",
        "stroke/cstar01_T1w.*",
        "tumour/BraTS*/*t1n.nii.gz",
    ]
    return [path for pattern in patterns for path in sorted(SHARED.glob(pattern))]


@pytest.mark.shared
@pytest.mark.parametrize("number", range(5))
def test_real_scans_keep_every_voxel_outside_the_mask(tmp_path: Path, number: int) -> None:
    scans = real_scans()
    if not scans:
        pytest.skip("the real scans beside the checkout are not there")
    volume = read_volume(scans[number])
    corner = np.array(volume.shape) // 3
    mask = np.zeros(volume.shape, dtype=np.bool_)
    mask[tuple(slice(at, at + 20 + axis) for axis, at in enumerate(corner))] = True
    noise = np.random.default_rng(number).normal(volume.values.mean(), volume.values.std(), volume.shape)
    [(path, payload)] = files_of(splice(volume, noise, mask), tmp_path / "filled.nii.gz")
    path.write_bytes(payload)
    assert verify_identical_outside(volume, path, mask) == mask.size - mask.sum()
    before, after = gzip.decompress(scans[number].read_bytes()), gzip.decompress(payload)
    assert (
        independent_diff(before, after, volume.header.voxel_offset, volume.stored_dtype.itemsize, mask).size
        == 0
    )
