"""Three tissues: right on a brain that is known, deterministic, and clear about what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend import cli
from neuromend.errors import GeometryError, InputError, MissingInputError, ModelFaultError, UsageError
from neuromend.tissue import TISSUES, segment, volumes_ml
from neuromend.tissue.bias import correct_bias
from neuromend.tissue.brain import brain_of
from neuromend.tissue.compare import compare, regions_of, spread
from neuromend.tissue.fast import segment_with_fast
from neuromend.tissue.files import compare_files, segment_file

from . import phantom

TRUTH = phantom.labels()
BRAIN = TRUTH > 0


def dice(one: Any, two: Any, label: int) -> float:
    return float(2 * ((one == label) & (two == label)).sum() / ((one == label).sum() + (two == label).sum()))


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_known_tissues_are_found_also_under_a_bias_field(bias: float) -> None:
    found = segment(phantom.scan(bias=bias), BRAIN)
    assert found.dtype == np.uint8
    assert not found[~BRAIN].any()
    assert (found[BRAIN] > 0).all()
    assert min(dice(found, TRUTH, label) for label in TISSUES.values()) > 0.95


def test_the_same_scan_gives_the_same_labels_whatever_stands_outside_the_brain() -> None:
    values = phantom.scan()
    first = segment(values, BRAIN)
    values[~BRAIN] = np.random.default_rng(0).uniform(0, 3000, (~BRAIN).sum())
    np.testing.assert_array_equal(segment(values, BRAIN), first)


def test_the_scale_of_the_intensities_does_not_matter() -> None:
    values = phantom.scan()
    assert np.mean(segment(values * 0.01, BRAIN) != segment(values, BRAIN)) < 1e-4


def test_the_bias_field_is_divided_out() -> None:
    corrected = correct_bias(phantom.scan(bias=0.3), BRAIN)
    white = TRUTH == 3
    left, right = (white & (np.indices(TRUTH.shape)[0] // 20 == side) for side in (0, 1))
    assert corrected[left].mean() == pytest.approx(corrected[right].mean(), rel=0.03)
    assert not corrected[~BRAIN].any()


def test_volumes_are_in_millilitres() -> None:
    volumes = volumes_ml(TRUTH, phantom.AFFINE)
    assert volumes["WM"] == pytest.approx((TRUTH == 3).sum() * 0.008)
    assert list(volumes) == ["CSF", "GM", "WM"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [("small", "expected at least 1000"), ("nan", "not finite"), ("flat", "one and the same")],
)
def test_what_cannot_be_three_tissues_is_refused(spoil: str, words: str) -> None:
    values, brain = phantom.scan(), BRAIN.copy()
    if spoil == "small":
        brain[:, :, 3:] = False
        brain[:, 20:] = False
    elif spoil == "nan":
        values[20, 20, 20] = np.nan
    else:
        values[:] = 7
    with pytest.raises(InputError, match=words) as caught:
        segment(values, brain)
    assert (caught.value.code, caught.value.exit_status) == ("TI-02", 65)


def test_without_dipy_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dipy.segment.mrf", None)
    with pytest.raises(MissingInputError, match=r"neuromend\[tissue\]") as caught:
        segment(phantom.scan(), BRAIN)
    assert (caught.value.code, caught.value.exit_status) == ("TI-01", 66)


def test_a_whole_head_needs_a_brain_mask(tmp_path: Path) -> None:
    from neuromend.data.volume import volume_from_image

    whole = volume_from_image(phantom.image(phantom.scan() + 5))
    with pytest.raises(UsageError, match="--brain-mask") as caught:
        brain_of(whole, None)
    assert (caught.value.code, caught.value.exit_status) == ("TI-03", 2)
    nib.save(phantom.image(BRAIN.astype(np.uint8)), tmp_path / "brain.nii.gz")
    np.testing.assert_array_equal(brain_of(whole, tmp_path / "brain.nii.gz"), BRAIN)


def test_a_comparison_knows_dice_and_volume_errors_near_the_lesions() -> None:
    lesion = np.zeros(TRUTH.shape, bool)
    lesion[28:31, 22:25, 16:19] = True
    changed = np.where(lesion, 2, TRUTH).astype(np.uint8)
    assert (TRUTH[lesion] == 3).all()
    found = compare(TRUTH, changed, 0.008, regions_of(lesion, (2, 2, 2), 4.0))
    assert found["lesion"]["WM"]["error_ml"] == pytest.approx(-27 * 0.008)
    assert found["lesion"]["WM"]["dice"] == 0
    assert found["whole"]["GM"]["error_ml"] == pytest.approx(27 * 0.008)
    assert found["ring"]["WM"]["dice"] == 1
    assert np.isnan(found["lesion"]["CSF"]["dice"])
    both = spread([found, compare(TRUTH, TRUTH, 0.008, regions_of(lesion, (2, 2, 2), 4.0))])
    assert both["lesion"]["WM"]["error_ml"]["mean"] == pytest.approx(-13.5 * 0.008)
    assert both["lesion"]["WM"]["error_ml"]["sd"] == pytest.approx(27 * 0.008 / 2**0.5)


def test_segmentations_of_other_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match="shapes") as caught:
        compare(TRUTH, TRUTH[1:], 1.0)
    assert (caught.value.code, caught.value.exit_status) == ("MA-09", 65)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    nib.save(phantom.image(phantom.scan()), tmp_path / "sub-01_T1w.nii.gz")
    lesion = np.zeros(TRUTH.shape, np.uint8)
    lesion[28:31, 22:25, 16:19] = 1
    nib.save(phantom.image(lesion), tmp_path / "lesion.nii.gz")
    return tmp_path


def test_the_command_writes_labels_volumes_and_a_record(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tissue", str(files / "sub-01_T1w.nii.gz"), "-o", str(files / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    stem = files / "out" / "sub-01_T1w_dseg"
    labels: Any = nib.load(f"{stem}.nii.gz")
    assert told["volumes_ml"] == pytest.approx(volumes_ml(np.asarray(labels.dataobj), labels.affine))
    rows = Path(f"{stem}.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["tissue", "label", "volume_ml"]
    record = json.loads(Path(f"{stem}.json").read_text())
    assert record["labels"] == TISSUES
    assert record["Sources"] == ["sub-01_T1w.nii.gz"]
    assert cli.main(["tissue", str(files / "sub-01_T1w.nii.gz"), "-o", str(files / "out")]) == 73

    same = [str(files / "sub-01_T1w.nii.gz"), f"{stem}.nii.gz", f"{stem}.nii.gz"]
    capsys.readouterr()
    assert cli.main(["tissue", "compare", *same, "-m", str(files / "lesion.nii.gz"), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["samples"] == 2
    assert compared["regions"]["whole"]["WM"]["dice"] == {"mean": 1.0, "sd": 0.0}
    assert set(compared["regions"]) == {"whole", "lesion", "ring"}


def test_fast_is_called_where_it_is_installed_and_named_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingInputError) as missing:
        segment_with_fast(phantom.scan(), BRAIN, phantom.AFFINE)
    assert missing.value.code == "TI-01"
    stand_in = tmp_path / "fast"
    stand_in.write_text(
        f"#!{sys.executable}\nimport sys, nibabel as nib, numpy as np\nassert sys.argv[1:5] == ['-t', '1', '-n', '3']\n"
        "brain = nib.load(sys.argv[-1])\nlabels = np.digitize(np.asarray(brain.dataobj), [1, 300, 700])\n"
        "nib.save(nib.Nifti1Image(labels.astype(np.uint8), brain.affine), sys.argv[6] + '_seg.nii.gz')\n"
    )
    stand_in.chmod(0o755)
    found = segment_with_fast(phantom.scan(), BRAIN, phantom.AFFINE)
    assert min(dice(found, TRUTH, label) for label in TISSUES.values()) > 0.95
    stand_in.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    with pytest.raises(ModelFaultError, match="no licence") as failed:
        segment_with_fast(phantom.scan(), BRAIN, phantom.AFFINE)
    assert (failed.value.code, failed.value.exit_status) == ("TI-04", 70)


def test_label_maps_are_compared_as_they_are(files: Path) -> None:
    nib.save(phantom.image(TRUTH), files / "labels.nii.gz")
    steps: list[str] = []
    found = compare_files(
        files / "labels.nii.gz",
        [files / "labels.nii.gz"],
        ring_mm=5.0,
        on_step=lambda stage, done, of: steps.append(stage),
    )
    assert found["regions"]["whole"]["GM"]["error_ml"] == {"mean": 0.0, "sd": None}
    assert steps == ["segmenting", "segmenting"]


def test_nothing_is_written_where_the_segmentation_fails(files: Path) -> None:
    nib.save(phantom.image(np.where(BRAIN, 5, 0).astype(np.float32)), files / "flat.nii.gz")
    with pytest.raises(InputError):
        segment_file(files / "flat.nii.gz", files / "out", on_step=lambda *a: None, command=[])
    assert list((files / "out").iterdir()) == []
