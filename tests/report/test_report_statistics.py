"""The numbers beside a lesion."""

from __future__ import annotations

import numpy as np
import pytest

from neuromend.report import ReportCase
from neuromend.report.statistics import BINS, RING_MM, lesion_statistics

from .report_cases import affine_for, ball, case

SHAPE = (20, 22, 24)
WINDOW = (0.0, 200.0)


def cube_case(inside: float, outside: float, spacing_mm: tuple[float, float, float]) -> ReportCase:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[8:12, 8:12, 8:12] = True
    scan = np.full(SHAPE, outside)
    scan[0] = 0.0
    after = np.where(mask, inside, scan)
    affine = affine_for("RAS", SHAPE, spacing_mm)
    return ReportCase("cube", np.where(mask, 10.0, scan), after, mask, affine)


def test_means_are_of_the_lesion_the_fill_and_the_ring() -> None:
    made = cube_case(inside=110.0, outside=100.0, spacing_mm=(2.0, 2.0, 2.0))
    numbers = lesion_statistics(made, made.lesions[0], WINDOW)
    assert (numbers.inside_before.mean, numbers.inside_after.mean, numbers.ring.mean) == (10.0, 110.0, 100.0)
    assert numbers.ring.deviation == 0.0
    assert numbers.gradient_after == 0.0


def test_the_seam_is_the_step_across_the_border_in_units_of_the_rings_gradient() -> None:
    rng = np.random.default_rng(5)
    texture = 100 + rng.normal(size=SHAPE)
    made = cube_case(inside=100.0, outside=100.0, spacing_mm=(2.0, 2.0, 2.0))
    continued = case(shape=SHAPE, before=texture, after=texture, mask=made.mask)
    shifted = case(shape=SHAPE, before=texture, after=texture + 20 * made.mask, mask=made.mask)
    assert lesion_statistics(continued, continued.lesions[0], WINDOW).seam == pytest.approx(1.0, abs=0.15)
    assert lesion_statistics(shifted, shifted.lesions[0], WINDOW).seam > 10


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.0, 2.5, 5.0)])
def test_the_ring_is_as_wide_in_millimetres_along_every_axis(spacing: tuple[float, float, float]) -> None:
    made = cube_case(inside=100.0, outside=100.0, spacing_mm=spacing)
    marked = made.before.copy()
    reach = [round(RING_MM / size) for size in spacing]
    outside = np.ones(SHAPE, dtype=bool)
    outside[tuple(slice(8 - steps, 12 + steps) for steps in reach)] = False
    marked[outside & (marked > 0)] = 150.0
    edited = case(shape=SHAPE, spacing_mm=spacing, before=marked, after=marked, mask=made.mask)
    assert lesion_statistics(edited, edited.lesions[0], WINDOW).ring.mean == 100.0


def test_background_that_is_not_the_lowest_value_is_not_part_of_the_ring_either() -> None:
    """A stripped scan that was interpolated: zeros around, and a few voxels below zero."""
    made = cube_case(inside=110.0, outside=100.0, spacing_mm=(2.0, 2.0, 2.0))
    scan = made.before.copy()
    scan[:8] = scan[-2:] = 0.0
    scan[3, 3, 3] = -54.0
    made = case(shape=SHAPE, before=scan, after=np.where(made.mask, 110.0, scan), mask=made.mask)
    numbers = lesion_statistics(made, made.lesions[0], WINDOW)
    assert (numbers.ring.mean, numbers.ring.deviation) == (100.0, 0.0)


def test_background_and_other_lesions_are_not_part_of_the_ring() -> None:
    affine = affine_for("RAS", SHAPE, (2.0, 2.0, 2.0))
    first, second = ball(SHAPE, affine, (0, 0, 0), 4.0), ball(SHAPE, affine, (9, 0, 0), 3.0)
    scan = np.where(second, 999.0, 100.0)
    scan[:, :10] = 0.0
    made = case(shape=SHAPE, before=scan, after=scan, mask=first | second)
    assert lesion_statistics(made, made.lesions[0], WINDOW).ring.mean == 100.0


def test_histograms_are_normalised_and_hold_values_beyond_the_window() -> None:
    made = cube_case(inside=500.0, outside=100.0, spacing_mm=(2.0, 2.0, 2.0))
    numbers = lesion_statistics(made, made.lesions[0], WINDOW)
    assert [values.sum() for values in numbers.histograms] == pytest.approx([1.0, 1.0, 1.0])
    assert len(numbers.edges) == BINS + 1
    assert numbers.histograms[2][-1] == 1.0


def test_a_mask_that_covers_everything_has_no_ring() -> None:
    made = case(shape=SHAPE, mask=np.ones(SHAPE, dtype=bool))
    numbers = lesion_statistics(made, made.lesions[0], WINDOW)
    assert np.isnan([numbers.ring.mean, numbers.seam, numbers.gradient_ring]).all()


def test_not_finite_voxels_of_the_scan_are_left_out() -> None:
    made = case()
    before = made.before.copy()
    before[made.mask] = np.nan
    before[0, 0, 0] = -np.inf
    edited = case(before=before)
    numbers = lesion_statistics(edited, edited.lesions[0], WINDOW)
    assert np.isnan(numbers.inside_before.mean)
    assert np.isfinite([numbers.ring.mean, numbers.inside_after.mean, numbers.seam]).all()
