from __future__ import annotations

import importlib.util
import math
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend.errors import GeometryError, InputError
from neuromend.evaluate import (
    SIZE_CLASSES,
    EvaluationError,
    blind_fill,
    paired_differences,
    score_case,
    size_class,
    summarise,
    summary,
)
from neuromend.metrics import CHALLENGE_COLUMNS, OLDER_COLUMNS, OWN_COLUMNS

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture
def healthy() -> np.ndarray:
    return np.random.default_rng(0).uniform(50, 100, (11, 12, 13))


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((11, 12, 13), dtype=bool)
    mask[3:6, 4:8, 4:9] = True
    return mask


def test_a_case_has_the_official_columns_before_ours(healthy: np.ndarray, mask: np.ndarray) -> None:
    scores = score_case(healthy + 3, healthy, mask)
    assert tuple(scores) == CHALLENGE_COLUMNS + OLDER_COLUMNS + OWN_COLUMNS
    assert all(isinstance(value, float) for value in scores.values())


def test_the_limits_of_a_case_come_from_the_voided_truth(healthy: np.ndarray, mask: np.ndarray) -> None:
    bright = healthy.copy()
    bright[mask] = 5000  # the hidden content must not stretch the range
    assert score_case(np.zeros_like(bright), bright, mask)["mse"] == pytest.approx(1)


def test_the_limits_may_come_from_another_voided_image(healthy: np.ndarray, mask: np.ndarray) -> None:
    voided = np.where(mask, 0, healthy)
    voided[8:] = 0  # the challenge's also lacks the tumour
    low, high = np.percentile(voided, [0.5, 99.5])
    scores = score_case(healthy - 5, healthy, mask, voided)
    assert scores != score_case(healthy - 5, healthy, mask)
    clipped = healthy.clip(low, high) - (healthy - 5).clip(low, high)
    assert scores["mse"] == pytest.approx(np.mean((clipped[mask] / (high - low)) ** 2))


# TR-13: whatever is changed in the metrics, these numbers must stay (pair: see the test; no random numbers).
GOLDEN = {
    "ssim": 0.9780503881541681,
    "mse": 0.006115121811804733,
    "rmse": 0.07819924431735087,
    "mae": 0.06312908903001806,
    "msle": 0.002163067412193621,
    "psnr": 19.457092825106614,
    "psnr_eps": 19.457092825106457,
    "psnr_01": 22.135948874964242,
    "psnr_01_eps": 22.13594887496409,
    "psnr_max": 22.135948874964242,
    "psnr_max_eps": 22.13594887496409,
    "ssim_3d": 0.9557333651946553,
    "seam": 1.202481132034928,
    "sharpness": 0.9071685257278334,
    "histogram_distance": 0.05474338560141047,
    "gradient_distance": 0.015745940798564735,
}


def test_the_scores_of_a_fixed_pair_are_frozen() -> None:
    x, y, z = np.meshgrid(*(np.arange(n) for n in (14, 15, 16)), indexing="ij")
    truth = 500 + 200 * np.sin(x / 2.1) + 150 * np.cos(y / 1.7 + z / 3.3) + 90 * np.sin(z * 1.9)
    truth[:2] = 0
    filled = 0.8 * truth + 60 * np.cos(x * y / 5.0 + z) + 70
    mask = (x - 6) ** 2 / 9 + (y - 7) ** 2 / 16 + (z - 9) ** 2 / 25 < 1
    voided = np.where(mask | (x > 11), 0, truth)
    assert score_case(filled, truth, mask, voided) == pytest.approx(GOLDEN, rel=1e-9)


