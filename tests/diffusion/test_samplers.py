"""What every sampler keeps to: levels, seeds, precision, batches, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from neuromend.diffusion import samplers
from neuromend.diffusion.schedule import Schedule

SHAPE = (3, 1, 4, 5, 6)
SCHEDULE = Schedule.linear()
LEVELS = SCHEDULE.levels(7)
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "ddpm fixed_small": samplers.ddpm,
    "ddpm fixed_large": partial(samplers.ddpm, variance="fixed_large"),
    "ddpm learned_range": samplers.ddpm,
    "ddim 0": samplers.ddim,
    "ddim 1": partial(samplers.ddim, eta=1.0),
    "dpmpp_2m": samplers.dpmpp_2m,
    "repaint": partial(samplers.repaint, jump_length=2, resamples=2),
}
STOCHASTIC = [name for name in SAMPLERS if name not in ("ddim 0", "dpmpp_2m")]


def normal(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run(name: str, xt: Tensor, seed: int = 1, dtype: torch.dtype | None = None, **options: object) -> Tensor:
    """One of SAMPLERS with a small nonlinear network that answers in ``dtype``."""

    def denoise(x: Tensor, t: int) -> Tensor | tuple[Tensor, Tensor]:
        x0 = torch.tanh(x * (0.3 + t / 1000)).to(dtype or x.dtype)
        return (x0, torch.sin(3 * x0)) if name == "ddpm learned_range" else x0

    if name == "repaint":
        options = {"known": torch.zeros_like(xt), "mask": torch.ones_like(xt, dtype=torch.bool), **options}
    arguments = {"schedule": SCHEDULE, "generator": torch.Generator().manual_seed(seed), **options}
    return SAMPLERS[name](denoise, xt, arguments.pop("levels", LEVELS), **arguments)


@pytest.mark.parametrize("name", SAMPLERS)
def test_same_seed_gives_the_same_bits_and_input_is_untouched(name: str) -> None:
    xt = normal(0)
    before = xt.clone()
    first = run(name, xt)
    assert first.shape == SHAPE
    assert torch.equal(first, run(name, xt))
    assert torch.equal(xt, before)


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_stochastic_samplers_depend_on_the_seed(name: str) -> None:
    xt = normal(0)
    assert torch.equal(run(name, xt, seed=1), run(name, xt, seed=2)) == (name not in STOCHASTIC)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_equals_its_items_alone_given_the_same_noise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise_of(items: slice) -> Callable[..., Tensor]:
        seeds: Iterator[int] = iter(range(10, 1000))
        return lambda x, generator: normal(next(seeds))[items]

    xt = normal(0)
    monkeypatch.setattr(samplers, "noise_like", noise_of(slice(None)))
    together = run(name, xt)
    for k in range(len(xt)):
        monkeypatch.setattr(samplers, "noise_like", noise_of(slice(k, k + 1)))
        torch.testing.assert_close(run(name, xt[k : k + 1]), together[k : k + 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_state_keeps_its_precision_whatever_the_network_returns(name: str) -> None:
    assert run(name, normal(0), dtype=torch.bfloat16).dtype == torch.float32
    assert run(name, normal(0, torch.float64), dtype=torch.bfloat16).dtype == torch.float64
    assert run(name, normal(0).bfloat16()).dtype == torch.float32
    half = run(name, normal(0), dtype=torch.bfloat16)
    torch.testing.assert_close(half, run(name, normal(0)), atol=0.15, rtol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_cpu_generator_serves_any_device_and_nothing_waits_for_it(name: str) -> None:
    """Meta tensors have no values: reading one, as a synchronisation would, raises."""
    out = run(name, normal(0).to("meta"))
    assert out.device.type == "meta"
    assert out.shape == SHAPE


@pytest.mark.parametrize("name", SAMPLERS)
def test_last_step_returns_the_prediction_without_noise(name: str) -> None:
    xt = normal(0)
    out = run(name, xt, levels=[1000, 0])
    torch.testing.assert_close(out, torch.tanh(xt * 1.3))


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "repaint"])
def test_network_sees_the_levels_given_and_progress_counts_them(name: str) -> None:
    seen: list[int] = []
    progress: list[tuple[int, int]] = []
    levels = [990, 700, 13, 12, 5, 0]

    def denoise(x: Tensor, t: int) -> Tensor:
        seen.append(t)
        return x

    SAMPLERS[name](
        denoise,
        normal(0),
        levels,
        schedule=SCHEDULE,
        generator=torch.Generator(),
        on_step=lambda i, n: progress.append((i, n)),
    )
    assert seen == levels[:-1]
    assert progress == [(i, 5) for i in range(1, 6)]


def test_ddim_with_full_eta_is_ancestral_sampling() -> None:
    xt = normal(0, torch.float64)
    torch.testing.assert_close(run("ddim 1", xt), run("ddpm fixed_small", xt))


@pytest.mark.parametrize("v", [-1.0, 1.0])
def test_learned_range_at_its_ends_is_a_fixed_variance(v: float) -> None:
    xt = normal(0, torch.float64)

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        return torch.tanh(x * (0.3 + t / 1000)), torch.full_like(x, v)

    out = samplers.ddpm(denoise, xt, LEVELS, schedule=SCHEDULE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(out, run("ddpm fixed_small" if v < 0 else "ddpm fixed_large", xt))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "levels", [[], [0], [500], [500, 10], [10, 500, 0], [500, 500, 0], [1001, 0]], ids=str
)
def test_levels_that_do_not_fall_to_zero_are_refused(name: str, levels: list[int]) -> None:
    with pytest.raises(ValueError, match="fall strictly from at most 1000 to 0; found"):
        run(name, normal(0), levels=levels)


def test_unknown_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="found 'huge'"):
        run("ddpm fixed_small", normal(0), variance="huge")


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_outside_its_range_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match=f"found {eta}"):
        run("ddim 0", normal(0), eta=eta)
