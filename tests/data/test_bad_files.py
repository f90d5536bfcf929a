"""Every way in which a scan file can be bad: refused with a code, an exit status and a message, or harmless."""

from __future__ import annotations

import errno
import gzip
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend.data import container
from neuromend.data.splice import splice
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import NeuromendError

from .scan_files import AFFINE, SHAPE, extension, mgh_bytes, nifti_bytes, save, voxels_of, with_field

GOOD = nifti_bytes()
COMPLEX = {"datatype": 32, "bitpix": 64}


def refusal(path: Path | str, **options: Any) -> NeuromendError:
    with pytest.raises(NeuromendError) as caught:
        read_volume(path, **options)
    return caught.value


def read_or_refuse(path: Path, **options: Any) -> Volume | NeuromendError:
    """The volume or the foreseen error; anything else fails the test."""
    try:
        return read_volume(path, **options)
    except NeuromendError as error:
        return error


def damaged_gzip(kind: str) -> bytes:
    packed = bytearray(gzip.compress(GOOD, mtime=0))
    if kind == "crc":
        packed[-8] ^= 1
    elif kind == "length":
        packed[-4] ^= 1
    else:
        packed[len(packed) // 2] ^= 16
    return bytes(packed)


def qform(**fields: Any) -> bytes:
    """A file whose only affine is a qform."""
    return nifti_bytes(sform_code=0, qform_code=1, **fields)


def mirrored() -> bytes:
    image = nib.Nifti1Image(voxels_of("i2"), AFFINE)
    image.set_sform(AFFINE @ np.diag([-1, 1, 1, 1]), 1)
    image.set_qform(AFFINE, 1)
    return bytes(image.to_bytes())


DICOM = bytes(128) + b"DICM" + bytes(400)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

# (name of the case, code, file name, bytes on disk, what the message must name)
ROWS: list[tuple[str, str, str, bytes, list[str]]] = [
    ("empty", "IN-01", "s.nii.gz", b"", ["0 bytes", "download"]),
    ("half a stream", "IN-02", "s.nii.gz", gzip.compress(GOOD)[:4000], ["truncated", str(len(GOOD))]),
    ("a stream cut in the header", "IN-02", "s.nii.gz", gzip.compress(GOOD)[:60], ["truncated", "header"]),
    ("a stream cut in the checksum", "IN-02", "s.nii.gz", gzip.compress(GOOD)[:-3], ["truncated"]),
    (
        "a whole stream of half a file",
        "IN-02",
        "s.nii.gz",
        gzip.compress(GOOD[:5000]),
        [str(len(GOOD)), "5000"],
    ),
    ("half a header", "IN-02", "s.hdr", nifti_bytes(pair=True)[:347], ["348"]),
    ("half a plain header", "IN-02", "s.nii", GOOD[:300], ["348", "300"]),
    ("half an MGH header", "IN-02", "s.mgh", mgh_bytes(voxels_of("u1"))[:200], ["284", "200"]),
    ("half a NIfTI-2 header", "IN-02", "s.nii", nifti_bytes(version=2)[:539], ["540", "539"]),
    ("wrong checksum", "IN-03", "s.nii.gz", damaged_gzip("crc"), ["checksum", "gzip -t"]),
    ("wrong length", "IN-03", "s.nii.gz", damaged_gzip("length"), ["length"]),
    ("a flipped bit", "IN-03", "s.nii.gz", damaged_gzip("middle"), ["gzip"]),
    ("a web page", "IN-05", "s.nii.gz", b"<!DOCTYPE html><title>404</title>", ["web page", "DOCTYPE"]),
    ("a packed web page", "IN-05", "s.nii.gz", gzip.compress(b"  <html>" * 99), ["web page"]),
    ("a git-LFS pointer", "IN-05", "s.nii", LFS, ["git-LFS", "git lfs pull"]),
    ("a git-annex pointer", "IN-05", "s.nii", b"/annex/objects/MD5E-s1--1.nii.gz\n", ["git annex get"]),
    ("text", "IN-05", "s.nii", b"subject;age\n1;44\n", ["text", "subject;age"]),
    ("a PNG", "IN-05", "s.nii", b"\x89PNG\r\n\x1a\n" + bytes(600), ["PNG"]),
    ("a ZIP", "IN-05", "s.nii.gz", b"PK\x03\x04" + bytes(600), ["ZIP"]),
    ("a tar archive", "IN-05", "s.nii.gz", gzip.compress(bytes(257) + b"ustar" + bytes(300)), ["tar xf"]),
    ("bzip2", "IN-05", "s.nii.bz2", b"BZh91AY" + bytes(600), ["bunzip2"]),
    ("gzip twice", "IN-05", "s.nii.gz", gzip.compress(gzip.compress(os.urandom(999))), ["twice"]),
    ("wrong magic", "IN-07", "s.nii", with_field("magic", None, b"n+3"), ["magic", "n+3"]),
    ("wrong magic 2", "IN-07", "s.nii", nifti_bytes(version=2, magic=b"n-2"), ["magic", "n-2"]),
    ("text mode", "IN-07", "s.nii", nifti_bytes(version=2, eol_check=(10, 10, 26, 10)), ["text mode"]),
    ("zeros", "IN-07", "s.nii", bytes(999), ["not a NIfTI"]),
    ("wrong version", "IN-07", "s.mgz", mgh_bytes(voxels_of("u1"), version=2), ["version", "found 2"]),
    ("wrong size", "IN-07", "s.nii", with_field("sizeof_hdr", None, 347), ["sizeof_hdr", "348"]),
    ("datatype 77", "IN-07", "s.nii", with_field("datatype", None, 77), ["datatype", "77"]),
    ("one bit a voxel", "IN-07", "s.nii", with_field("datatype", None, 1), ["datatype", "found 1"]),
    ("bitpix", "IN-07", "s.nii", with_field("bitpix", None, 8), ["bitpix", "16", "found 8"]),
    (
        "offset in the header",
        "IN-07",
        "s.nii",
        with_field("vox_offset", None, 100),
        ["vox_offset", "352", "100"],
    ),
    ("offset NaN", "IN-07", "s.nii", with_field("vox_offset", None, np.nan), ["vox_offset", "nan"]),
    ("offset of a half", "IN-07", "s.nii", with_field("vox_offset", None, 352.5), ["vox_offset", "352.5"]),
    ("MGH type", "IN-07", "s.mgz", mgh_bytes(voxels_of("u1"), type=5), ["type", "found 5"]),
    ("zero size", "IN-08", "s.nii", with_field("dim", 1, 0), ["dim", "[0, 17, 18]"]),
    ("negative size", "IN-08", "s.nii", with_field("dim", 2, -17), ["dim", "-17"]),
    ("no axes", "IN-08", "s.nii", with_field("dim", 0, 0), ["dim[0]", "found 0"]),
    ("eight axes", "IN-08", "s.nii", with_field("dim", 0, 8), ["dim[0]", "found 8"]),
    ("MGH zero size", "IN-08", "s.mgz", mgh_bytes(voxels_of("u1"), dims=(16, 0, 18, 1)), ["dim"]),
    (
        "70 terabytes",
        "IN-09",
        "s.nii",
        with_field("dim", slice(1, 4), 32767),
        ["32767x32767x32767", str(len(GOOD))],
    ),
    (
        "70 terabytes, packed",
        "IN-09",
        "s.nii.gz",
        gzip.compress(with_field("dim", slice(1, 4), 32767)),
        ["32767x32767x32767", "at most"],
    ),
    ("one voxel missing", "IN-09", "s.nii", GOOD[:-2], [str(len(GOOD)), str(len(GOOD) - 2)]),
    ("header only", "IN-09", "s.nii", GOOD[:352], ["352"]),
    ("MGH cut", "IN-09", "s.mgh", mgh_bytes(voxels_of("u1"), footer=b"")[:-1], ["16x17x18x1"]),
    ("far offset", "IN-09", "s.nii", with_field("vox_offset", None, 1e9), ["the file has"]),
    (
        "series",
        "IN-12",
        "s.nii",
        nifti_bytes(voxels_of("i2", (*SHAPE, 5))),
        ["5 volumes", "--volume 0", "fslsplit"],
    ),
    ("MGH series", "IN-12", "s.mgz", mgh_bytes(voxels_of("u1", (*SHAPE, 2))), ["2 volumes"]),
    ("2-D", "IN-13", "s.nii", nifti_bytes(voxels_of("i2", (30, 40))), ["1-D or 2-D", "fslmerge"]),
    ("1-D", "IN-13", "s.nii", nifti_bytes(voxels_of("i2", (300,))), ["[300]"]),
    ("one slice", "IN-13", "s.nii", nifti_bytes(voxels_of("i2", (30, 1, 40))), ["[30, 1, 40]"]),
    ("RGB", "IN-14", "s.nii", nifti_bytes(datatype=128, bitpix=24), ["colour", "RGB24"]),
    ("RGBA", "IN-14", "s.nii", nifti_bytes(datatype=2304, bitpix=32), ["RGBA32"]),
    ("complex", "IN-14", "s.nii", nifti_bytes(**COMPLEX), ["complex64"]),
    ("vector", "IN-14", "s.nii", nifti_bytes(intent_code=1007), ["intent_code 1007", "vector"]),
    ("MGH tensor", "IN-14", "s.mgz", mgh_bytes(voxels_of("u1"), type=6), ["tensor"]),
    ("intercept NaN", "IN-19", "s.nii", nifti_bytes(slope=2, inter=np.nan), ["scl_inter", "nan"]),
    ("no affine", "IN-22", "s.nii", nifti_bytes(sform_code=0), ["both 0", "--assume-orientation RAS"]),
    ("no MGH affine", "IN-22", "s.mgz", mgh_bytes(voxels_of("u1"), goodRASFlag=0), ["goodRASFlag"]),
    ("mirrored forms", "IN-23", "s.nii", mirrored(), ["left and right", "fslorient"]),
    ("affine NaN", "IN-24", "s.nii", nifti_bytes(srow_y=(np.nan, 3, 0, 0)), ["sform", "not finite", "nan"]),
    ("affine infinite", "IN-24", "s.nii", nifti_bytes(srow_y=(0, 3, 0, np.inf)), ["not finite", "inf"]),
    ("affine huge", "IN-24", "s.nii", nifti_bytes(version=2, srow_y=(0, 1e308, 0, 0)), ["huge", "1e+308"]),
    ("affine flat", "IN-24", "s.nii", nifti_bytes(srow_z=(0, 0, 0, 5)), ["singular"]),
    ("axes parallel", "IN-24", "s.nii", nifti_bytes(srow_x=(0, 0, 0, 0)), ["singular"]),
    ("quaternion too long", "IN-24", "s.nii", qform(quatern_b=0.9, quatern_c=0.9), ["quatern", "1.27"]),
    ("quaternion NaN", "IN-24", "s.nii", qform(quatern_d=np.nan), ["quatern", "nan"]),
    (
        "qform without size",
        "IN-24",
        "s.nii",
        qform(pixdim=[1, 3, 0, 3, 0, 0, 0, 0]),
        ["pixdim", "3.0, 0.0, 3.0"],
    ),
    ("bad qform beside a sform", "IN-24", "s.nii", nifti_bytes(qform_code=1, quatern_b=7), ["quatern"]),
    ("MGH affine NaN", "IN-24", "s.mgz", mgh_bytes(voxels_of("u1"), delta=(1, np.nan, 1)), ["delta"]),
    (
        "0.01 mm",
        "IN-31",
        "s.nii",
        nifti_bytes(affine=np.diag([0.01, 0.01, 0.01, 1])),
        ["0.16x0.17x0.18", "units"],
    ),
    (
        "100 mm",
        "IN-31",
        "s.nii",
        nifti_bytes(affine=np.diag([100, 100, 100, 1])),
        ["1600x1700x1800", "millimetres"],
    ),
    ("metres that are mm", "IN-31", "s.nii", nifti_bytes(xyzt_units=1), ["metres"]),
    ("one voxel", "IN-32", "s.nii", nifti_bytes(voxels_of("i2", (1, 1, 1))), ["1x1x1", "at least 16"]),
    ("a flat box", "IN-32", "s.nii", nifti_bytes(voxels_of("i2", (40, 50, 15))), ["40x50x15"]),
    ("NRRD", "IN-34", "s.nrrd", b"NRRD0004\ntype: short\n", ["NRRD", "c3d"]),
    ("MINC", "IN-34", "s.mnc", b"\x89HDF\r\n\x1a\n" + bytes(600), ["MINC", "mnc2nii"]),
    ("header half alone", "IN-35", "s.nii", nifti_bytes(pair=True), ["header half", ".img"]),
    ("DICOM", "IN-36", "IM0001", DICOM, ["DICOM", "dcm2niix"]),
    ("DICOM by name", "IN-36", "s.dcm", bytes(999), ["DICOM", "dcm2niix"]),
]


@pytest.mark.parametrize(
    ("code", "name", "content", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_bad_files_are_refused(
    tmp_path: Path, code: str, name: str, content: bytes, words: list[str]
) -> None:
    path = tmp_path / name
    if name.endswith(".mgz") or (
        name.endswith(".nii.gz") and content[:2] not in (b"\x1f\x8b", b"", b"PK", b"<!")
    ):
        content = gzip.compress(content)
    path.write_bytes(content)
    if name == "s.hdr":
        (tmp_path / "s.img").write_bytes(bytes(99))
    error = refusal(path)
    assert (error.code, error.exit_status) == (code, 65), str(error)
    assert error.path == path
    assert str(path) in str(error)
    assert len(str(error).splitlines()) == 3
    for word in words:
        assert word in str(error)


def test_analyze_is_not_guessed(tmp_path: Path) -> None:
    """IN-34."""
    save(tmp_path, "s.hdr", nifti_bytes(pair=True, magic=b""))
    save(tmp_path, "s.img", voxels_of("i2").tobytes())
    error = refusal(tmp_path / "s.img")
    assert (error.code, error.exit_status) == ("IN-34", 65)
    assert "left from right" in str(error)
    assert "--assume-orientation" in str(error)


@pytest.mark.parametrize("half", ["s.hdr", "s.img"])
@pytest.mark.parametrize("given", ["s.hdr", "s.img"])
def test_the_missing_half_of_a_pair_is_named(tmp_path: Path, half: str, given: str) -> None:
    """IN-35."""
    halves = {"s.hdr": nifti_bytes(pair=True), "s.img": bytes(voxels_of("i2").tobytes())}
    save(tmp_path, half, halves[half])
    missing = "s.img" if half == "s.hdr" else "s.hdr"
    error = refusal(tmp_path / given)
    assert (error.code, error.exit_status, error.path) == ("IN-35", 66, tmp_path / missing)


def test_a_short_voxel_half_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "s.hdr", nifti_bytes(pair=True))
    error = refusal(save(tmp_path, "s.img", voxels_of("i2").tobytes()[:-1]))
    assert (error.code, error.path) == ("IN-09", tmp_path / "s.img")


@pytest.mark.parametrize("orientation", ["RAX", "RA", "RLS", "RASI", ""])
def test_an_orientation_that_is_none_is_a_usage_error(tmp_path: Path, orientation: str) -> None:
    error = refusal(save(tmp_path, "s.nii", nifti_bytes(sform_code=0)), assume_orientation=orientation)
    assert (error.code, error.exit_status) == ("IN-22", 2)
    assert repr(orientation) in str(error)


def test_a_stated_orientation_needs_a_voxel_size(tmp_path: Path) -> None:
    path = save(tmp_path, "s.nii", nifti_bytes(sform_code=0, pixdim=[1, 3, 0, 3, 0, 0, 0, 0]))
    assert refusal(path, assume_orientation="RAS").code == "IN-24"


@pytest.mark.parametrize(
    ("shape", "index", "last"), [((*SHAPE, 3), 3, 2), ((*SHAPE, 3), -1, 2), (SHAPE, 1, 0)]
)
def test_a_volume_that_is_not_there_is_a_usage_error(
    tmp_path: Path, shape: Any, index: int, last: int
) -> None:
    error = refusal(save(tmp_path, "s.nii", nifti_bytes(voxels_of("i2", shape))), volume_index=index)
    assert (error.code, error.exit_status) == ("IN-12", 2)
    assert f"0 to {last}" in str(error)


def test_more_voxels_than_allowed_are_refused(tmp_path: Path) -> None:
    """IN-10: the override is named."""
    path = save(tmp_path, "s.nii.gz", GOOD)
    error = refusal(path, max_voxels=4895)
    assert (error.code, error.exit_status) == ("IN-10", 65)
    assert "--max-voxels 4896" in str(error)
    read_volume(path, max_voxels=4896)


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.nii")
    return folder / "pipe.nii"


def link_to(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "link.nii.gz").symlink_to(target)
        return folder / "link.nii.gz"

    return make


def dicom_folder(folder: Path) -> Path:
    (folder / "0001").write_bytes(DICOM)
    return folder


@pytest.mark.parametrize(
    ("make", "code", "status", "words"),
    [
        (lambda folder: folder / "absent.nii.gz", "IN-38", 66, "no such file"),
        (lambda folder: folder / "absent.img", "IN-38", 66, "no such file"),
        (lambda folder: folder / ("long" * 70 + ".nii"), "IN-38", 66, "284 bytes, at most 255"),
        (lambda folder: folder / ("long" * 70 + ".img"), "IN-38", 66, "at most 255"),
        (lambda folder: folder / "nul\0.nii", "IN-38", 65, "nul\\x00.nii"),
        (lambda folder: folder, "IN-38", 65, "folder"),
        (fifo, "IN-38", 65, "pipe"),
        (lambda _: Path("/dev/null"), "IN-38", 65, "device"),
        (link_to("nowhere"), "IN-38", 66, "broken link to 'nowhere'"),
        (link_to("link.nii.gz"), "IN-38", 66, "points to itself"),
        (link_to(".git/annex/objects/x/MD5E-s3"), "IN-05", 65, "git annex get"),
        (dicom_folder, "IN-36", 65, "dcm2niix"),
    ],
)
def test_what_is_no_regular_file_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], code: str, status: int, words: str
) -> None:
    """IN-38, IN-36, IN-05."""
    error = refusal(make(tmp_path))
    assert (error.code, error.exit_status) == (code, status)
    assert words in str(error)


