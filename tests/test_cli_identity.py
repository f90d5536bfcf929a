"""Promise 1 through the command line: outside the mask every byte of the output file is the input's.

The files are written and compared by hand, byte by byte, with no reader or writer of neuromend. What does not touch
the filled file (the picture, the report, the question to git) is left out, so that 500 runs take seconds.
"""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray

from neuromend import cli

SHAPE = (17, 20, 16)  # in RAS order
DTYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
ENDIANS = ("<", ">")
SCALINGS = ((0.0, 0.0), (0.37, -12.5), (250.0, 3.0))  # slope 0 means: no scaling
SPACINGS_MM = ((4.0, 3.5, 4.5), (5.0, 3.0, 6.0), (4.0, 4.1, 4.2))  # the last one is oblique
ORIENTATIONS = tuple(
    np.column_stack([order, flips])
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
)
PER_FILE_TYPE = 33
EXTENSION = np.array([32, 6], np.int32)  # 32 bytes, code 6 (a comment); the comment follows

Case = tuple[int, int, int]  # indices of scaling, spacing, orientation


def cases_of(number: int) -> list[Case]:
    """The combinations of one file type (two numbers a type: its byte orders); together they fill every pair."""
    kind, swapped = divmod(number, 2)
    turns = [(6 * kind + 24 * swapped + k) % len(ORIENTATIONS) for k in range(PER_FILE_TYPE)]
    return [((turn + kind) % 3, (turn // 3 + kind // 3) % 3, turn) for turn in turns]


def test_at_least_500_combinations_cover_every_value_and_pair() -> None:
    cases = [(number // 2, number % 2, *case) for number in range(16) for case in cases_of(number)]
    assert len(set(cases)) == len(cases) >= 500
    sizes = (8, 2, 3, 3, 48)
    for one, other in itertools.combinations(range(5), 2):
        pairs = {(case[one], case[other]) for case in cases}
        assert len(pairs) == sizes[one] * sizes[other], (one, other)


def head(dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Stored values (RAS) of a small head, and a lesion that holds the largest value its type can store."""
    rng = np.random.default_rng(3)
    offset = (np.indices(SHAPE).transpose(1, 2, 3, 0) - (np.array(SHAPE) - 1) / 2) / (np.array(SHAPE) / 2.3)
    radius = np.linalg.norm(offset, axis=-1)
    stored = np.where(
        radius < 1, 60 + 30 * (radius < 0.6) + rng.normal(0, 3, SHAPE), rng.uniform(0, 3, SHAPE)
    )
    lesion = np.linalg.norm(offset - [0.3, 0.1, 0.2], axis=-1) < 0.35
    kind = np.dtype(dtype)
    typed = (np.rint(stored) if kind.kind in "iu" else stored).astype(kind)
    typed[lesion] = np.iinfo(kind).max if kind.kind in "iu" else 1e30
    return typed, lesion


def affine_of(spacing: int) -> NDArray[np.float64]:
    affine = np.diag([*SPACINGS_MM[spacing], 1.0])
    affine[:3, 3] = -30, -41, 12
    if spacing == 2:
        angle = np.deg2rad(17)
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ affine
    return affine


def nifti(
    voxels: NDArray[Any], affine: NDArray[np.float64], endian: str, scaling: int, *, second: bool
) -> bytes:
    """A NIfTI-1 or NIfTI-2 file, put together by hand, with a header extension."""
    header = (nib.Nifti2Header if second else nib.Nifti1Header)(endianness=endian)
    header.set_data_dtype(voxels.dtype.newbyteorder(endian))
    header.set_data_shape(voxels.shape)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code=1)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = SCALINGS[scaling]
    header["descrip"] = b"kept as it is"
    extension = EXTENSION.astype(EXTENSION.dtype.newbyteorder(endian)).tobytes() + b"a comment to keep".ljust(
        24, b"\0"
    )
    header["vox_offset"] = header.structarr.itemsize + 4 + 32
    data = voxels.astype(voxels.dtype.newbyteorder(endian)).tobytes("F")
    return bytes(header.structarr.tobytes()) + b"\1\0\0\0" + extension + data


def mgh(voxels: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    """An MGH file (always big-endian) with bytes behind the voxels, where FreeSurfer keeps its tags."""
    image = nib.MGHImage(voxels, affine)
    image.header.set_data_dtype(voxels.dtype)
    return bytes(image.to_bytes()) + b"tags of FreeSurfer"


def read(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def fill_and_compare(
    folder: Path, content: bytes, start: int, name: str, mask: NDArray[np.bool_], item: int
) -> None:
    """Run the command on a file (as given, or gzipped, as its name says) and compare byte by byte."""
    scan, lesion, out = folder / f"scan{name}", folder / "lesion.nii", folder / f"out{name}"
    zipped = name.endswith(("gz", "mgz"))
    scan.write_bytes(gzip.compress(content, 1) if zipped else content)
    words = ["fill", "-i", scan, "-m", lesion, "-o", out, "--model", "harmonic", "--overwrite", "-q"]
    assert cli.main([*map(str, words), "--device", "cpu", "--threads", "1"]) == 0
    found = read(out)
    end = start + mask.size * item
    assert len(found) == len(content)
    assert found[:start] == content[:start]  # header and extensions
    assert found[end:] == content[end:]
    before, after = (np.frombuffer(data[start:end], np.uint8).reshape(-1, item) for data in (content, found))
    inside = mask.reshape(-1, order="F")
    assert np.array_equal(before[~inside], after[~inside])
    assert (before[inside] != after[inside]).any(axis=1).all()  # every voxel of the lesion was filled
    record = json.loads((folder / "out.json").read_text())["result"]
    assert record["outside_identical_voxels"] == int((~inside).sum())
    assert record["filled_voxels"] == int(inside.sum())


@pytest.fixture
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr("neuromend.saving.write_picture", lambda case, file: file.write(b"picture"))
    monkeypatch.setattr("neuromend.saving.render_page", lambda case: "report")
    monkeypatch.setattr("neuromend.provenance.git_commit", lambda: None)


@pytest.mark.usefixtures("_light")
@pytest.mark.parametrize("number", range(16), ids=lambda n: f"{ENDIANS[n % 2]}{DTYPES[n // 2]}")
def test_nifti_outside_the_mask_is_identical_byte_for_byte(
    tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    endian, dtype = ENDIANS[number % 2], DTYPES[number // 2]
    canonical, lesion = head(dtype)
    for turn, (scaling, spacing, orientation) in enumerate(cases_of(number)):
        axes = ORIENTATIONS[orientation]
        affine = affine_of(spacing) @ inv_ornt_aff(axes, SHAPE)
        voxels, mask = apply_orientation(canonical, axes), apply_orientation(lesion, axes)
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / "lesion.nii")
        second = turn % 4 == 3
        content = nifti(voxels, affine, endian, scaling, second=second)
        start = (540 if second else 348) + 4 + 32
        name = ".nii.gz" if turn % 3 == 2 else ".nii"
        fill_and_compare(tmp_path, content, start, name, mask, voxels.dtype.itemsize)
    capsys.readouterr()


@pytest.mark.usefixtures("_light")
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_mgh_outside_the_mask_is_identical_byte_for_byte(
    tmp_path: Path, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    canonical, lesion = head(dtype)
    for number, axes in enumerate(ORIENTATIONS[::5]):
        affine = affine_of(number % 3) @ inv_ornt_aff(axes, SHAPE)
        voxels, mask = apply_orientation(canonical, axes), apply_orientation(lesion, axes)
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / "lesion.nii")
        fill_and_compare(
            tmp_path, mgh(voxels, affine), 284, (".mgz", ".mgh")[number % 2], mask, voxels.dtype.itemsize
        )
    capsys.readouterr()
