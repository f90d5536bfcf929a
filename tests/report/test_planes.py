"""The cuts: orientation, letters, isotropic pixels, window."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from neuromend.report import ReportCase
from neuromend.report.planes import PLANES, Display, View

from .report_cases import affine_for, ball, case

SHAPE = (40, 44, 36)
BLOB = (-16.0, 12.0, 8.0)
"""Patient's left, anterior, superior."""


def blob_case(codes: str, spacing_mm: tuple[float, float, float], turn_degrees: float) -> ReportCase:
    affine = affine_for(codes, SHAPE, spacing_mm, turn_degrees)
    head = ball(SHAPE, affine, (0, 0, 0), 30.0)
    blob = ball(SHAPE, affine, BLOB, 5.0)
    scan = (50.0 * head + 150.0 * blob).astype(np.float32)
    return ReportCase(title="blob", before=scan, after=scan, mask=blob, affine=affine)


def centre_of(bright: NDArray[np.bool_]) -> tuple[float, float]:
    """(column, row) of a blob, relative to the picture's middle, in pixels."""
    rows, columns = np.nonzero(bright)
    half = (len(bright) - 1) / 2
    return float(columns.mean() - half), float(rows.mean() - half)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PSR", "AIL", "SRA"])
@pytest.mark.parametrize("turn", [0.0, 17.0, -31.0])
@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.7, 2.1, 2.9)])
def test_a_blob_at_the_patients_left_front_top_lies_at_the_letters_l_a_s(
    codes: str, turn: float, spacing: tuple[float, float, float]
) -> None:
    made = blob_case(codes, spacing, turn)
    display = Display(made)
    place = {"L": -1, "R": 1, "P": -1, "A": 1, "I": -1, "S": 1}
    patient = {"L": 1, "R": -1, "A": 1, "P": -1, "S": 1, "I": -1}  # towards which letters the blob lies
    for plane in PLANES:
        view = display.head_view(plane, made.lesions[0].centre)
        column, row = centre_of(display.cut(made.before, view) > 125)
        left, right, top, bottom = plane.letters
        assert place[left] == -place[right]
        assert place[top] == -place[bottom]
        towards = left if column < 0 else right
        assert patient[towards] == 1
        assert patient[top if row < 0 else bottom] == 1


def test_left_is_on_the_left_in_every_plane_that_shows_it() -> None:
    assert [plane.letters[:2] for plane in PLANES] == [("L", "R"), ("L", "R"), ("P", "A")]
    assert [plane.letters[2:] for plane in PLANES] == [("A", "P"), ("S", "I"), ("S", "I")]


@pytest.mark.parametrize("axes", list(itertools.permutations(("LR", "PA", "IS"))))
@pytest.mark.parametrize("signs", list(itertools.product((0, 1), repeat=3)))
def test_all_48_orientations_are_shown_as_nibabel_shows_them(
    axes: tuple[str, str, str], signs: tuple[int, int, int]
) -> None:
    codes = "".join(pair[sign] for pair, sign in zip(axes, signs, strict=True))
    shape = (5, 6, 7)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    mask = np.zeros(shape, dtype=bool)
    mask[1, 2, 3] = True
    made = ReportCase("x", values, values, mask, affine_for(codes, shape, (1.0, 2.0, 3.0), 20.0))
    display = Display(made)
    witness = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, made.affine))
    np.testing.assert_array_equal(display.shown(values), witness.dataobj)
    assert display.spacing_mm == pytest.approx(witness.header.get_zooms())
    assert display.shown(mask)[display.to_display((1, 2, 3))]
    assert display.tilt_degrees == pytest.approx(20.0)


def test_pixels_are_isotropic_although_voxels_are_not() -> None:
    shape, spacing = (60, 30, 12), (1.0, 2.0, 5.0)
    affine = affine_for("RAS", shape, spacing)
    mask = ball(shape, affine, (0, 0, 0), 20.0)
    made = ReportCase("ball", mask.astype(np.float32), mask.astype(np.float32), mask, affine)
    display = Display(made)
    for plane in PLANES:
        view = display.head_view(plane, made.lesions[0].centre)
        shown = display.cut_mask(mask, view)
        pixel_mm = view.side_mm / view.pixels
        thickest = max(view.spacing_mm)
        for axis in (0, 1):
            extent_mm = np.count_nonzero(shown.any(axis=axis)) * pixel_mm
            assert abs(extent_mm - 40.0) <= thickest + 1e-6


def test_a_1_mm_scan_is_shown_voxel_by_voxel() -> None:
    made = case(spacing_mm=(1.0, 1.0, 1.0))
    display = Display(made)
    view = display.head_view(PLANES[0], made.lesions[0].centre)
    shown = display.cut(made.before, view)
    known = np.isin(shown[np.isfinite(shown)], made.before[:, :, view.position])
    assert known.all()


def test_a_fine_scan_is_reduced_and_keeps_its_field_of_view() -> None:
    made = case(shape=(90, 100, 95), spacing_mm=(0.4, 0.4, 0.4))
    whole, reduced = Display(made), Display(made, largest=64)
    for plane in PLANES:
        first = whole.head_view(plane, made.lesions[0].centre)
        second = reduced.head_view(plane, made.lesions[0].centre)
        assert second.pixels == 64
        assert second.side_mm == pytest.approx(first.side_mm, rel=0.03)


def test_the_window_ignores_the_mask() -> None:
    made = case()
    bright = made.before.copy()
    bright[made.mask] = 1e6
    assert Display(case(before=bright)).window == Display(made).window


@pytest.mark.parametrize("value", [0.0, 7.5, np.nan, np.inf])
def test_a_scan_of_one_value_has_a_window(value: float) -> None:
    made = case()
    flat = np.full_like(made.before, value)
    low, high = Display(case(before=flat, after=flat)).window
    assert low < high
    assert np.isfinite([low, high]).all()


def test_not_finite_voxels_are_black_and_do_not_darken_their_neighbours() -> None:
    made = case(spacing_mm=(1.0, 1.0, 1.0))
    display = Display(made)
    view = display.head_view(PLANES[0], made.lesions[0].centre)
    holed = made.after.copy()
    holed[12, 15, view.position] = np.nan
    whole, broken = display.grey(made.after, view), display.grey(holed, view)
    assert np.count_nonzero(whole != broken) == 1
    assert broken[whole != broken] == 0


@pytest.mark.parametrize("corner", [(0, 0, 0), (23, 29, 25), (0, 29, 12)])
def test_a_lesion_at_the_border_of_the_volume_is_in_its_close_up(corner: tuple[int, int, int]) -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[corner] = True
    made = case(mask=mask)
    display = Display(made)
    for plane in PLANES:
        for view in (
            display.lesion_view(plane, made.lesions[0], times=1.35, at_least=0.33),
            display.head_view(plane, made.lesions[0].centre),
        ):
            assert display.cut_mask(mask, view).any()


def test_a_close_up_never_shows_more_than_the_head() -> None:
    made = case(mask=np.ones((24, 30, 26), dtype=bool))
    display = Display(made)
    view = display.lesion_view(PLANES[1], made.lesions[0], times=3.0, at_least=0.33)
    assert isinstance(view, View)
    assert view.side_mm <= display.head_side_mm + 2 * display.spacing_mm.min()
