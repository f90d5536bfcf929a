"""The way to the model's grid and back: geometry, blindness to the lesion, independence of storage."""

from __future__ import annotations

import itertools
import json
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from neuromend.data.frame import Frame, Reorient, bounding_box, working_spacing_mm

ORIENTATIONS = [
    np.array(list(zip(order, signs, strict=True)))
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
SHAPE = (19, 22, 17)
SPACINGS = [
    (1.0, 1.0, 1.0),
    (2.0, 2.0, 2.0),
    (0.5, 0.5, 0.5),
    (0.7, 0.8, 0.75),
    (1.0, 0.9, 6.0),
    (3.1, 3.0, 2.9),
]


def affine_of(spacing: tuple[float, ...], rotation: NDArray[Any] | None = None) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) * spacing
    affine[:3, 3] = (-31.0, 12.5, 7.25)
    return affine


def stored_as(
    orientation: NDArray[Any], volume: NDArray[Any], affine: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The same voxels, stored with their axes permuted and flipped."""
    return apply_orientation(volume, orientation), affine @ inv_ornt_aff(orientation, volume.shape)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    grid = np.stack(np.indices(shape), -1)
    return np.linalg.norm(grid - np.array(centre), axis=-1) <= radius


def world(shape: tuple[int, ...], affine: NDArray[Any]) -> NDArray[np.float64]:
    """(x, y, z, 3): the millimetre position of every voxel."""
    return nib.affines.apply_affine(affine, np.stack(np.indices(shape), -1))


def worst_error_in_voxels(frame: Frame, mask: NDArray[np.bool_]) -> float:
    """Fill the model's grid with its own coordinates, bring them back, compare with the scan's own."""
    painted = world(frame.model_shape, frame.model_affine)
    back = np.stack([frame.to_scan(painted[..., c], mask) for c in range(3)], -1)
    wrong = back - world(frame.scan_shape, frame.scan_affine)[mask]
    return float(np.abs(wrong @ np.linalg.inv(frame.scan_affine[:3, :3]).T).max())


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_every_voxel_comes_back_from_its_own_place_in_all_48_orientations(spacing: tuple[float, ...]) -> None:
    mask = ball(SHAPE, (8, 12, 9), 4.3) | ball(SHAPE, (0, 21, 16), 2.1)
    for orientation in ORIENTATIONS:
        stored, affine = stored_as(orientation, mask, affine_of(spacing))
        frame = Frame.of(stored.shape, affine, focus=stored, multiple=8)
        assert worst_error_in_voxels(frame, stored) < 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_every_voxel_of_an_oblique_scan_comes_back_from_its_own_place(seed: int) -> None:
    rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    mask = ball(SHAPE, (8, 12, 9), 4.3) | ball(SHAPE, (18, 0, 16), 2.1)
    for spacing in SPACINGS:
        frame = Frame.of(SHAPE, affine_of(spacing, rotation), focus=mask, multiple=8)
        assert worst_error_in_voxels(frame, mask) < 1e-9


def test_a_sheared_scan_comes_back_from_its_own_place() -> None:
    affine = affine_of((1.0, 1.1, 3.0))
    affine[0, 1] = 0.2
    mask = ball(SHAPE, (8, 12, 9), 4.3)
    assert worst_error_in_voxels(Frame.of(SHAPE, affine, focus=mask), mask) < 1e-9


def test_without_interpolation_values_are_copied_bit_for_bit() -> None:
    generator = np.random.default_rng(1)
    scan = generator.normal(size=SHAPE).astype(np.float32)
    mask = ball(SHAPE, (8, 12, 9), 4.3)
    for orientation in ORIENTATIONS:
        stored, affine = stored_as(orientation, scan, affine_of((1.03, 1.0, 0.97)))
        stored_mask, _ = stored_as(orientation, mask, affine)
        frame = Frame.of(stored.shape, affine, multiple=8)
        model = frame.to_model(stored)
        assert model.shape == (24, 24, 24)
        assert frame.to_scan(model, stored_mask).tobytes() == stored[stored_mask].tobytes()


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("turned_by", [0.0, 12.0, 45.0])
def test_the_model_sees_the_same_array_however_the_scan_is_stored(
    spacing: tuple[float, ...], turned_by: float
) -> None:
    generator = np.random.default_rng(2)
    scan, mask = generator.normal(size=SHAPE), ball(SHAPE, (8, 12, 3), 4.3)
    rotation = Rotation.from_euler("z", turned_by, degrees=True).as_matrix()
    seen, masks, places = set(), set(), []
    for orientation in ORIENTATIONS:
        stored, affine = stored_as(orientation, scan, affine_of(spacing, rotation))
        stored_mask, _ = stored_as(orientation, mask, affine)
        frame = Frame.of(stored.shape, affine, focus=stored_mask, margin_mm=3.0, multiple=4)
        seen.add(frame.to_model(stored, mask=stored_mask).tobytes())
        masks.add(frame.mask_to_model(stored_mask).tobytes())
        places.append(frame.model_affine)
    assert len(seen) == len(masks) == 1
    np.testing.assert_allclose(places, np.broadcast_to(places[0], (48, 4, 4)), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.4, 6.5)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
    seed=st.integers(0, 2**32 - 1),
    noise=st.sampled_from([0.0, 1e30, -1e300, np.nan, np.inf]),
    specks=st.booleans(),
)
def test_noise_inside_the_mask_changes_no_bit_of_what_the_model_sees(
    spacing: tuple[float, ...], orientation: NDArray[Any], seed: int, noise: float, specks: bool
) -> None:
    generator = np.random.default_rng(seed)
    scan = generator.normal(100, 20, size=(9, 12, 7))
    centre = tuple(generator.uniform(0, scan.shape))
    mask = (
        generator.random(scan.shape) < 0.05 if specks else ball(scan.shape, centre, generator.uniform(1, 4))
    )
    scan, affine = stored_as(orientation, scan, affine_of(spacing))
    mask, _ = stored_as(orientation, mask, affine)
    frame = Frame.of(scan.shape, affine, focus=mask, multiple=4)
    other = np.where(mask, noise, scan)
    model_mask = frame.mask_to_model(mask)
    seen = frame.to_model(scan, mask=mask, fill=-0.5)
    assert frame.to_model(other, mask=mask, fill=-0.5).tobytes() == seen.tobytes()
    assert np.all(seen[model_mask] == -0.5)
    # What is not in the mask is a mean of known voxels, up to the overshoot of the cubic kernel.
    shown = seen[~model_mask & frame.to_model(np.ones(scan.shape)).astype(bool)]
    assert np.all((shown > 0) & (shown < 200))


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_outside_the_mask_the_model_sees_the_image_as_if_there_were_no_mask(
    spacing: tuple[float, ...],
) -> None:
    """Nothing changes away from the mask; next to it only the outer taps of the cubic kernel differ."""
    scan = np.random.default_rng(3).normal(size=SHAPE)
    mask = ball(SHAPE, (8, 12, 9), 3)
    frame = Frame.of(SHAPE, affine_of(spacing))
    model_mask = frame.mask_to_model(mask)
    with_mask, without = frame.to_model(scan, mask=mask), frame.to_model(scan)
    differs = with_mask != without
    near = frame.mask_to_model(ball(SHAPE, (8, 12, 9), 5.3))
    assert not differs[~near].any()
    if all(axis.step >= 1 for axis in frame.axes):
        assert not differs[~model_mask].any()


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_every_model_voxel_that_an_in_mask_voxel_would_move_is_in_the_model_mask(
    spacing: tuple[float, ...],
) -> None:
    """Checked against the linear response of the interpolation to one voxel, less the cubic's outer lobes."""
    frame = Frame.of(SHAPE, affine_of(spacing))
    for voxel in [(0, 0, 0), (18, 21, 16), (8, 12, 9), (18, 3, 1)]:
        mask = np.zeros(SHAPE, dtype=bool)
        mask[voxel] = True
        moved = frame.to_model(mask.astype(np.float32))
        model_mask = frame.mask_to_model(mask)
        assert model_mask.any()
        assert model_mask[moved > 0.05].all()
        assert not model_mask[moved == 0].any()
        if all(axis.step >= 1 for axis in frame.axes):
            np.testing.assert_array_equal(model_mask, moved != 0)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_there_and_back_is_close_to_the_scan(spacing: tuple[float, ...]) -> None:
    i, j, k = np.indices((40, 44, 36)) / 40
    scan = np.sin(9 * i) * np.cos(7 * j) + np.sin(8 * k + 1)
    inner = np.zeros(scan.shape, dtype=bool)
    inner[3:-3, 4:-4, 5:-5] = True
    frame = Frame.of(scan.shape, affine_of(spacing))
    back = frame.to_scan(frame.to_model(scan), inner)
    assert np.abs(back - scan[inner]).max() < 0.03


def test_a_straight_line_survives_the_way_to_the_model() -> None:
    for spacing in SPACINGS:
        frame = Frame.of(SHAPE, affine_of(spacing))
        expected = world(frame.model_shape, frame.model_affine)
        inside = Frame.of(SHAPE, frame.scan_affine).mask_to_model(ball(SHAPE, (9, 11, 8), 4))
        for c in range(3):
            seen = frame.to_model(world(SHAPE, frame.scan_affine)[..., c])
            np.testing.assert_allclose(seen[inside], expected[..., c][inside], atol=2e-5)


def test_a_constant_scan_stays_constant_up_to_its_border() -> None:
    for spacing in SPACINGS:
        frame = Frame.of(SHAPE, affine_of(spacing), multiple=1)
        np.testing.assert_allclose(frame.to_model(np.full(SHAPE, 7)), 7, rtol=1e-6)


def test_the_hole_casts_no_shadow_on_the_tissue_beside_it() -> None:
    """A constant scan is constant up to the edge of the model's mask: the void is never mixed in."""
    for spacing in SPACINGS:
        mask = ball(SHAPE, (8, 12, 9), 4.3)
        frame = Frame.of(SHAPE, affine_of(spacing), multiple=1)
        seen = frame.to_model(np.where(mask, np.nan, 7), mask=mask)
        np.testing.assert_allclose(seen[~frame.mask_to_model(mask)], 7, rtol=1e-6)


@pytest.mark.parametrize(("hidden", "beside"), [(5, 4), (2, 3)])
def test_beside_the_mask_the_volume_seems_to_end(hidden: int, beside: int) -> None:
    """Between thick slices the cubic kernel reads, for a slice in the mask, the known slice next to it."""
    scan = np.random.default_rng(8).normal(size=(3, 4, 8))
    mask = np.zeros(scan.shape, dtype=bool)
    mask[..., hidden] = True
    frame = Frame.of(scan.shape, affine_of((1, 1, 2.5)), multiple=1)
    shortened = scan.copy()
    shortened[..., hidden] = scan[..., beside]
    seen, expected = frame.to_model(scan, mask=mask), frame.to_model(shortened)
    slices = frame.to_scan(np.broadcast_to(np.arange(20.0), (3, 4, 20)), np.ones(scan.shape, dtype=bool))[:8]
    between = np.ceil(min(slices[3], slices[4])).astype(int)
    np.testing.assert_array_equal(seen[..., between : between + 2], expected[..., between : between + 2])


@pytest.mark.parametrize("count", [6, 7, 20, 21])
def test_a_model_voxel_on_a_known_slice_stays_known(count: int) -> None:
    """Of 3 mm slices seen at 1 mm, one slice in the mask hides itself and two model voxels to either side."""
    for slice_number in range(1, count - 1):
        mask = np.zeros((2, 3, count), dtype=bool)
        mask[..., slice_number] = True
        frame = Frame.of(mask.shape, affine_of((1, 1, 3)), multiple=1)
        (hidden,) = np.nonzero(frame.mask_to_model(mask)[0, 0])
        assert hidden.tolist() == list(range(3 * slice_number - 1, 3 * slice_number + 4))


def test_downsampling_does_not_alias() -> None:
    """A checkerboard finer than the model's voxels becomes grey, not a pattern of its own."""
    scan = (np.indices((20, 24, 28)).sum(axis=0) % 2).astype(np.float32)
    seen = Frame.of(scan.shape, affine_of((0.4, 0.4, 0.4)), multiple=1).to_model(scan)
    assert np.abs(seen[1:-1, 1:-1, 1:-1] - 0.5).max() < 0.02


def test_the_model_affine_maps_to_the_centre_of_the_same_box() -> None:
    for spacing in SPACINGS:
        frame = Frame.of(SHAPE, affine_of(spacing), multiple=1)
        centres = [
            nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
            for affine, shape in [(frame.scan_affine, SHAPE), (frame.model_affine, frame.model_shape)]
        ]
        np.testing.assert_allclose(centres[0], centres[1], atol=1e-9)
        extent = np.array(frame.model_shape) * frame.model_spacing_mm
        assert np.all(extent >= np.array(SHAPE) * spacing - 0.01)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [((1, 1, 1), 1.0), ((0.5, 0.5, 2), 1.0), ((1.2, 1.3, 5), 1.2), ((3, 4, 5), 2.0), ((2, 2, 2), 2.0)],
)
def test_the_working_spacing_is_the_finest_of_the_scan_within_1_to_2_mm(
    spacing: tuple[float, ...], expected: float
) -> None:
    assert working_spacing_mm(spacing) == expected


