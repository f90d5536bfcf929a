from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neuromend.errors import GeometryError, InputError, NeuromendError
from neuromend.evaluate import EvaluationError, score_case
from neuromend.metrics import bounding_box
from neuromend.metrics_samples import SAMPLE_COLUMNS
from neuromend.pairing import Pair, Pairing, pair_brats
from neuromend.scoring import evaluate_pairs, score_pair

from .brats_cases import AFFINE, IDS, add_case, add_prediction, brain, hole, save, tumour

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """One whole case with a prediction that is off by 40 and wrong outside the hole."""
    healthy = add_case(tmp_path / "truth", IDS[0])
    add_prediction(tmp_path / "pred", IDS[0], np.where(hole(), healthy + 40, 7).astype(np.float32))
    return pair_brats(tmp_path / "pred", tmp_path / "truth").pairs[0]


def test_a_case_is_scored_inside_its_healthy_mask_with_the_limits_of_the_voided_file(pair: Pair) -> None:
    scored = score_pair(pair)
    healthy = brain()
    voided = np.where(hole() | tumour(), 0, healthy)
    expected = score_case(np.where(hole(), healthy + 40.0, 0), healthy, hole(), voided)
    assert {name: scored.row[name] for name in expected} == expected
    assert list(scored.row)[:3] == ["id", "ssim", "mse"]
    assert (scored.row["id"], scored.row["volume_ml"], scored.row["size_class"]) == (IDS[0], 3.24, "1-5")
    assert scored.row["site"] == ""
    assert scored.findings == ()
    assert set(scored.files) == {"truth", "prediction", "mask", "voided", "tumour"}
    assert scored.files["mask"]["file"] == f"{IDS[0]}-mask-healthy.nii.gz"


def test_without_a_voided_file_the_truth_with_its_hole_blanked_gives_the_limits(pair: Pair) -> None:
    expected = score_case(np.where(hole(), brain() + 40.0, 0), brain(), hole())
    assert score_pair(replace(pair, voided=None)).row["mse"] == expected["mse"]


