"""Where a lesion can be: size, position, flips and shape, told without looking at the lesion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromend.data.head import find_head
from neuromend.data.masks import LesionMask
from neuromend.data.volume import Volume
from neuromend.errors import InputError

from .mask_phantom import (
    CENTRE,
    SHAPE,
    ball,
    brain_voxels,
    distance_mm,
    levels,
    message,
    prepare,
    stripped,
    volume,
    whole_head,
)

LESION = ball()
BRAIN = brain_voxels()
SURFACE = ball((38, 26, 22), 14.0) & BRAIN


def slab(share: float) -> np.ndarray:
    """This share of the brain, cut off along the first axis."""
    along = np.cumsum(BRAIN.sum(axis=(1, 2))) / BRAIN.sum()
    cut = BRAIN.copy()
    cut[int(np.searchsorted(along, share)) :] = False
    return cut


def test_a_mask_of_the_whole_volume_is_refused() -> None:
    with pytest.raises(InputError, match="covers the whole volume") as caught:
        prepare(volume(np.ones(SHAPE, np.uint8)))
    assert (caught.value.code, caught.value.exit_status) == ("MA-02", 65)


def test_a_brain_mask_is_refused() -> None:
    with pytest.raises(InputError, match=r"leaves nothing of the head in scan\.nii\.gz") as caught:
        prepare(volume(BRAIN))
    assert (caught.value.code, caught.value.exit_status) == ("MA-02", 65)


def test_more_than_half_of_the_brain_is_refused_with_the_percentage() -> None:
    with pytest.raises(InputError, match=r"covers [56]\d% of the brain; expected at most 50%") as caught:
        prepare(volume(slab(0.62)))
    assert (caught.value.code, caught.value.exit_status) == ("MA-02", 65)


def test_more_than_a_quarter_of_the_brain_is_a_warning_and_a_sixth_a_note() -> None:
    assert levels(prepare(volume(slab(0.36))))["MA-02"] == "warning"
    assert levels(prepare(volume(slab(0.2))))["MA-16"] == "note"
    assert "covers 9.5% of the brain" in message(prepare(volume(slab(0.12))), "MA-02")


def test_the_size_after_dilation_counts() -> None:
    with pytest.raises(InputError, match="of the brain; expected at most 50%") as caught:
        prepare(volume(slab(0.3)), dilate_mm=25)
    assert caught.value.code == "MA-02"


@pytest.mark.parametrize(
    ("options", "fix"), [({}, "add --invert-mask"), ({"invert": True}, "drop --invert-mask")]
)
def test_a_mask_of_the_background_is_refused(options: dict[str, Any], fix: str) -> None:
    drawn = LESION if options else ~LESION
    with pytest.raises(
        InputError, match=r"looks inverted: it covers 99\.\d% of the volume and 100%"
    ) as caught:
        prepare(volume(drawn), **options)
    assert (caught.value.code, caught.value.exit_status) == ("MA-03", 65)
    assert fix in caught.value.fix


def test_an_inverted_brain_mask_is_refused_too() -> None:
    with pytest.raises(InputError, match="looks inverted") as caught:
        prepare(volume(~BRAIN))
    assert caught.value.code == "MA-03"


@pytest.mark.parametrize("image", [stripped(), whole_head()], ids=["stripped", "whole head"])
def test_a_mask_in_air_is_refused_with_the_share(image: Volume) -> None:
    with pytest.raises(InputError, match="100% of the mask lies in air, outside the head of scan") as caught:
        prepare(volume(ball((4, 5, 5), 6.0)), image)
    assert (caught.value.code, caught.value.exit_status) == ("MA-13", 65)


def test_a_mask_in_air_between_parts_of_the_head_is_refused() -> None:
    """Inside the convex outline, but with nothing of the head next to it."""
    values = stripped().values.copy()
    values[:, 6:42, 22:] = 0
    with pytest.raises(InputError, match="lies in air") as caught:
        prepare(volume(ball((22, 24, 30), 5.0)), volume(values, name="scan.nii.gz"))
    assert caught.value.code == "MA-13"


@pytest.mark.parametrize("image", [stripped(), whole_head()], ids=["stripped", "whole head"])
def test_a_mask_that_reaches_into_air_is_a_warning_with_the_share(image: Volume) -> None:
    drawn = ball((40, 24, 20), 12.0)
    result = prepare(volume(drawn), image)
    assert levels(result)["MA-13"] == "warning"
    inside = float(message(result, "MA-13").split("%")[0]) / 100
    # One coarse voxel (about 4 mm) around the head counts as head.
    assert (drawn & BRAIN).sum() / drawn.sum() - 0.02 < inside < 0.95


@pytest.mark.parametrize("lesion", [LESION, SURFACE], ids=["deep", "at the surface"])
@pytest.mark.parametrize("value", [0.0, np.nan, 900.0])
def test_a_lesion_already_voided_passes(lesion: np.ndarray, value: float) -> None:
    plain = prepare(volume(lesion))
    voided = prepare(volume(lesion), stripped(at=lesion, to=value))
    assert np.array_equal(voided.voxels, lesion)
    assert voided.findings == plain.findings
    assert "MA-13" not in levels(voided)


def test_a_voided_cap_of_the_head_is_accepted_with_a_warning() -> None:
    """What a large lesion hides of the outline is continued as on a sphere: worth a look, no refusal."""
    cap = slab(0.3)
    result = prepare(volume(cap), stripped(at=cap))
    assert np.array_equal(result.voxels, cap)
    assert levels(result)["MA-13"] == "warning"


def test_a_voided_lesion_of_a_whole_head_passes() -> None:
    result = prepare(volume(SURFACE), whole_head(at=SURFACE))
    assert levels(result) == {}
    assert result.findings == prepare(volume(SURFACE), whole_head()).findings


def test_a_voided_lesion_that_cuts_the_brain_in_two_passes() -> None:
    cut = BRAIN.copy()
    cut[:19] = cut[23:] = False
    assert "MA-13" not in levels(prepare(volume(cut), stripped(at=cut)))


@pytest.mark.parametrize("name", ["stripped", "whole head"])
def test_the_head_found_holds_the_brain_and_no_air(name: str) -> None:
    head = find_head(stripped() if name == "stripped" else whole_head(), LESION)
    assert head is not None
    coarse = tuple(slice(None, None, int(n)) for n in head.step)
    scalp = distance_mm(CENTRE, (34.0, 36.0, 33.0)) <= 1.1
    inner = distance_mm(CENTRE, (34.0, 36.0, 33.0)) <= 0.95  # without the dark skull
    assert head.tissue[inner[coarse]].mean() > 0.98
    assert scalp[coarse][head.tissue].mean() > 0.98
    assert head.tissue[LESION[coarse]].all()


def test_background_noise_with_many_exact_zeros_is_not_taken_for_the_head() -> None:
    rng = np.random.default_rng(4)
    values = np.where(BRAIN, rng.uniform(60, 140, SHAPE), rng.random(SHAPE) < 0.15).astype(np.float32)
    with pytest.raises(InputError) as caught:
        prepare(volume(ball((4, 5, 5), 6.0)), volume(values, name="scan.nii.gz"))
    assert caught.value.code == "MA-13"


@pytest.mark.parametrize(
    ("axis", "shift", "place", "direction"),
    [(0, 4, 35, "left-right"), (1, 3, 41, "front-back"), (2, 4, 31, "up-down")],
)
def test_a_mask_that_a_flip_would_bring_into_the_head_is_a_warning(
    axis: int, shift: int, place: int, direction: str
) -> None:
    image = volume(np.roll(stripped().values, shift, axis), name="scan.nii.gz")
    centre = [22, 24, 20]
    centre[axis] = place
    drawn = ball(tuple(centre), 8.0)
    assert "MA-11" not in levels(prepare(volume(drawn), image))
    result = prepare(volume(np.flip(drawn, axis)), image)
    assert levels(result)["MA-11"] == "warning"
    assert f"flipped {direction}: flipped, 100%" in message(result, "MA-11")


def test_a_mask_in_air_that_a_flip_would_bring_into_the_head_says_so() -> None:
    image = volume(np.roll(stripped().values, 4, 0), name="scan.nii.gz")
    with pytest.raises(InputError, match="may be flipped left-right: flipped, 100%") as caught:
        prepare(volume(np.flip(ball((40, 24, 20), 6.0), 0)), image)
    assert caught.value.code == "MA-13"


def test_a_lesion_at_the_border_of_the_volume_is_a_warning() -> None:
    image = volume(np.roll(stripped().values, 4, 0), name="scan.nii.gz")
    drawn = ball((41, 24, 20), 7.0)
    result = prepare(volume(drawn), image)
    assert result.voxels[-1].any()
    assert levels(result) == {"MA-14": "warning"}
    assert message(result, "MA-14").startswith("1 of 1 lesions touch the border")


def test_many_specks_are_all_kept_and_counted() -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[::3, ::3, ::3] = 1
    drawn[~BRAIN] = 0
    result = prepare(volume(drawn))
    count = int(drawn.sum())
    assert count > 400
    assert result.components == count
    assert np.array_equal(result.voxels, drawn > 0)
    assert f"has {count:,} separate lesions, {count:,} of them a single voxel" in message(result, "MA-15")
    assert "--min-size-ml" in message(result, "MA-15")


def test_a_single_voxel_is_a_lesion() -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[25, 20, 19] = 1
    result = prepare(volume(drawn))
    assert (result.components, levels(result)) == (1, {"MA-15": "note"})


def test_a_thin_sheet_is_noted() -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[12:32, 14:34, 20:22] = 1
    assert "two voxels thick or less" in message(prepare(volume(drawn)), "MA-16")


def test_holes_in_a_lesion_are_counted_and_stay() -> None:
    drawn = LESION.copy()
    drawn[26:28, 26, 22] = False
    result = prepare(volume(drawn))
    assert np.array_equal(result.voxels, drawn)
    assert "encloses 2 voxels that stay as they are" in message(result, "MA-16")


def same(one: LesionMask, other: LesionMask) -> bool:
    return (
        np.array_equal(one.voxels, other.voxels)
        and one.findings == other.findings
        and one.boxes == other.boxes
        and (one.volume_ml, one.components, one.sha256_voxels)
        == (other.volume_ml, other.components, other.sha256_voxels)
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1.0, 1e3, -1e6]),
    dilate_mm=st.sampled_from([0.0, 5.0]),
    radius_mm=st.floats(2.5, 16.0),
    x=st.integers(12, 34),
    head=st.booleans(),
)
def test_what_lies_under_the_mask_never_changes_the_result(
    seed: int, scale: float, dilate_mm: float, radius_mm: float, x: int, head: bool
) -> None:
    image = whole_head() if head else stripped()
    mask = volume(ball((x, 22, 21), radius_mm))
    plain = prepare(mask, image, dilate_mm=dilate_mm)
    noisy = image.values.copy()
    noise = np.random.default_rng(seed).normal(0, scale if scale > 0 else -scale, SHAPE)
    noisy[plain.voxels] = noise[plain.voxels]
    assert same(plain, prepare(mask, volume(noisy, name="scan.nii.gz"), dilate_mm=dilate_mm))