def test_only_axes_that_do_not_fit_are_interpolated() -> None:
    frame = Frame.of(SHAPE, affine_of((1.04, 0.96, 6.0)))
    assert [axis.copied for axis in frame.axes] == [True, True, False]
    np.testing.assert_allclose(frame.model_spacing_mm, (1.04, 0.96, 1.0))
    assert [axis.copied for axis in Frame.of(SHAPE, affine_of((1, 1, 1)), spacing_mm=2.0).axes] == [False] * 3


def test_noise_in_the_header_adds_no_voxel_and_no_interpolation() -> None:
    exact = Frame.of((30, 32, 26), affine_of((0.5, 1.0, 1.0)), multiple=1)
    noisy = Frame.of((30, 32, 26), affine_of((0.5000001, 1.0000001, 0.9999999)), multiple=1)
    assert noisy.model_shape == exact.model_shape == (15, 32, 26)
    assert [axis.copied for axis in noisy.axes] == [False, True, True]


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5], ids=str)
def test_reorienting_agrees_with_nibabel(orientation: NDArray[Any]) -> None:
    volume, affine = stored_as(orientation, np.arange(4 * 5 * 6).reshape(4, 5, 6), affine_of((1.5, 2.5, 3.5)))
    expected = nib.as_closest_canonical(nib.Nifti1Image(volume.astype(np.int32), affine))
    step = Reorient.of(affine)
    np.testing.assert_array_equal(step.to_model(volume), np.asanyarray(expected.dataobj))
    np.testing.assert_allclose(affine @ step.scan_of_model(volume.shape), expected.affine, atol=1e-9)
    assert step.codes == "".join(nib.aff2axcodes(affine))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_reorienting_and_its_inverse_are_a_pair(orientation: NDArray[Any]) -> None:
    volume, affine = stored_as(orientation, np.arange(4 * 5 * 6).reshape(4, 5, 6), affine_of((1.5, 2.5, 3.5)))
    step = Reorient.of(affine)
    points = np.nonzero(volume >= 0)
    found = step.found_at(points, volume.shape)
    np.testing.assert_array_equal(step.to_model(volume)[found], volume[points])
    back = nib.affines.apply_affine(step.scan_of_model(volume.shape), np.stack(found, -1))
    np.testing.assert_array_equal(back, np.stack(points, -1))


