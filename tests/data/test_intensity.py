"""The intensity scale: estimated outside the mask only, linear, undone without loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuromend.data import intensity
from neuromend.data.intensity import IntensityScale

SHAPE = (20, 24, 22)


def head(seed: int = 0) -> NDArray[np.float64]:
    """Noisy air around tissue of 60 to 110 units."""
    generator = np.random.default_rng(seed)
    scan = np.abs(generator.normal(0, 1.5, size=SHAPE))
    scan[4:16, 5:19, 3:17] = generator.uniform(60, 110, size=(12, 14, 14))
    return scan


def hole() -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[6:11, 7:13, 5:9] = True
    return mask


def test_air_becomes_about_0_and_bright_tissue_about_1() -> None:
    scan = head()
    seen = IntensityScale.estimate(scan, ~hole()).normalise(scan)
    assert seen.dtype == np.float32
    assert np.median(seen[0]) == pytest.approx(0, abs=0.03)
    assert np.percentile(seen, 99) == pytest.approx(1, abs=0.03)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    noise=st.sampled_from([0.0, -1e30, 1e30, 1e300, np.nan, np.inf, -np.inf]),
)
def test_what_stands_in_the_mask_changes_no_bit_of_the_scale(seed: int, noise: float) -> None:
    generator = np.random.default_rng(seed)
    scan, mask = head(), generator.random(SHAPE) < generator.uniform(0, 0.9)
    assert IntensityScale.estimate(np.where(mask, noise, scan), ~mask) == IntensityScale.estimate(scan, ~mask)


@settings(max_examples=50, deadline=None)
@given(gain=st.floats(1e-6, 1e6), offset=st.floats(-1e4, 1e4))
def test_gain_and_offset_of_the_scanner_do_not_matter(gain: float, offset: float) -> None:
    """IN-17: negative intensities are as good as any."""
    scan = head()
    other = (scan + offset) * gain
    expected = IntensityScale.estimate(scan, ~hole()).normalise(scan)
    np.testing.assert_allclose(IntensityScale.estimate(other, ~hole()).normalise(other), expected, atol=1e-5)


@pytest.mark.parametrize("gain", [1e-30, 1.0, 1e33])
def test_restoring_undoes_normalising(gain: float) -> None:
    """IN-21: huge and tiny units; float32 keeps seven digits of the range."""
    scan = head() * gain
    scale = IntensityScale.estimate(scan, ~hole())
    back = scale.restore(scale.normalise(scan))
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, scan, rtol=0, atol=2e-7 * scan.max())


def test_large_integers_keep_their_differences() -> None:
    """IN-21: above 2^24 float32 cannot tell neighbouring integers apart, the scale must."""
    scan = head().astype(np.int32) + 2**30
    scale = IntensityScale.estimate(scan, ~hole())
    np.testing.assert_array_equal(np.round(scale.restore(scale.normalise(scan))), scan)


def test_nothing_is_clipped() -> None:
    scan = head()
    scan[10, 10, 10], scan[9, 9, 9] = 5000, -900
    scale = IntensityScale.estimate(scan, np.ones(SHAPE, dtype=bool))
    seen = scale.normalise(scan)
    assert seen[10, 10, 10] > 40
    assert seen[9, 9, 9] < -5
    assert scale.high < 120  # a single voxel does not set the scale


def test_voxels_that_are_not_finite_become_background_and_do_not_count() -> None:
    """IN-15."""
    scan = head()
    clean = IntensityScale.estimate(scan, ~hole())
    damaged = scan.copy()
    damaged[0, 0, :3] = (np.nan, np.inf, -np.inf)
    scale = IntensityScale.estimate(damaged, ~hole())
    assert (scale.low, scale.high) == pytest.approx((clean.low, clean.high), rel=1e-2, abs=1e-2)
    assert scale.normalise(damaged)[0, 0, :3].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [0.0, 7.0, -3.5])
def test_a_constant_image_gets_a_scale_that_can_be_undone(value: float) -> None:
    scan = np.full(SHAPE, value)
    scale = IntensityScale.estimate(scan, ~hole())
    assert scale.high == scale.low + 1
    np.testing.assert_array_equal(scale.restore(scale.normalise(scan)), scan)


def test_with_nothing_known_the_scale_is_the_identity() -> None:
    nothing = np.zeros(SHAPE, dtype=bool)
    assert IntensityScale.estimate(head(), nothing) == IntensityScale(0.0, 1.0)
    everything_damaged = IntensityScale.estimate(np.full(SHAPE, np.nan), ~nothing)
    assert everything_damaged == IntensityScale(0.0, 1.0)


def test_few_known_voxels_are_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stride must not miss the only voxels that are known."""
    monkeypatch.setattr(intensity, "MAX_SAMPLE", 2000)
    known = np.zeros(SHAPE, dtype=bool)
    known[5, 6, 4:17] = True
    scale = IntensityScale.estimate(head(), known)
    assert 60 <= scale.low < scale.high <= 110


def test_a_strided_sample_gives_nearly_the_scale_of_all_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = head()
    of_all = IntensityScale.estimate(scan, ~hole())
    monkeypatch.setattr(intensity, "MAX_SAMPLE", 3500)
    of_some = IntensityScale.estimate(scan, ~hole())
    assert of_some != of_all
    assert of_some.high == pytest.approx(of_all.high, rel=0.01)
    assert of_some.low == pytest.approx(of_all.low, abs=0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.dtype(">i2"), np.float32, np.float64])
def test_the_scale_does_not_depend_on_the_stored_type(dtype: Any) -> None:
    scan = np.round(head())
    expected = IntensityScale.estimate(scan, ~hole())
    assert IntensityScale.estimate(scan.astype(dtype), ~hole()) == expected


def test_restoring_undoes_the_scale() -> None:
    scale = IntensityScale(low=-20.0, high=180.0)
    np.testing.assert_allclose(scale.restore(np.array([0.0, 0.5, 1.0])), [-20, 80, 180])