@pytest.mark.parametrize(
    ("number", "status", "words"), [(errno.EACCES, 66, "chmod u+r"), (errno.EIO, 74, "Input/output error")]
)
def test_a_disk_that_does_not_deliver_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int, words: str
) -> None:
    def fail(self: Path, mode: str) -> None:
        raise OSError(number, os.strerror(number))

    path = save(tmp_path, "s.nii", GOOD)
    monkeypatch.setattr(Path, "open", fail)
    error = refusal(path)
    assert (error.code, error.exit_status) == ("IN-38", status)
    assert words in str(error)


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IN-42."""
    path = save(tmp_path, "s.nii", GOOD)

    class Slow(container._Stream):
        def read(self, most: int) -> bytes:
            os.utime(path, ns=(1, path.stat().st_mtime_ns - 10**9))
            return super().read(most)

    monkeypatch.setattr(container, "_Stream", Slow)
    error = refusal(path)
    assert (error.code, error.exit_status) == ("IN-42", 75)


def test_a_file_that_vanishes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, "s.nii", GOOD)

    class Slow(container._Stream):
        def read(self, most: int) -> bytes:
            path.rename(tmp_path / "moved.nii") if most > 544 and path.exists() else None
            return super().read(most)

    monkeypatch.setattr(container, "_Stream", Slow)
    assert refusal(path).code == "IN-42"


BOMBS = """
import sys, resource, time
from neuromend.data.volume import read_volume
from neuromend.errors import NeuromendError
import numpy, nibabel
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
for path in sys.argv[1:]:
    try:
        read_volume(path)
        print("read", path)
    except NeuromendError as error:
        print(error.code)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - start)
