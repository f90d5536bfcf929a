from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from neuromend.errors import GeometryError, InputError
from neuromend.metrics import (
    CHALLENGE_COLUMNS,
    OWN_COLUMNS,
    bounding_box,
    challenge_scores,
    intensity_limits,
    own_scores,
    scale,
    seam_score,
    sharpness_ratio,
    ssim_3d,
)

Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def smooth_image(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Positive, correlated over a few voxels, like tissue."""
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(rng.standard_normal(shape), 2.0)
    return 400 + 900 * image / image.std() / 3


def random_case(seed: int) -> Case:
    """Prediction, truth, voided, mask: sizes, holes, background and intensity range all drawn."""
    rng = np.random.default_rng(seed)
    x, y, z = (int(n) for n in rng.integers((9, 13, 17), (16, 24, 28)))
    truth = smooth_image(rng, (x, y, z)) * rng.uniform(0.01, 10)
    if rng.random() < 0.2:
        truth -= truth.mean()  # values below zero
    if rng.random() < 0.7:
        truth[: x // 3] = 0  # background
    spread = rng.uniform(0.01, 0.6) * truth.std()
    prediction = truth + spread * rng.standard_normal(truth.shape)
    mask = np.zeros((x, y, z), dtype=bool)
    low = [int(rng.integers(0, n // 2)) for n in (x, y, z)]
    high = [int(rng.integers(a + 3, n + 1)) for a, n in zip(low, (x, y, z), strict=True)]
    mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    if rng.random() < 0.5:
        mask &= rng.random(mask.shape) < 0.8
    mask[low[0], low[1], low[2]] = True
    return prediction, truth, np.where(mask, 0, truth), mask


def official_scores(case: Case) -> dict[str, float]:
    from inpainting.challenge_metrics_2023 import generate_metrics

    prediction, truth, voided, mask = (torch.from_numpy(array)[None] for array in case)
    with warnings.catch_warnings():  # its own, about its use of numpy and torchmetrics
        warnings.simplefilter("ignore")
        return generate_metrics(prediction=prediction, target=truth, normalization_tensor=voided, mask=mask)


@pytest.mark.parametrize("first_seed", range(0, 130, 10))
def test_the_challenge_scores_equal_those_of_the_official_package(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 10):
        case = random_case(seed)
        official, ours = official_scores(case), challenge_scores(*case)
        assert tuple(ours)[: len(CHALLENGE_COLUMNS)] == CHALLENGE_COLUMNS
        assert set(official) == set(CHALLENGE_COLUMNS)
        for name, expected in official.items():
            # The package sums in float32 for the PSNRs, so 20 dB is only known to 2e-6 there.
            tolerance = 1e-5 if name.startswith("psnr") else 1e-6
            assert ours[name] == pytest.approx(expected, abs=tolerance, nan_ok=True), (seed, name)


def test_degenerate_cases_equal_those_of_the_official_package() -> None:
    prediction, truth, voided, mask = random_case(3)
    single = np.zeros_like(mask)
    single[4, 5, 6] = True
    flat = np.where(mask, 300.0, truth)
    for case in (
        (truth, truth, voided, mask),
        (prediction, flat, voided, mask),
        (prediction, truth, np.where(single, 0, truth), single),
        (prediction, truth, voided, np.ones_like(mask)),
        (prediction, truth, np.zeros_like(voided), mask),
    ):
        official, ours = official_scores(case), challenge_scores(*case)
        for name, expected in official.items():
            assert ours[name] == pytest.approx(expected, abs=1e-5, nan_ok=True), name


def test_a_perfect_fill_has_the_best_value_of_every_score() -> None:
    _, truth, voided, mask = random_case(1)
    scores = challenge_scores(truth, truth, voided, mask) | own_scores(truth, truth, voided, mask)
    assert scores["ssim"] == pytest.approx(1)
    assert scores["ssim_3d"] == pytest.approx(1)
    assert scores["psnr"] == scores["psnr_01"] == math.inf
    assert scores["mse"] == scores["mae"] == scores["msle"] == scores["histogram_distance"] == 0
    assert scores["seam"] == scores["sharpness"] == 1


def test_scores_see_only_the_voxels_of_the_mask() -> None:
    prediction, truth, voided, mask = random_case(5)
    other = np.where(mask, prediction, -1e6)
    for score in (challenge_scores, own_scores):
        assert score(prediction, truth, voided, mask) == score(other, truth, voided, mask)


def test_mean_squared_error_and_psnr_have_their_known_values() -> None:
    truth = np.zeros((6, 7, 8))
    truth[3:] = 200.0
    mask = np.zeros(truth.shape, dtype=bool)
    mask[2:4, 2:5, 2:6] = True
    prediction = truth - 20.0  # clipped at 0 in the dark half, 0.1 of the range off in the bright half
    scores = challenge_scores(prediction, truth, np.where(mask, 0, truth), mask)
    assert scores["mse"] == pytest.approx(0.005)
    assert scores["mae"] == pytest.approx(0.05)
    assert scores["psnr_01"] == scores["psnr"] == scores["psnr_max"] == pytest.approx(10 * math.log10(200))


def test_the_older_psnr_divides_by_the_largest_true_value() -> None:
    truth = np.full((6, 7, 8), 100.0)
    truth[0, 0] = 200.0
    mask = np.zeros(truth.shape, dtype=bool)
    mask[2:4, 2:5, 2:6] = True
    scores = challenge_scores(truth - 20.0, truth, np.where(mask, 100, truth) - 100, mask)
    assert math.isnan(scores["psnr"])
    assert scores["psnr_eps"] == -math.inf
    assert scores["psnr_max"] == pytest.approx(10 * math.log10(1 / 0.04))


def test_limits_are_percentiles_with_background_and_never_below_zero() -> None:
    voided = np.arange(-10.0, 991.0).reshape(7, 11, 13)
    assert intensity_limits(voided) == (0.0, pytest.approx(985.0))
    assert scale(np.array([-5.0, 492.5, 2000.0]), (0.0, 985.0)).tolist() == [0.0, 0.5, 1.0]


def test_three_dimensional_ssim_equals_scikit_image_away_from_the_volume_border() -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(8)
    truth = scale(smooth_image(rng, (23, 25, 29)), (0.0, 1200.0))
    mask = np.zeros(truth.shape, dtype=bool)
    mask[8:13, 9:15, 10:17] = rng.random((5, 6, 7)) < 0.7
    pasted = np.where(mask, truth + 0.1 * rng.standard_normal(truth.shape), truth)
    _, expected = structural_similarity(
        pasted, truth, data_range=1.0, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    assert ssim_3d(pasted, truth, mask) == pytest.approx(expected[mask].mean(), abs=1e-12)


def test_three_dimensional_ssim_equals_torchmetrics_at_the_volume_border() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    rng = np.random.default_rng(9)
    truth = scale(smooth_image(rng, (14, 15, 16)), (0.0, 1200.0))
    mask = np.zeros(truth.shape, dtype=bool)
    mask[:4, 11:, 3:9] = True
    pasted = np.where(mask, 0.5, truth)
    first, second = (torch.from_numpy(image)[None, None] for image in (pasted, truth))
    _, full = structural_similarity_index_measure(first, second, data_range=1.0, return_full_image=True)
    assert ssim_3d(pasted, truth, mask) == pytest.approx(full[0, 0].numpy()[mask].mean(), abs=1e-6)


def test_the_seam_is_above_one_for_a_step_and_below_one_for_a_fading_fill() -> None:
    rng = np.random.default_rng(4)
    truth = 100 + 10 * rng.standard_normal((12, 13, 14))
    mask = np.zeros(truth.shape, dtype=bool)
    mask[4:8, 4:9, 4:10] = True
    assert seam_score(truth, truth, mask) == 1
    assert seam_score(truth + 40, truth, mask) > 3
    # A constant fill at the level of the surroundings halves the variance of the steps.
    assert seam_score(np.full(truth.shape, 100.0), truth, mask) == pytest.approx(1 / math.sqrt(2), abs=0.08)


def test_the_seam_leaves_out_the_step_to_the_background() -> None:
    truth = np.random.default_rng(6).uniform(100, 110, (12, 13, 14))
    truth[:4] = 0
    mask = np.zeros(truth.shape, dtype=bool)
    mask[4:8, 4:9, 4:10] = True
    prediction = truth + 50
    with_background = seam_score(prediction, truth, mask)
    assert seam_score(prediction, truth, mask, truth != 0) > with_background
    assert math.isnan(seam_score(prediction, truth, mask, np.zeros_like(mask)))


def test_sharpness_is_the_factor_of_contrast_inside_the_mask() -> None:
    truth = smooth_image(np.random.default_rng(2), (12, 13, 14))
    mask = np.zeros(truth.shape, dtype=bool)
    mask[3:8, 3:9, 3:10] = True
    assert sharpness_ratio(7 + 0.25 * truth, truth, mask) == pytest.approx(0.25)
    assert math.isnan(sharpness_ratio(truth, np.ones_like(truth), mask))


def test_own_scores_have_the_documented_columns_and_measure_the_distribution() -> None:
    prediction, truth, voided, mask = random_case(7)
    assert tuple(own_scores(prediction, truth, voided, mask)) == OWN_COLUMNS
    shuffled = truth.copy()
    shuffled[mask] = np.random.default_rng(0).permutation(truth[mask])
    scores = own_scores(shuffled, truth, voided, mask)
    assert scores["histogram_distance"] == pytest.approx(0, abs=1e-12)
    assert scores["gradient_distance"] > 0
    assert scores["sharpness"] > 1


def test_the_bounding_box_is_cut_at_the_volume() -> None:
    mask = np.zeros((5, 9, 20), dtype=bool)
    mask[1, 4:6, 12] = True
    assert bounding_box(mask, (0, 2, 9)) == (slice(1, 2), slice(2, 8), slice(3, 20))


def test_an_empty_mask_is_refused() -> None:
    image = np.ones((3, 4, 5))
    for score in (challenge_scores, own_scores):
        with pytest.raises(InputError, match="0 voxels") as caught:
            score(image, image, image, np.zeros((3, 4, 5), dtype=bool))
        assert (caught.value.code, caught.value.exit_status) == ("MA-01", 65)


def test_a_different_shape_is_refused() -> None:
    image = np.ones((3, 4, 5))
    with pytest.raises(GeometryError, match=r"\(3, 4, 5\).*\(3, 4, 6\)") as caught:
        challenge_scores(image, image, image, np.ones((3, 4, 6), dtype=bool))
    assert (caught.value.code, caught.value.exit_status) == ("MA-09", 65)
