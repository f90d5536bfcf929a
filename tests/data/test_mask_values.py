"""What the numbers in a mask mean, and what is refused until the user says it."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from neuromend.data.volume import volume_from_image
from neuromend.errors import InputError

from .mask_phantom import AFFINE, SHAPE, ball, levels, message, prepare, volume

LESION = ball()
COUNT = int(LESION.sum())


def graded(soft_share: float) -> np.ndarray:
    """A lesion of which a share has values between 0 and 1."""
    rng = np.random.default_rng(3)
    values = LESION.astype(np.float32)
    places = np.argwhere(LESION)
    for x, y, z in places[: round(soft_share * len(places))]:
        values[x, y, z] = rng.uniform(0.01, 0.99)
    return values


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(InputError, match=r"all 84,480 voxels are 0") as caught:
        prepare(volume(np.zeros(SHAPE, np.uint8)))
    assert (caught.value.code, caught.value.exit_status) == ("MA-01", 65)
    assert "lesion.nii.gz" in str(caught.value)
    assert "--allow-empty" in caught.value.fix


def test_an_empty_mask_that_is_allowed_selects_nothing_and_says_so() -> None:
    result = prepare(volume(np.zeros(SHAPE, np.uint8)), allow_empty=True)
    assert result.voxels.shape == SHAPE
    assert not result.voxels.any()
    assert (result.volume_ml, result.components, result.boxes) == (0, 0, ())
    assert levels(result) == {"MA-01": "warning"}


@pytest.mark.parametrize(
    ("options", "values", "says"),
    [
        ({"threshold": 0.5}, LESION * np.float32(0.3), "no voxel reaches threshold 0.5, the largest is 0.3"),
        ({"labels": (3, 4)}, LESION * 2, r"none of the labels 3, 4; found 2 \([0-9.]+ ml\)"),
        ({"invert": True}, np.ones(SHAPE, np.uint8), "empty once inverted"),
    ],
)
def test_a_mask_that_its_options_empty_is_refused_with_the_reason(
    options: dict[str, object], values: np.ndarray, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        prepare(volume(values), **options)
    assert caught.value.code == "MA-01"


def test_an_inverted_mask_is_turned_when_asked() -> None:
    result = prepare(volume(~LESION), invert=True)
    assert np.array_equal(result.voxels, LESION)
    assert levels(result) == {"MA-03": "note"}


def test_probabilities_are_refused_without_a_threshold() -> None:
    with pytest.raises(InputError, match="probabilities or other graded values") as caught:
        prepare(volume(graded(0.9)))
    assert (caught.value.code, caught.value.exit_status) == ("MA-04", 65)
    assert caught.value.fix == "choose one: --threshold 0.5"


def test_percentages_with_decimals_are_refused_with_a_threshold_on_their_scale() -> None:
    with pytest.raises(InputError, match="between 0 and 100 ") as caught:
        prepare(volume(graded(0.9) * 100))
    assert (caught.value.code, caught.value.fix) == ("MA-04", "choose one: --threshold 50")


def test_soft_edges_are_refused_with_the_number_of_voxels_that_hang_on_the_threshold() -> None:
    values = graded(0.25)
    at_half = int((values >= 0.5).sum())
    soft = int(((values > 0) & (values < 1)).sum())
    with pytest.raises(InputError, match="soft edges") as caught:
        prepare(volume(values))
    assert (caught.value.code, caught.value.exit_status) == ("MA-05", 65)
    assert f"{soft} of {COUNT} non-zero voxels (25%)" in caught.value.what
    assert f"above 0: {COUNT} voxels" in caught.value.what
    assert f"at 0.5: {at_half} voxels" in caught.value.what


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_a_threshold_selects_the_values_at_or_above_it_and_is_recorded(threshold: float) -> None:
    values = graded(0.5)
    result = prepare(volume(values), threshold=threshold)
    assert np.array_equal(result.voxels, values >= np.float32(threshold))
    kept = int(result.voxels.sum())
    assert (
        message(result, "MA-04")
        == f"threshold {threshold} keeps {kept} of {COUNT} non-zero voxels of the mask"
    )


def test_a_threshold_reads_percentages_stored_as_whole_numbers() -> None:
    values = np.rint(graded(0.9) * 100).astype(np.uint8)
    assert np.array_equal(prepare(volume(values), threshold=50).voxels, values >= 50)


def test_labels_do_not_help_a_graded_mask() -> None:
    with pytest.raises(InputError) as caught:
        prepare(volume(graded(0.9)), labels="all")
    assert caught.value.code == "MA-04"


def label_map(*labels: int) -> np.ndarray:
    values = LESION.astype(np.int32) * labels[0]
    for place, label in enumerate(labels[1:]):
        values[24 + 2 * place : 26 + 2 * place][LESION[24 + 2 * place : 26 + 2 * place]] = label
    return values


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        ((1, 2, 3), "--labels 1,2,3 for the whole tumour of a BraTS segmentation"),
        ((1, 2, 4), "--labels 1,2,4 for the whole tumour of a BraTS segmentation"),
        ((5, 7), "--labels 7 if this is a BIDS segmentation (7 = lesion)"),
        ((25, 57), "--labels 57"),
    ],
)
def test_a_label_map_is_refused_with_labels_volumes_and_a_hint(labels: tuple[int, ...], hint: str) -> None:
    values = label_map(*labels)
    with pytest.raises(InputError, match="label map") as caught:
        prepare(volume(values))
    assert (caught.value.code, caught.value.exit_status) == ("MA-06", 65)
    for label in labels:
        ml = int((values == label).sum()) * 2.0 * 1.8 * 2.2 / 1000
        assert f"{label} ({ml:.3g} ml)" in caught.value.what
    assert hint in caught.value.fix


def test_many_labels_are_cut_short_and_may_be_grey_values() -> None:
    rng = np.random.default_rng(5)
    values = np.where(LESION, rng.integers(1, 200, SHAPE), 0)
    distinct = len(np.unique(values)) - 1
    with pytest.raises(InputError, match=f"and {distinct - 12} smaller ones") as caught:
        prepare(volume(values.astype(np.int32)))
    assert "--threshold" in caught.value.fix


def test_chosen_labels_are_selected_and_the_others_named() -> None:
    values = label_map(1, 2, 70000)
    result = prepare(volume(values), labels=(1, 2, 9))
    assert np.array_equal(result.voxels, np.isin(values, (1, 2)))
    texts = [finding.message for finding in result.findings if finding.code == "MA-06"]
    assert texts == ["labels 1, 2 count as lesion; 70000 left out", "labels 9 do not occur in the mask"]


def test_all_labels_are_selected_when_asked() -> None:
    result = prepare(volume(label_map(1, 2, 3)), labels="all")
    assert np.array_equal(result.voxels, LESION)
    assert message(result, "MA-06") == "all 3 labels of the mask count as lesion"


@pytest.mark.parametrize("value", [255, 0.25, 7])
def test_zero_and_one_other_value_is_a_mask_with_a_note(value: float) -> None:
    result = prepare(volume((LESION * value).astype(np.float32)))
    assert np.array_equal(result.voxels, LESION)
    assert levels(result) == {"MA-07": "note"}
    assert f"0 and {value:g} only" in message(result, "MA-07")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.nan, "2 NaN or infinite values; expected 0"),
        (np.inf, "2 NaN or infinite values; expected 0"),
        (-1, r"2 negative values \(the lowest is -1\)"),
    ],
)
def test_values_that_mean_nothing_are_refused(bad: float, says: str) -> None:
    values = LESION.astype(np.float32)
    values[3, 4, 5:7] = bad
    with pytest.raises(InputError, match=says) as caught:
        prepare(volume(values))
    assert (caught.value.code, caught.value.exit_status) == ("MA-07", 65)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_zero_and_one_of_any_type_is_a_mask(dtype: type) -> None:
    """MA-08."""
    result = prepare(volume(LESION.astype(dtype)))
    assert np.array_equal(result.voxels, LESION)
    assert levels(result) == {}


def test_ones_that_went_through_a_scaling_are_ones() -> None:
    image = nib.Nifti1Image(LESION.astype(np.uint8) * 255, AFFINE)
    image.header.set_slope_inter(1 / 255, 0)
    stored = nib.Nifti1Image.from_bytes(image.to_bytes())
    result = prepare(volume(volume_from_image(stored).values))
    assert np.array_equal(result.voxels, LESION)
    assert levels(result) == {}