"""


def packed(header: bytes, mebibytes: int, junk: int = 0) -> bytes:
    """A gzip stream of a header and very many zeros, made without holding them; then bytes that are no stream."""
    stream = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [stream.compress(header)]
    parts += [stream.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return b"".join([*parts, stream.flush(), b"\1" * junk])


def test_bombs_and_lies_about_size_are_refused_fast_and_small(tmp_path: Path) -> None:
    """IN-09, IN-10 (B4): under 2 s and 200 MB together."""
    huge = nifti_bytes(version=2)[:544]
    lie = np.frombuffer(bytearray(huge), nib.nifti2.header_dtype, count=1).copy()
    lie["dim"][0, 1:4] = 2**62
    files = [
        save(tmp_path, "a.nii", with_field("dim", slice(1, 4), 32767)),
        save(tmp_path, "b.nii.gz", with_field("dim", slice(1, 4), 32767)),
        save(tmp_path, "c.nii", lie.tobytes() + bytes(999)),
        save(tmp_path, "d.nii", with_field("vox_offset", None, 1e30)),
        save(tmp_path, "e.mgh", mgh_bytes(voxels_of("u1"), dims=(2**20,) * 3 + (1,))),
    ]
    bombs = [
        (packed(with_field("dim", slice(1, 4), 600), 1, junk=500_000), "IN-10"),
        (packed(GOOD, 80), "IN-10"),
        (packed(with_field("vox_offset", None, 2**28), 1, junk=500_000), "IN-02"),
    ]
    for number, (content, _) in enumerate(bombs):
        (tmp_path / f"bomb{number}.nii.gz").write_bytes(content)
        files.append(tmp_path / f"bomb{number}.nii.gz")
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *codes, figures = done.stdout.splitlines()
    assert codes == ["IN-09"] * 5 + [code for _, code in bombs]
    kilobytes, seconds = map(float, figures.split())
    assert kilobytes < 200_000
    assert seconds < 2


def test_every_flipped_bit_of_a_stream_is_refused_or_harmless(tmp_path: Path) -> None:
    """IN-03 (B3): a flip may pass only if it changes no voxel (unused bits, the time stamp in the gzip header)."""
    voxels = voxels_of("u1") & 3
    good = gzip.compress(nifti_bytes(voxels), mtime=0)
    path = tmp_path / "s.nii.gz"
    rng = np.random.default_rng(4)
    passed = 0
    for bit in rng.permutation(8 * len(good))[:500]:
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found = read_or_refuse(path)
        if isinstance(found, NeuromendError):
            assert found.exit_status == 65
        else:
            assert found.raw.tobytes() == nifti_bytes(voxels)
            passed += 1
    assert passed <= 10


def test_every_truncation_of_a_stream_is_refused(tmp_path: Path) -> None:
    """IN-02 (B3)."""
    good = gzip.compress(nifti_bytes(voxels_of("u1") & 3), mtime=0)
    path = tmp_path / "s.nii.gz"
    lengths = [
        *range(1, 60),
        *np.random.default_rng(5).permutation(len(good))[:200],
        *range(len(good) - 30, len(good)),
    ]
    for length in lengths:
        path.write_bytes(good[: int(length)])
        assert refusal(path).exit_status == 65


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file as disks, transfers and programs do; mostly in the header, where it matters."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, min(len(damaged), 560 if rng.random() < 0.8 else len(damaged))))
        kind = rng.integers(0, 6)
        if kind == 0:
            damaged[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            damaged[at] = int(rng.integers(0, 256))
        elif kind == 2:
            special = (0, -1, 1, 32767, -32768, 2**31 - 1, float("nan"), float("inf"), 1e38, -1.5)
            value = special[int(rng.integers(0, len(special)))]
            wide = struct.pack("<f" if isinstance(value, float) else "<i", value)
            damaged[at : at + 4] = wide[: len(damaged[at : at + 4])]
        elif kind == 3:
            del damaged[max(at, 1) :]
        elif kind == 4:
            del damaged[at : at + int(rng.integers(1, 9))]
        else:
            damaged[at:at] = rng.bytes(int(rng.integers(1, 9)))
        if not damaged:
            damaged = bytearray(b"\0")
    return bytes(damaged)


SEEDS = {
    "nifti1.nii": nifti_bytes(),
    "big.nii": nifti_bytes(voxels_of("f4"), order=">", slope=2.0, extension=extension(b"v", order=">")),
    "nifti2.nii": nifti_bytes(version=2),
    "qform.nii": qform(quatern_b=0.3),
    "series.nii": nifti_bytes(voxels_of("u1", (*SHAPE, 2, 1))),
    "mgh.mgh": mgh_bytes(voxels_of("f4")),
}


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_gives_a_volume_or_a_typed_error(tmp_path: Path, name: str, compressed: bool) -> None:
    """B2: 50 mutations of each kind of file before and after compression; no other exception, no warning."""
    rng = np.random.default_rng([len(name), *name.encode(), compressed])
    path = tmp_path / (name + ".gz" if compressed else name)
    for _ in range(50):
        content = mutate(SEEDS[name], rng)
        if compressed:
            content = gzip.compress(content, 1)
            content = mutate(content, rng) if rng.random() < 0.3 else content
        path.write_bytes(content)
        volume = read_or_refuse(path, volume_index=0, assume_orientation="RAS")
        if isinstance(volume, NeuromendError):
            assert len(str(volume).splitlines()) == 3
            assert volume.exit_status in (2, 65)
            continue
        assert volume.values.shape == volume.shape
        assert np.isfinite(volume.affine).all()
        assert np.abs(np.linalg.det(volume.affine)) > 0
        mask = np.zeros(volume.shape, dtype=np.bool_)
        mask[3, 4, 5] = True
        spliced = splice(volume, np.full(volume.shape, 100.0), mask)
        assert len(spliced.payload) == volume.raw.size


def test_refusing_never_changes_the_input(tmp_path: Path) -> None:
    for number, (_, _, name, content, _) in enumerate(ROWS):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        refusal(folder / name)
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_bytes() == content
