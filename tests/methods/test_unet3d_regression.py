"""unet3d: mirrored passes, the loss and its similarity term."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity

from neuromend.methods.unet3d import MIRRORS, RegressionUNet3D, ssim_map


def case() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    voided, mask = torch.rand(1, 1, 8, 10, 12), torch.zeros(1, 1, 8, 10, 12)
    mask[..., 2:5, 3:7, 4:9] = 1
    return voided * (1 - mask), mask


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_one_pass_is_the_expected_fill_whatever_the_seed() -> None:
    module = RegressionUNet3D(RegressionUNet3D.PRESETS["tiny"])
    fills = [module.sample(*case(), steps=1, generator=seeded(s)) for s in (1, 2)]
    assert torch.equal(*fills)


def test_eight_passes_use_every_mirror_image_once() -> None:
    module = RegressionUNet3D(RegressionUNet3D.PRESETS["tiny"])
    voided, mask = case()
    with torch.inference_mode():
        passes = [module.predict(voided, mask > 0, mirror) for mirror in MIRRORS]
    expected = torch.where(mask > 0, torch.stack(passes).mean(0), voided)
    torch.testing.assert_close(module.sample(voided, mask, steps=8, generator=seeded(1)), expected)


def test_the_mirrors_are_all_different_and_the_first_is_none() -> None:
    assert MIRRORS[0] == []
    assert len({tuple(mirror) for mirror in MIRRORS}) == 8


def test_the_similarity_is_that_of_scikit_image() -> None:
    torch.manual_seed(3)
    a, b = torch.rand(2, 1, 1, 12, 14, 16)
    _, expected = structural_similarity(
        a[0, 0].numpy(), b[0, 0].numpy(), data_range=1.0, full=True, use_sample_covariance=False
    )
    inner = (slice(3, -3),) * 3
    found = ssim_map(a, b)[0, 0][inner]
    torch.testing.assert_close(found, torch.from_numpy(expected)[inner], rtol=1e-4, atol=1e-4)


def test_a_perfect_prediction_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module = RegressionUNet3D(RegressionUNet3D.PRESETS["tiny"])
    voided, mask = case()
    healthy = voided + 0.4 * mask
    monkeypatch.setattr(module, "predict", lambda known, hole, mirror: healthy)
    assert abs(module.loss(healthy, voided, mask, seeded(1)).item()) < 1e-6