def test_the_box_is_cropped_to_the_focus_and_a_margin() -> None:
    focus = np.zeros((60, 70, 50), dtype=bool)
    focus[20:30, 31:52, 40:45] = True
    frame = Frame.of(focus.shape, affine_of((1, 1, 1)), focus=focus, margin_mm=3.0, multiple=1)
    assert frame.model_shape == (20, 31, 15)  # 3 mm and a halo of 2 voxels on each side, up to the border
    scan = np.random.default_rng(4).normal(size=focus.shape).astype(np.float32)
    np.testing.assert_array_equal(frame.to_model(scan), scan[15:35, 26:57, 35:50])


def test_room_for_the_multiple_is_taken_from_the_scan_before_padding() -> None:
    scan = np.random.default_rng(5).normal(size=(40, 21, 9)).astype(np.float32)
    focus = np.zeros(scan.shape, dtype=bool)
    focus[0, 10, 8] = True
    frame = Frame.of(scan.shape, affine_of((1, 1, 1)), focus=focus, margin_mm=0.0, multiple=16)
    seen = frame.to_model(scan, fill=-3.0)
    assert seen.shape == (16, 16, 16)
    np.testing.assert_array_equal(seen[:, :, 3:12], scan[:16, 3:19])
    assert np.all(seen[:, :, :3] == -3)
    assert np.all(seen[:, :, 12:] == -3)


