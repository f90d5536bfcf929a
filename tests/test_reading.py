"""Reading a pair: files without world coordinates (IN-22), and whose findings are whose."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import neuromend
from neuromend.data.masks import MaskOptions
from neuromend.doctor import synthetic_head
from neuromend.errors import GeometryError, InputError
from neuromend.filling import FillResult
from neuromend.findings import Finding
from neuromend.manifest import TrainedRange
from neuromend.reading import ReadOptions, findings_of, load_pair

SPACING = (5.5, 6.0, 6.5)


def save(
    folder: Path, name: str, *, world: bool, spacing: tuple[float, ...] = SPACING, crop: int = 0
) -> Path:
    """The scan or the mask of a small head (names ``scan`` and ``mask``), with or without world coordinates."""
    which = 0 if name.startswith("scan") else 1
    voxels = np.asarray(synthetic_head()[which].dataobj)[::3, ::3, ::3]
    voxels = voxels[: voxels.shape[0] - crop]
    path = folder / name
    if name.endswith(".mgz"):
        image = nib.MGHImage(voxels.astype(np.float32), np.diag([*spacing, 1.0]))
        image.header["goodRASFlag"] = int(world)
        nib.save(image, path)
        return path
    payload = bytearray(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])).to_bytes())
    if not world:
        payload[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(gzip.compress(payload) if name.endswith(".gz") else payload)
    return path


def warned(result: FillResult, code: str) -> list[str]:
    return [
        finding.message for finding in result.findings if (finding.code, finding.level) == (code, "warning")
    ]


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz"])
def test_two_files_that_both_tell_nothing_are_accepted_loudly(tmp_path: Path, suffix: str) -> None:
    """IN-22: on one grid every voxel of the mask is a voxel of the scan, wherever that is."""
    scan, mask = (save(tmp_path, name + suffix, world=False) for name in ("scan", "mask"))
    result = neuromend.fill(scan, mask, tmp_path / f"out{suffix}", model="ring-mean")
    [orientation, matched] = warned(result, "IN-22")
    assert "RAS was assumed: left and right CANNOT BE KNOWN" in orientation
    assert "--assume-orientation LAS" in orientation
    assert "voxel by voxel, which MAY BE WRONG" in matched
    assert result.record["settings"]["options"]["assume_orientation"] is None


def test_the_header_is_written_back_as_it_was(tmp_path: Path) -> None:
    """IN-22: what was assumed is not written into any output."""
    scan, mask = (save(tmp_path, name, world=False) for name in ("scan.nii", "mask.nii"))
    result = neuromend.fill(scan, mask, tmp_path / "out.nii", model="ring-mean")
    assert (tmp_path / "out.nii").read_bytes()[:352] == scan.read_bytes()[:352]
    header = nib.load(result.outputs["mask"]).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)


def test_a_stated_orientation_is_used_and_not_warned_of_as_assumed(tmp_path: Path) -> None:
    scan, mask = (save(tmp_path, name, world=False) for name in ("scan.nii", "mask.nii"))
    result = neuromend.fill(scan, mask, model="ring-mean", assume_orientation="LAS", dry_run=True)
    assert [("voxel by voxel" in message) for message in warned(result, "IN-22")] == [True]


def test_images_in_memory_follow_the_same_rule(tmp_path: Path) -> None:
    scan, mask = (nib.load(save(tmp_path, name, world=False)) for name in ("scan.nii", "mask.nii"))
    result = neuromend.fill(scan, mask, model="ring-mean", dry_run=True)
    assert "CANNOT BE KNOWN" in warned(result, "IN-22")[0]


@pytest.mark.parametrize(
    ("scan_options", "mask_options", "named", "says"),
    [
        ({"world": False}, {"world": True}, "mask.nii", "the image does not say where it lies"),
        ({"world": True}, {"world": False}, "mask.nii", "the mask does not say where it lies"),
        ({"world": False}, {"world": False, "crop": 1}, "mask.nii", "different shapes and neither says"),
        ({"world": False}, {"world": False, "spacing": (5.5, 6.0, 6.6)}, "scan.nii", "are both 0"),
    ],
)
def test_other_pairs_without_world_coordinates_are_refused(
    tmp_path: Path, scan_options: dict[str, Any], mask_options: dict[str, Any], named: str, says: str
) -> None:
    """IN-22: the mask relies on world space, or does not share the scan's grid."""
    scan, mask = save(tmp_path, "scan.nii", **scan_options), save(tmp_path, "mask.nii", **mask_options)
    with pytest.raises(GeometryError, match=says) as caught:
        neuromend.check(scan, mask)
    assert (caught.value.code, caught.value.exit_status) == ("IN-22", 65)
    assert caught.value.path == tmp_path / named


def test_another_fault_of_such_a_file_is_told_as_it_is(tmp_path: Path) -> None:
    scan, mask = (save(tmp_path, name, world=False) for name in ("scan.nii", "mask.nii"))
    mask.write_bytes(mask.read_bytes()[:-1])
    with pytest.raises(InputError) as caught:
        neuromend.check(scan, mask)
    assert (caught.value.code, caught.value.path) == ("IN-09", mask)


def test_what_both_files_have_in_common_is_said_once(tmp_path: Path) -> None:
    scan = save(tmp_path, "scan.nii", world=True)
    mask = save(tmp_path, "mask.nii", world=True)
    result = neuromend.fill(scan, mask, tmp_path / "out.nii", model="ring-mean")
    recorded = [Finding(**finding) for finding in result.record["findings"]]
    assert [finding.code for finding in recorded].count("IN-30") == 1
    assert max(Counter(recorded).values()) == 1


def test_findings_of_the_mask_file_say_so(tmp_path: Path) -> None:
    scan, mask = (save(tmp_path, name, world=True) for name in ("scan.nii", "mask.nii"))
    mask.write_bytes(mask.read_bytes() + b"more")
    messages = [finding.message for finding in neuromend.check(scan, mask) if finding.code == "IN-04"]
    assert messages == ["mask: 4 bytes follow the last voxel; they carry no image."]


def test_the_model_card_is_compared_with_the_scan(tmp_path: Path) -> None:
    """IN-30, IN-39, IN-40: a scan that the model was not made for is filled, but never in silence."""
    scan, mask = (save(tmp_path, name, world=True) for name in ("scan_T1w.nii", "mask.nii"))
    pair = load_pair(scan, mask, MaskOptions(), ReadOptions())[:2]
    card = TrainedRange(modalities=("T2w",), spacing_mm=(1.0, 2.2), coverage=("whole-head",))
    messages: dict[str, list[str]] = {}
    for finding in findings_of(*pair, modality=None, trained=card):
        messages.setdefault(finding.code, []).append(finding.message)
    assert any("trained on 1 to 2.2 mm" in message for message in messages["IN-30"])
    assert "may not be T2w" in messages["IN-39"][0]
    assert any("trained on whole-head" in message for message in messages["IN-40"])
    assert not any("trained" in f.message for f in findings_of(*pair, modality=None, trained=None))


def test_the_scan_and_the_mask_are_never_written_to(tmp_path: Path) -> None:
    files = [save(tmp_path, name, world=False) for name in ("scan.nii", "mask.nii")]
    before = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    neuromend.fill(*files, tmp_path / "out.nii", model="ring-mean")
    assert [hashlib.sha256(file.read_bytes()).digest() for file in files] == before