def test_samples_and_the_tissue_map_add_their_columns(pair: Pair, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    samples = tuple(
        save(
            tmp_path / f"draw-{n}.nii", (brain() + 100 * rng.standard_normal(hole().shape)).astype(np.float32)
        )
        for n in range(4)
    )
    tissue = save(tmp_path / "tissue.nii.gz", np.where(brain() > 0, 4, 0).astype(np.uint8))
    row = score_pair(replace(pair, samples=samples, tissue=tissue)).row
    assert set(SAMPLE_COLUMNS) < set(row)
    assert 0 < row["crps"] < row["rmse"] * 3
    assert row["site"] == "deep-grey"


@pytest.mark.parametrize("role", ["prediction", "mask", "voided", "tumour", "tissue"])
def test_another_grid_is_refused_naming_case_role_and_file(pair: Pair, tmp_path: Path, role: str) -> None:
    small = save(tmp_path / "small.nii.gz", brain()[1:])
    with pytest.raises(GeometryError, match=f"{role}: 19x22x24 voxels, expected 20x22x24") as caught:
        score_pair(replace(pair, **{role: small}))
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("MA-09", 65, small)


def test_another_affine_is_refused_and_a_slightly_other_one_reported(pair: Pair, tmp_path: Path) -> None:
    for shift, name in ((0.2, "near"), (3.0, "far")):
        moved = AFFINE.copy()
        moved[1, 3] += shift
        save(tmp_path / f"{name}.nii.gz", brain() + 40, moved)
    finding = score_pair(replace(pair, prediction=tmp_path / "near.nii.gz")).findings[0]
    assert (finding.code, finding.level) == ("MA-10", "warning")
    assert finding.message.startswith(f"{IDS[0]}: prediction: the affine differs from the truth's by 0.2 mm")
    with pytest.raises(GeometryError, match="a corner 3 mm from where") as caught:
        score_pair(replace(pair, prediction=tmp_path / "far.nii.gz"))
    assert (caught.value.code, caught.value.exit_status) == ("MA-10", 65)


def test_a_prediction_with_nan_in_the_mask_is_refused_and_outside_reported(
    pair: Pair, tmp_path: Path
) -> None:
    values = brain().astype(np.float32) + 5
    values[0, 0, :3] = np.nan
    path = save(tmp_path / "nan.nii.gz", values)
    finding = score_pair(replace(pair, prediction=path)).findings[0]
    assert (finding.code, finding.message) == (
        "IN-15",
        f"{IDS[0]}: 3 voxels outside the mask are not finite; the challenge's own package gives NaN here",
    )
    values[6, 7, 8:10] = np.inf
    save(path, values)
    for change in ({"prediction": path}, {"truth": path}, {"samples": (pair.truth, path)}):
        with pytest.raises(InputError, match="2 voxels in the mask that are not finite") as caught:
            score_pair(replace(pair, **change))
        assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("IN-15", 65, path)


def test_a_voided_scan_that_shows_the_hole_is_refused(pair: Pair) -> None:
    with pytest.raises(EvaluationError, match="not 0 in 120 of 120 voxels of the mask") as caught:
        score_pair(replace(pair, voided=pair.truth))
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("TR-12", 65, pair.truth)


def test_a_mask_on_the_tumour_is_refused(pair: Pair) -> None:
    union = pair.mask.with_name(f"{IDS[0]}-mask.nii.gz")
    with pytest.raises(InputError, match="60 of 180 voxels of the mask are tumour") as caught:
        score_pair(replace(pair, mask=union))
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("TR-11", 65, union)


def test_an_empty_mask_is_refused(pair: Pair, tmp_path: Path) -> None:
    empty = save(tmp_path / "empty.nii.gz", np.zeros(hole().shape, np.uint8))
    with pytest.raises(InputError, match="0 voxels are to be scored") as caught:
        score_pair(replace(pair, mask=empty))
    assert (caught.value.code, caught.value.path) == ("MA-01", empty)


def test_a_scan_that_is_nearly_all_background_has_no_range(pair: Pair, tmp_path: Path) -> None:
    sparse = np.zeros(hole().shape, np.int16)
    sparse[10, 10, 10] = 500
    path = save(tmp_path / "sparse.nii.gz", sparse)
    with pytest.raises(InputError, match="percentiles are 0 and 0") as caught:
        score_pair(replace(pair, voided=path))
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("EV-07", 65, path)


def test_a_tissue_map_without_classes_is_refused(pair: Pair, tmp_path: Path) -> None:
    path = save(tmp_path / "tissue.nii.gz", np.full(hole().shape, 8, np.uint8))
    with pytest.raises(InputError, match="none of the classes") as caught:
        score_pair(replace(pair, tissue=path))
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("EV-08", 65, path)


def test_the_truth_itself_and_other_units_are_doubted(pair: Pair, tmp_path: Path) -> None:
    (finding,) = score_pair(replace(pair, prediction=pair.truth)).findings
    assert (finding.code, finding.level) == ("TR-12", "warning")
    unit = save(tmp_path / "unit.nii.gz", (brain() / 1500).astype(np.float32))
    (finding,) = score_pair(replace(pair, prediction=unit)).findings
    assert (finding.code, finding.level) == ("EV-09", "warning")


@pytest.fixture
def pairing(tmp_path: Path) -> Pairing:
    for seed, name in enumerate(IDS):
        healthy = add_case(tmp_path / "truth", name, seed)
        add_prediction(tmp_path / "pred", name, healthy + np.int16(10 * seed + 10))
    return pair_brats(tmp_path / "pred", tmp_path / "truth")


def test_processes_give_the_same_scores_in_the_same_order(pairing: Pairing) -> None:
    told: list[tuple[int, int]] = []
    one = evaluate_pairs(pairing, on_case=lambda done, of, row: told.append((done, of)))
    assert [row["id"] for row in one.rows] == sorted(IDS)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert evaluate_pairs(pairing, jobs=2) == one


def test_missing_predictions_are_refused_unless_allowed(pairing: Pairing) -> None:
    some = Pairing(pairing.pairs[:1], (IDS[0], IDS[2]), (Path("pred/stray.nii.gz"),))
    with pytest.raises(InputError, match=f"2 of 3 cases have no prediction: {IDS[0]}, {IDS[2]}") as caught:
        evaluate_pairs(some)
    assert (caught.value.code, caught.value.exit_status) == ("EV-01", 65)
    found = evaluate_pairs(some, allow_missing=True)
    assert [(f.code, f.level) for f in found.findings] == [("EV-02", "warning"), ("EV-01", "warning")]
    assert (found.missing, found.extra) == ((IDS[0], IDS[2]), ("stray.nii.gz",))
    with pytest.raises(InputError, match="3 of 3 cases have no prediction"):
        evaluate_pairs(Pairing((), IDS), allow_missing=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_refused_case_is_named_and_several_are_told_together(pairing: Pairing, jobs: int) -> None:
    first, second, third = pairing.pairs
    bad = replace(second, voided=second.truth)
    with pytest.raises(EvaluationError, match=f"case {second.id}: the voided scan is not 0") as caught:
        evaluate_pairs(Pairing((first, bad, third)), jobs=jobs)
    assert caught.value.path == second.truth
    worse = replace(third, prediction=Path("nowhere.nii.gz"))
    with pytest.raises(NeuromendError, match="2 of 3 cases cannot be scored") as several:
        evaluate_pairs(Pairing((first, bad, worse)), jobs=jobs)
    assert (several.value.code, several.value.exit_status) == ("EV-06", 65)
    assert f"[TR-12] case {second.id}" in several.value.what
    assert f"[IN-38] case {third.id}" in several.value.what


@pytest.mark.shared
def test_a_real_case_of_the_challenge_has_the_scores_of_the_official_package(tmp_path: Path) -> None:
    """BraTS-GLI-00001-000: the piece of its union mask that the tumour does not touch is the healthy mask."""
    from scipy.ndimage import label

    from .test_metrics import official_scores

    name = "BraTS-GLI-00001-000"
    folder = SHARED / "data" / "tumour" / name
    if not folder.exists():
        pytest.skip("the real scans are not beside the checkout")
    pieces, _ = label(np.asarray(nib.load(folder / f"{name}-mask.nii.gz").dataobj))
    mask = pieces == 1
    image = nib.load(folder / f"{name}-t1n.nii.gz")
    truth = np.asarray(image.dataobj)
    fill = np.where(mask, truth[::-1], truth)
    pair = Pair(
        name,
        prediction=save(tmp_path / "fill.nii", fill, image.affine),
        truth=folder / f"{name}-t1n.nii.gz",
        mask=save(tmp_path / "mask.nii", mask.astype(np.uint8), image.affine),
        voided=folder / f"{name}-t1n-voided.nii.gz",
        tumour=folder / f"{name}-seg-pred-BraTS23.nii.gz",
    )
    row = score_pair(pair).row
    assert row["volume_ml"] == pytest.approx(74.246)
    voided = np.asarray(nib.load(pair.voided).dataobj)
    # Its windows do not reach further, and it is slow.
    box = bounding_box(mask, (1, 6, 6))
    case = fill[box].astype(float), truth[box].astype(float), voided, mask[box]
    for column, expected in official_scores(case).items():
        tolerance = 1e-5 if column.startswith("psnr") else 1e-6
        assert row[column] == pytest.approx(expected, abs=tolerance), column
