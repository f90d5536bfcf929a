from __future__ import annotations

import math

import numpy as np
import pytest

from neuromend.errors import GeometryError, InputError, UsageError
from neuromend.metrics_samples import SAMPLE_COLUMNS, coverage, crps, sample_scores

SHAPE = (11, 12, 13)


def normal_samples(n: int, voxels: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Ordered samples N(0, spread^2) and a truth N(0, 1)."""
    rng = np.random.default_rng(n)
    return np.sort(spread * rng.standard_normal((n, voxels)), axis=0), rng.standard_normal(voxels)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_crps_of_a_perfect_sampler_is_the_known_one_however_few_samples(n: int) -> None:
    # For a standard normal forecast and truth the mean is 1 / sqrt(pi).
    assert crps(*normal_samples(n, 60_000)) == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)


def test_crps_is_worse_for_too_narrow_and_too_wide_samples() -> None:
    best = crps(*normal_samples(20, 20_000))
    assert crps(*normal_samples(20, 20_000, spread=0.3)) > best + 0.02
    assert crps(*normal_samples(20, 20_000, spread=3.0)) > best + 0.02


@pytest.mark.parametrize(("n", "level"), [(3, 0.5), (8, 0.5), (19, 0.9), (40, 0.9)])
def test_coverage_of_a_perfect_sampler_is_the_level(n: int, level: float) -> None:
    assert coverage(*normal_samples(n, 40_000), level) == pytest.approx(level, abs=0.012)


def test_coverage_needs_enough_samples_to_mark_the_interval() -> None:
    assert math.isnan(coverage(*normal_samples(2, 10), 0.5))
    assert math.isnan(coverage(*normal_samples(18, 10), 0.9))
    assert not math.isnan(coverage(*normal_samples(19, 10), 0.9))


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = np.random.default_rng(3).uniform(100, 200, SHAPE)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:9, 3:9, 4:10] = True
    return truth, np.where(mask, 0, truth), mask


def test_the_spread_follows_the_error_of_an_honest_sampler(case: tuple[np.ndarray, ...]) -> None:
    truth, voided, mask = case
    rng = np.random.default_rng(4)
    unsure = np.where(np.arange(SHAPE[0])[:, None, None] < 5, 1.0, 20.0)
    centre = truth + unsure * rng.standard_normal(SHAPE)
    samples = [centre + unsure * rng.standard_normal(SHAPE) for _ in range(8)]
    scores = sample_scores(samples, truth, voided, mask)
    assert tuple(scores) == SAMPLE_COLUMNS
    assert scores["spread_error_correlation"] > 0.4
    assert math.isnan(scores["coverage_90"])
    again = [np.where(mask, sample, -1e9) for sample in samples]
    assert sample_scores(again, truth, voided, mask) == pytest.approx(scores, nan_ok=True)


def test_samples_that_are_all_the_same_have_no_spread(case: tuple[np.ndarray, ...]) -> None:
    truth, voided, mask = case
    scores = sample_scores([truth + 1, truth + 1, truth + 1], truth, voided, mask)
    assert math.isnan(scores["spread_error_correlation"])
    assert scores["coverage_50"] < 0.1
    assert scores["crps"] > 0


def test_one_sample_is_refused(case: tuple[np.ndarray, ...]) -> None:
    truth, voided, mask = case
    with pytest.raises(UsageError, match="1 samples were given, expected 2 or more") as caught:
        sample_scores([truth], truth, voided, mask)
    assert (caught.value.code, caught.value.exit_status) == ("UX-02", 2)


def test_bad_grids_and_empty_masks_are_refused(case: tuple[np.ndarray, ...]) -> None:
    truth, voided, mask = case
    with pytest.raises(GeometryError, match=r"\(10, 12, 13\)") as caught:
        sample_scores([truth, truth[1:]], truth, voided, mask)
    assert caught.value.code == "MA-09"
    with pytest.raises(InputError) as empty:
        sample_scores([truth, truth], truth, voided, np.zeros_like(mask))
    assert empty.value.code == "MA-01"
