"""Is it an image of a head, with the contrast the model knows?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from neuromend.data.intensities import check_intensities, looks_skull_stripped
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import InputError
from neuromend.findings import Finding

from .scan_files import AFFINE, nifti_bytes, save

SHAPE = (26, 28, 30)


def head(background: float = 0.0, noise: float = 0.0) -> NDArray[np.float32]:
    """A bright ball in the middle of air."""
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(SHAPE) / 2
    rng = np.random.default_rng(0)
    tissue = rng.normal(100, 10, SHAPE)
    air = background + noise * rng.random(SHAPE)
    return np.where((grid**2).sum(axis=-1) < 100, tissue, air).astype("f4")


def volume(folder: Path, voxels: NDArray[Any], name: str = "sub-1_T1w.nii", **sidecar: Any) -> Volume:
    path = save(folder, name, nifti_bytes(voxels, affine=AFFINE))
    if sidecar:
        (folder / f"{name.split('.')[0]}.json").write_text(json.dumps(sidecar))
    return read_volume(path)


def found(code: str, *arguments: Any, **options: Any) -> list[Finding]:
    return [finding for finding in check_intensities(*arguments, **options) if finding.code == code]


def lesion() -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[11:15, 12:15, 13:18] = True
    return mask


def test_a_good_scan_gives_one_note(tmp_path: Path) -> None:
    [finding] = check_intensities(volume(tmp_path, head()), lesion())
    assert (finding.code, finding.level) == ("IN-40", "note")


def test_nan_in_the_background_is_counted_and_located(tmp_path: Path) -> None:
    """IN-15."""
    voxels = head()
    voxels[1, 2, 3], voxels[20, 2, 3] = np.nan, np.inf
    [finding] = found("IN-15", volume(tmp_path, voxels), lesion())
    assert finding.level == "warning"
    for words in ("2 voxels", "1 NaN", "[1, 2, 3]", "all in the background"):
        assert words in finding.message


def test_a_nan_in_the_brain_is_warned_of(tmp_path: Path) -> None:
    """IN-15."""
    voxels = head()
    voxels[9, 14, 15] = np.nan
    [finding] = found("IN-15", volume(tmp_path, voxels), lesion())
    assert finding.level == "warning"
    assert "1 of them in the brain" in finding.message


def test_many_nan_in_the_brain_are_refused(tmp_path: Path) -> None:
    """IN-15."""
    voxels = head()
    voxels[8:12, 12:16, 10:16] = np.nan
    scan = volume(tmp_path, voxels)
    with pytest.raises(InputError, match="of the brain") as caught:
        check_intensities(scan)
    assert (caught.value.code, caught.value.exit_status) == ("IN-15", 65)
    assert "96 voxels" in str(caught.value)


def test_nan_inside_the_mask_is_no_concern(tmp_path: Path) -> None:
    voxels = head()
    voxels[lesion()] = np.nan
    assert found("IN-15", volume(tmp_path, voxels), lesion()) == []


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "finite"), (0.0, "has the value 0"), (7.5, "has the value 7.5")]
)
def test_an_image_without_content_is_refused(tmp_path: Path, value: float, words: str) -> None:
    """IN-16; what is inside the mask does not count."""
    voxels = np.full(SHAPE, value, dtype="f4")
    voxels[lesion()] = 99
    scan = volume(tmp_path, voxels)
    with pytest.raises(InputError, match=words) as caught:
        check_intensities(scan, lesion())
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("IN-16", 65, scan.path)


def test_a_mask_over_everything_leaves_no_content(tmp_path: Path) -> None:
    scan = volume(tmp_path, head())
    with pytest.raises(InputError, match="no voxel lies outside"):
        check_intensities(scan, np.ones(SHAPE, dtype=np.bool_))


def test_ct_is_warned_of_and_other_negative_values_are_not(tmp_path: Path) -> None:
    """IN-17."""
    ct = head(background=-1000)
    ct[10:12] = 1500
    [finding] = found("IN-17", volume(tmp_path, ct))
    assert finding.level == "warning"
    assert "-1000 to 1500" in finding.message
    assert found("IN-17", volume(tmp_path, head() - 40)) == []


@pytest.mark.parametrize(
    ("background", "noise", "stripped"), [(0.0, 0.0, True), (0.0, 9.0, False), (3.0, 0.0, False)]
)
def test_skull_stripped_scans_are_told_by_their_border(
    tmp_path: Path, background: float, noise: float, stripped: bool
) -> None:
    """IN-40."""
    scan = volume(tmp_path, head(background, noise))
    assert looks_skull_stripped(scan) is stripped
    [finding] = found("IN-40", scan)
    assert ("skull-stripped" in finding.message) is stripped


def test_a_neck_at_the_border_is_a_whole_head(tmp_path: Path) -> None:
    """IN-40: zeros around, but tissue leaves the volume below."""
    voxels = head()
    voxels[10:16, 10:18, :15] = 90
    assert not looks_skull_stripped(volume(tmp_path, voxels))


def test_the_findings_do_not_depend_on_the_lesion(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[:9] = True
    voxels = head()
    first = check_intensities(volume(tmp_path, voxels), mask)
    voxels[mask] = np.random.default_rng(1).normal(0, 2000, mask.sum())
    scan = volume(tmp_path, voxels)
    assert check_intensities(scan, mask) == first
    assert looks_skull_stripped(scan, mask)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sub-1_T2w.nii", "'t2w'"),
        ("sub-1_FLAIR.nii", "'flair'"),
        ("sub-1_ses-T1_FLAIR.nii", "'flair'"),
        ("BraTS-00001-t2f.nii", "'t2f'"),
        ("BraTS-00001-t1c.nii", "contrast agent"),
        ("patient_T1wGd.nii", "contrast agent"),
        ("sub-1_ce-gadolinium_T1w.nii", "contrast agent"),
    ],
)
def test_other_contrasts_are_told_by_the_name(tmp_path: Path, name: str, words: str) -> None:
    """IN-39."""
    scan = volume(tmp_path, head(), name)
    [finding] = found("IN-39", scan)
    assert finding.level == "warning"
    assert words in finding.message
    assert "--modality T1w" in finding.message
    assert found("IN-39", scan, modality="T1w") == []


@pytest.mark.parametrize(
    "name", ["sub-1_T1w.nii", "BraTS-00001-t1n.nii", "scan.nii", "sub-1_space-T2_T1w.nii"]
)
def test_t1w_and_unknown_names_pass(tmp_path: Path, name: str) -> None:
    assert found("IN-39", volume(tmp_path, head(), name)) == []


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [({"suffix": "FLAIR"}, "'flair'"), ({"ContrastBolusIngredient": "GADOLINIUM"}, "GADOLINIUM")],
)
def test_other_contrasts_are_told_by_the_sidecar(tmp_path: Path, sidecar: dict[str, str], words: str) -> None:
    """IN-39."""
    [finding] = found("IN-39", volume(tmp_path, head(), "scan.nii", **sidecar))
    assert words in finding.message


def test_a_stated_other_contrast_is_warned_of(tmp_path: Path) -> None:
    """IN-39."""
    [finding] = found("IN-39", volume(tmp_path, head()), modality="FLAIR")
    assert "stated to be FLAIR" in finding.message


@pytest.mark.parametrize(
    ("name", "modality", "trained", "warned"),
    [
        ("sub-1_T1w.nii", None, ["T2w"], "may not be T2w without contrast agent: its name says 't1w'"),
        ("sub-1_T2w.nii", None, ["T2w"], None),
        ("sub-1_ses-T1_FLAIR.nii", None, ["T2w", "FLAIR"], None),
        ("scan.nii", "T2", ["T2w"], None),
        ("scan.nii", "T1w", ["T2w", "FLAIR"], "stated to be T1w; the model was made for T2w or FLAIR"),
        ("scan.nii", "UNIT1", ["UNIT1"], None),
    ],
)
def test_a_model_may_be_made_for_other_contrasts(
    tmp_path: Path, name: str, modality: str | None, trained: list[str], warned: str | None
) -> None:
    """IN-39: compared with the model card."""
    warnings = found("IN-39", volume(tmp_path, head(), name), modality=modality, trained=trained)
    assert [warned in finding.message for finding in warnings if warned] == [True] * (warned is not None)
    assert len(warnings) == (warned is not None)


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("sub-1_desc-inpainted_T1w.nii", {}),
        ("T1_inpainted.nii", {}),
        ("a.nii", {"GeneratedBy": [{"Name": "neuromend"}]}),
    ],
)
def test_a_scan_that_was_inpainted_before_is_warned_of(
    tmp_path: Path, name: str, sidecar: dict[str, Any]
) -> None:
    """IN-41."""
    [finding] = found("IN-41", volume(tmp_path, head(), name, **sidecar))
    assert finding.level == "warning"
    assert "already inpainted" in finding.message


@pytest.mark.parametrize("content", ["not json", "[1, 2]", "", "[" * 100_000])
def test_a_sidecar_that_is_none_says_nothing(tmp_path: Path, content: str) -> None:
    scan = volume(tmp_path, head(), "scan.nii")
    (tmp_path / "scan.json").write_text(content)
    assert [finding.code for finding in check_intensities(scan)] == ["IN-40"]
