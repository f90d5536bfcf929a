"""Noise, its conversions and the posterior, checked against each other and against Bayes' rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuromend.diffusion import process
from neuromend.diffusion.schedule import Schedule

SCHEDULE = Schedule.cosine(100)
SHAPE = (3, 1, 4, 5, 6)
LEVELS = torch.tensor([1, 40, 99])


def pair(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(SHAPE, generator=generator, dtype=dtype)
    return x0, process.noise_like(x0, generator)


@pytest.mark.parametrize("level", [LEVELS, 40])
def test_every_prediction_type_leads_back_to_the_same_clean_data(level: Tensor | int) -> None:
    x0, eps = pair()
    abar = SCHEDULE.abar[level]
    xt = process.add_noise(x0, eps, abar)
    v = process.v_from_x0(xt, x0, abar)
    torch.testing.assert_close(process.x0_from_eps(xt, eps, abar), x0)
    torch.testing.assert_close(process.x0_from_v(xt, v, abar), x0)
    torch.testing.assert_close(process.eps_from_x0(xt, x0, abar), eps)
    torch.testing.assert_close(process.eps_from_v(xt, v, abar), eps)


def test_velocity_is_its_definition() -> None:
    x0, eps = pair()
    abar = 0.36
    xt = process.add_noise(x0, eps, abar)
    torch.testing.assert_close(xt, 0.6 * x0 + 0.8 * eps)
    torch.testing.assert_close(process.v_from_x0(xt, x0, abar), 0.6 * eps - 0.8 * x0)


def test_one_level_an_item_equals_item_by_item() -> None:
    x0, eps = pair()
    together = process.add_noise(x0, eps, SCHEDULE.abar[LEVELS])
    for k, t in enumerate(LEVELS.tolist()):
        alone = process.add_noise(x0[k : k + 1], eps[k : k + 1], SCHEDULE.abar[t])
        torch.testing.assert_close(together[k : k + 1], alone)


def test_noise_in_two_stages_is_the_noise_of_one() -> None:
    x0, eps = pair()
    more = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    xt = process.add_more_noise(process.add_noise(x0, eps, 0.8), more, 0.8, 0.2)
    # what is left of the first noise, 0.25 * 0.2, and the second, 0.75, make 1 - 0.2 together
    torch.testing.assert_close(xt, 0.2**0.5 * x0 + 0.05**0.5 * eps + 0.75**0.5 * more)


@pytest.mark.parametrize(("s", "t"), [(0, 1), (0, 60), (1, 2), (20, 21), (20, 80), (98, 100)])
def test_posterior_between_any_two_levels_is_bayes_rule(s: int, t: int) -> None:
    """Written as a product of two Gaussians: p(x_s | x_0) and p(x_t | x_s), seen as functions of x_s."""
    x0, eps = pair()
    abar_s, abar_t = SCHEDULE.abar[s].item(), SCHEDULE.abar[t].item()
    xt = process.add_noise(x0, eps, abar_t)
    mean = process.posterior_mean(x0, xt, abar_s, abar_t)
    if s == 0:
        assert torch.equal(mean, x0)
        assert process.small_variance(abar_s, abar_t) == 0
        return
    kept = abar_t / abar_s
    precision = 1 / (1 - abar_s) + kept / (1 - kept)
    torch.testing.assert_close(
        mean, (abar_s**0.5 * x0 / (1 - abar_s) + kept**0.5 * xt / (1 - kept)) / precision
    )
    assert process.small_variance(abar_s, abar_t) == pytest.approx(1 / precision)
    assert process.large_variance(abar_s, abar_t) == pytest.approx(1 - kept)


def test_learned_range_goes_from_the_small_to_the_large_variance() -> None:
    v = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).reshape(3, 1, 1)
    found = process.learned_range_variance(v, 0.01, 0.04)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.01, 0.02, 0.04], dtype=torch.float64))


def test_learned_range_takes_one_level_an_item() -> None:
    v, _ = pair()
    small, large = torch.tensor([0.01, 0.02, 0.03]), torch.tensor([0.04, 0.05, 0.06])
    together = process.learned_range_variance(v, small.double(), large.double())
    for k in range(3):
        alone = process.learned_range_variance(v[k], small[k].item(), large[k].item())
        torch.testing.assert_close(together[k], alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("level", [LEVELS, 40])
def test_state_stays_in_single_precision_when_the_network_speaks_half(level: Tensor | int) -> None:
    x0, eps = pair(torch.float32)
    abar = SCHEDULE.abar[level]
    xt = process.add_noise(x0, eps, abar)
    assert xt.dtype == torch.float32
    assert process.x0_from_eps(xt, eps.bfloat16(), abar).dtype == torch.float32
    assert process.eps_from_x0(xt, x0.bfloat16(), abar).dtype == torch.float32
    assert process.posterior_mean(x0.bfloat16(), xt, abar**0.5, abar).dtype == torch.float32


def test_noise_is_standard_normal_and_belongs_to_its_generator() -> None:
    x = torch.empty(3, 1, 40, 50, 60)
    noise = process.noise_like(x, torch.Generator().manual_seed(7))
    assert noise.shape == x.shape
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(noise, process.noise_like(x, torch.Generator().manual_seed(7)))
    assert not torch.equal(noise, process.noise_like(x, torch.Generator().manual_seed(8)))


def test_noise_is_drawn_on_the_generators_device_and_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the same seed gives the same noise on every machine; a meta tensor stands for one on a GPU."""
    draw, devices = torch.randn, []

    def watched_draw(*args: object, **options: object) -> Tensor:
        devices.append(options["device"])
        return draw(*args, **options)

    monkeypatch.setattr(process.torch, "randn", watched_draw)
    noise = process.noise_like(torch.empty(3, 1, 4, device="meta"), torch.Generator("cpu"))
    assert devices == [torch.device("cpu")]
    assert noise.device.type == "meta"