@pytest.mark.parametrize(("place", "kept"), [(0, slice(0, 16)), (20, slice(13, 29)), (39, slice(24, 40))])
def test_the_box_lies_around_the_focus_as_evenly_as_the_border_allows(place: int, kept: slice) -> None:
    scan = np.random.default_rng(9).normal(size=(16, 40, 32)).astype(np.float32)
    focus = np.zeros(scan.shape, dtype=bool)
    focus[:, place] = True
    frame = Frame.of(scan.shape, affine_of((2, 2, 2)), focus=focus, margin_mm=2.0, multiple=16)
    np.testing.assert_array_equal(frame.to_model(scan), scan[:, kept])


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("voxel", [(0, 0, 0), (18, 21, 16), (0, 21, 8), (9, 11, 8)])
def test_one_voxel_at_the_border_is_kept_and_filled(
    spacing: tuple[float, ...], voxel: tuple[int, ...]
) -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[voxel] = True
    frame = Frame.of(SHAPE, affine_of(spacing), focus=mask, margin_mm=0.0, multiple=4)
    assert frame.mask_to_model(mask).any()
    assert frame.to_scan(np.ones(frame.model_shape), mask) == pytest.approx([1.0])
    assert worst_error_in_voxels(frame, mask) < 1e-9


def test_padding_is_never_read_on_the_way_back() -> None:
    for spacing in SPACINGS:
        frame = Frame.of(SHAPE, affine_of(spacing), multiple=32)
        padded = np.isnan(frame.to_model(np.zeros(SHAPE), fill=np.nan))
        assert padded.any()
        assert np.isfinite(frame.to_scan(np.where(padded, np.nan, 1.0), np.ones(SHAPE, dtype=bool))).all()