class TestBlindFill:
    """With fills that are functions of the two arrays."""

    @pytest.fixture
    def scan(self, healthy: np.ndarray) -> Any:
        return nib.Nifti1Image(healthy.astype(np.int16), np.diag([3.0, 4, 5, 1]))

    @staticmethod
    def fill(function: Any, scan: Any, hole: Any, samples: int = 0) -> Any:
        values, mask = np.asarray(scan.dataobj), np.asarray(hole.dataobj) != 0
        image = nib.Nifti1Image(np.asarray(function(values, mask), np.float32), scan.affine)
        return SimpleNamespace(image=image, samples=(image,) * samples)

    def test_the_method_never_sees_the_hidden_tissue(self, scan: Any, mask: np.ndarray) -> None:
        seen = []

        def look(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
            seen.append((values, hole))
            return values

        filled = blind_fill(partial(self.fill, look), scan, mask, seed=3)
        ((values, hole),) = seen
        truth = np.asarray(scan.dataobj)
        assert np.array_equal(hole, mask)
        assert np.array_equal(values[~mask], truth[~mask])
        assert (values.dtype, np.corrcoef(values[mask], truth[mask])[0, 1] < 0.4) == (np.int16, True)
        assert truth[~mask].min() <= values[mask].min() <= values[mask].max() <= truth[~mask].max()
        assert filled.seconds > 0

    def test_a_blind_method_is_proven_with_other_noise(self, scan: Any, mask: np.ndarray) -> None:
        seen = []

        def ring(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
            seen.append(values[hole])
            return np.where(hole, values[~hole].mean(), values)

        filled = blind_fill(partial(self.fill, ring, samples=2), scan, mask, prove=True)
        assert len(seen) == 2
        assert seen[0].mean() - seen[1].mean() > 10
        assert len(filled.result.samples) == 2

    @pytest.mark.parametrize("peek", [lambda v, m: v, lambda v, m: np.where(m, v.mean(), v)])
    def test_a_method_that_looks_into_the_hole_is_refused(
        self, scan: Any, mask: np.ndarray, peek: Any
    ) -> None:
        blind_fill(partial(self.fill, peek), scan, mask)
        with pytest.raises(EvaluationError, match=r"\d+ of 60 filled voxels differ; expected 0") as caught:
            blind_fill(partial(self.fill, peek), scan, mask, prove=True)
        assert (caught.value.code, caught.value.exit_status) == ("TR-12", 65)

    def test_one_sample_that_looks_is_enough(self, scan: Any, mask: np.ndarray) -> None:
        def fill(image: Any, hole: Any) -> Any:
            one = self.fill(lambda v, m: np.where(m, 7, v), image, hole)
            one.samples = (
                one.image,
                self.fill(lambda v, m: np.where(m, v.max(where=m, initial=0), v), image, hole).image,
            )
            return one

        with pytest.raises(EvaluationError, match="60 of 60 filled voxels differ"):
            blind_fill(fill, scan, mask, prove=True)

    def test_a_method_that_differs_from_run_to_run_proves_nothing(self, scan: Any, mask: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        noisy = partial(self.fill, lambda v, m: np.where(m, rng.uniform(size=v.shape), v))
        with pytest.raises(
            EvaluationError, match="the same input filled twice differs in 60 of 60"
        ) as caught:
            blind_fill(noisy, scan, mask, prove=True)
        assert caught.value.code == "TR-12"

    def test_a_mask_of_another_grid_or_an_empty_one_is_refused(self, scan: Any, mask: np.ndarray) -> None:
        with pytest.raises(GeometryError):
            blind_fill(partial(self.fill, lambda v, m: v), scan, mask[1:])
        with pytest.raises(InputError):
            blind_fill(partial(self.fill, lambda v, m: v), scan, np.zeros_like(mask))


def test_a_case_is_scored_alike_in_integers_and_in_floats(mask: np.ndarray) -> None:
    truth = np.random.default_rng(1).integers(1, 200, mask.shape).astype(np.uint8)
    filled = truth[::-1]
    assert score_case(filled, truth, mask) == score_case(filled.astype(float), truth.astype(float), mask)


def test_a_fill_with_nan_is_refused_and_located(healthy: np.ndarray, mask: np.ndarray) -> None:
    filled = healthy.copy()
    filled[0, 0, 0] = np.nan  # outside the mask: nobody looks
    score_case(filled, healthy, mask)
    filled[4, 5, 6] = np.nan
    with pytest.raises(
        InputError, match=r"1 filled voxels are not finite, the first at \(4, 5, 6\)"
    ) as caught:
        score_case(filled, healthy, mask)
    assert (caught.value.code, caught.value.exit_status) == ("IN-15", 65)


def test_a_fill_on_another_grid_is_refused(healthy: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(GeometryError, match=r"\(11, 12, 12\).*\(11, 12, 13\)") as caught:
        score_case(healthy[..., 1:], healthy, mask)
    assert (caught.value.code, caught.value.exit_status) == ("MA-09", 65)
    with pytest.raises(GeometryError, match=r"\(10, 12, 13\)"):
        score_case(healthy, healthy[1:], mask)


@pytest.mark.parametrize(
    ("volume_ml", "name"),
    [(0.0, "<1"), (0.99, "<1"), (1.0, "1-5"), (5.0, "5-20"), (59.9, "20-60"), (60.0, ">60")],
)
def test_size_classes_include_their_lower_end(volume_ml: float, name: str) -> None:
    assert size_class(volume_ml) == name


def test_the_mean_lies_inside_its_interval_which_narrows_with_more_cases() -> None:
    values = np.random.default_rng(2).normal(20, 3, 400)
    many, few = summary(values), summary(values[:20])
    assert many.low < many.mean < many.high
    assert many.high - many.low < (few.high - few.low) / 2
    # Four standard errors wide for 95 %, by the normal approximation.
    assert many.high - many.low == pytest.approx(2 * 1.96 * 3 / math.sqrt(400), rel=0.15)
    assert summary(values) == many


def test_scores_that_are_not_finite_are_left_out_and_counted() -> None:
    result = summary([1.0, math.nan, 3.0, math.inf])
    assert (result.n, result.mean, result.median) == (2, 2.0, 2.0)
    empty = summary([math.nan])
    assert empty.n == 0
    assert math.isnan(empty.mean)


def test_a_summary_has_the_groups_in_order_and_only_those_with_cases() -> None:
    rows = [
        {"id": "a", "size_class": "5-20", "site": "cortex", "mse": 3.0},
        {"id": "b", "size_class": "<1", "site": "brainstem", "mse": 1.0},
        {"id": "c", "size_class": "<1", "site": "cortex", "mse": 2.0},
    ]
    groups = summarise(rows, ["mse"])
    assert list(groups) == ["all", "<1 ml", "5-20 ml", "cortex", "brainstem"]
    assert [groups[name]["mse"].mean for name in groups] == [2.0, 1.5, 3.0, 2.5, 1.0]
    nowhere = [{**row, "site": ""} for row in rows]
    assert list(summarise(nowhere, ["mse"])) == ["all", "<1 ml", "5-20 ml"]


def test_paired_differences_match_cases_by_name_not_by_order() -> None:
    ours = [{"id": "a", "psnr": 25.0}, {"id": "b", "psnr": 15.0}, {"id": "only ours", "psnr": 90.0}]
    theirs = [{"id": "b", "psnr": 12.0}, {"id": "a", "psnr": 22.0}]
    difference = paired_differences(ours, theirs, ["psnr"])["psnr"]
    assert (difference.n, difference.mean, difference.low, difference.high) == (2, 3.0, 3.0, 3.0)


@pytest.fixture
def dev_cases(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module benchmarks/dev_cases.py, which is no part of the package."""
    if not (SHARED / "data" / "subjects.tsv").exists():
        pytest.skip("the real scans are not beside the checkout")
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    spec = importlib.util.spec_from_file_location("dev_cases", REPOSITORY / "benchmarks" / "dev_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "dev_cases", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.shared
def test_the_dev_cases_are_fifty_spread_over_sizes_sites_and_shapes(dev_cases: ModuleType) -> None:
    cases = dev_cases.dev_cases(SHARED)
    assert len({case.id for case in cases}) == 50
    assert cases == dev_cases.dev_cases(SHARED)
    for size in SIZE_CLASSES:
        assert sum(case.size_class == size for case in cases) == 10
    for site in dev_cases.SITES:
        assert sum(case.site == site for case in cases) >= 4
    assert {case.shape_kind for case in cases} == {"stroke", "ms", "blob"}
    assert len({case.image for case in cases}) == 20


@pytest.mark.shared
@pytest.mark.parametrize("index", [22, 26, 44])
def test_a_dev_case_is_the_same_hole_every_time_and_as_planned(dev_cases: ModuleType, index: int) -> None:
    case = dev_cases.dev_cases(SHARED)[index]
    healthy, mask, affine = dev_cases.load(case)
    again = dev_cases.load(case)
    assert np.array_equal(mask, again[1])
    assert healthy.dtype == np.float32
    assert (healthy[mask] > 0).all()
    volume = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    assert size_class(volume) == case.size_class
    assert volume == pytest.approx(case.target_ml, rel=0.4)