@pytest.mark.parametrize("shape", [(1, 2, 3), (5, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_volumes_of_a_few_voxels_work(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    frame = Frame.of(shape, affine_of(spacing), multiple=16)
    everything = np.ones(shape, dtype=bool)
    assert frame.to_scan(frame.to_model(np.full(shape, 5.0)), everything) == pytest.approx(
        np.full(everything.size, 5)
    )
    assert frame.mask_to_model(everything).any()


def test_an_empty_mask_and_an_empty_focus_are_no_special_case() -> None:
    nothing = np.zeros(SHAPE, dtype=bool)
    frame = Frame.of(SHAPE, affine_of((1, 1, 3)), focus=nothing)
    assert frame.model_shape == Frame.of(SHAPE, affine_of((1, 1, 3))).model_shape
    assert not frame.mask_to_model(nothing).any()
    assert frame.to_scan(np.zeros(frame.model_shape), nothing).shape == (0,)


def test_a_mask_outside_the_box_is_refused() -> None:
    focus, mask = np.zeros((2, 60, 40, 50), dtype=bool)
    focus[5, 5, 5] = mask[50, 5, 5] = True
    frame = Frame.of(focus.shape, affine_of((1, 1, 1)), focus=focus)
    with pytest.raises(ValueError, match="outside the model's box"):
        frame.mask_to_model(mask)
    with pytest.raises(ValueError, match="outside the model's box"):
        frame.to_scan(np.zeros(frame.model_shape), mask)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.dtype(">i2"), np.int32, np.float64, np.dtype(">f4")]
)
def test_any_stored_type_becomes_float32(dtype: Any) -> None:
    scan = np.random.default_rng(6).integers(0, 250, size=SHAPE).astype(dtype)
    seen = Frame.of(SHAPE, affine_of((1, 1, 1)), multiple=1).to_model(scan, mask=scan > 240)
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, np.where(scan > 240, 0, scan))


def test_the_inputs_are_not_written_to() -> None:
    scan, mask = np.random.default_rng(7).normal(size=SHAPE), ball(SHAPE, (8, 12, 9), 4)
    scan.flags.writeable = mask.flags.writeable = False
    frame = Frame.of(SHAPE, affine_of((1, 1, 2.5)))
    model = frame.to_model(scan, mask=mask)
    model.flags.writeable = False
    frame.mask_to_model(mask)
    frame.to_scan(model, mask)


def test_the_description_is_plain_and_names_what_was_done() -> None:
    rotation = Rotation.from_euler("x", 10, degrees=True).as_matrix()
    orientation = np.array([[1, -1], [0, 1], [2, -1]])
    _, affine = stored_as(orientation, np.zeros(SHAPE), affine_of((1.0, 1.0, 3.0), rotation))
    told = Frame.of((22, 19, 17), affine).describe()
    assert json.loads(json.dumps(told)) == told
    assert told["scan_axes"] == "".join(nib.aff2axcodes(affine))
    assert told["scan_spacing_mm"] == pytest.approx([1, 1, 3])
    assert told["model_spacing_mm"] == pytest.approx([1, 1, 1])
    assert told["oblique_degrees"] == pytest.approx(10)
    assert told["interpolated_axes"] == "Z"


def test_the_bounding_box_holds_every_voxel() -> None:
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[1, 2, 6] = mask[3, 2, 4] = True
    assert bounding_box(mask) == ((1, 4), (2, 3), (4, 7))
