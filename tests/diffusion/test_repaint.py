"""RePaint: the walk, the known part, and the conditional distribution it should draw from."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch import Tensor

from neuromend.diffusion import samplers
from neuromend.diffusion.schedule import Schedule

SCHEDULE = Schedule.linear()
SIGMA, CORRELATION = 0.3, 0.8
COVARIANCE = SIGMA**2 * torch.tensor([[1, CORRELATION], [CORRELATION, 1]], dtype=torch.float64)
SECOND_IS_UNKNOWN = torch.tensor([[False, True]])


def denoise_pair(x: Tensor, t: int) -> Tensor:
    """E[x_0 | x_t] of two correlated normal values, x of shape (B, 2)."""
    abar = SCHEDULE.abar[t]
    of_xt = abar * COVARIANCE + (1 - abar) * torch.eye(2)
    return x @ torch.linalg.solve(of_xt, abar.sqrt() * COVARIANCE)


def response(levels: list[int], monkeypatch: pytest.MonkeyPatch, **options: int) -> float:
    """How much the mean of the unknown value moves with the known one; the truth is the correlation."""
    monkeypatch.setattr(samplers, "noise_like", lambda x, generator: torch.zeros_like(x))
    out = samplers.repaint(
        denoise_pair,
        torch.zeros(1, 2, dtype=torch.float64),
        levels,
        schedule=SCHEDULE,
        generator=torch.Generator(),
        known=torch.tensor([[1.0, 77.0]]),
        mask=SECOND_IS_UNKNOWN,
        **options,
    )
    return out[0, 1].item()


def test_resampling_brings_the_unknown_part_into_line_with_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """One walk uses little of what is known (0.47 where the answer is 0.8); many short jumps approach it."""
    levels = SCHEDULE.levels(100)
    gains = [response(levels, monkeypatch, jump_length=1, resamples=r) for r in (1, 3, 10, 30)]
    assert gains == sorted(gains)
    assert gains[0] < 0.6 * CORRELATION
    assert gains[-1] == pytest.approx(CORRELATION, rel=0.12)
    finer = response(SCHEDULE.levels(300), monkeypatch, jump_length=1, resamples=30)
    assert gains[-1] < finer == pytest.approx(CORRELATION, rel=0.05)


def test_unknown_part_keeps_its_own_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact std of the output: items 2k and 2k + 1 of the batch see unit noise at draw k only."""
    draws = count(1)

    def unit_noise(x: Tensor, generator: torch.Generator) -> Tensor:
        eps, k = torch.zeros_like(x), 2 * next(draws)
        eps[k, 0] = eps[k + 1, 1] = 1
        return eps

    monkeypatch.setattr(samplers, "noise_like", unit_noise)
    xt = torch.zeros(2000, 2, dtype=torch.float64)
    xt[0, 0] = xt[1, 1] = 1
    out = samplers.repaint(
        denoise_pair,
        xt,
        SCHEDULE.levels(50),
        schedule=SCHEDULE,
        generator=torch.Generator(),
        known=torch.zeros(2000, 2),
        mask=SECOND_IS_UNKNOWN,
        resamples=5,
    )
    std = out[:, 1].square().sum().sqrt().item()
    assert std == pytest.approx(SIGMA * (1 - CORRELATION**2) ** 0.5, rel=0.02)


def test_known_part_comes_back_bit_for_bit_and_hidden_values_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    xt, known = torch.randn(2, 3, 1, 4, 5, 6, generator=generator)
    mask = torch.rand(3, 1, 4, 5, 6, generator=generator) < 0.3

    def run(hidden: float) -> Tensor:
        return samplers.repaint(
            lambda x, t: torch.tanh(x),
            xt,
            SCHEDULE.levels(7),
            schedule=SCHEDULE,
            generator=torch.Generator().manual_seed(1),
            known=torch.where(mask, hidden, known),
            mask=mask,
            jump_length=2,
            resamples=3,
        )

    filled = run(0.0)
    assert torch.equal(filled[~mask], known[~mask])
    assert not torch.equal(filled[mask], known[mask])
    assert torch.equal(filled, run(float("nan")))


def test_walk_is_the_published_one() -> None:
    """Positions as in the paper's appendix: down by one, back up by the jump length, not below level 1."""
    walk = samplers._walk(list(range(5, -1, -1)), jump_length=2, resamples=3)
    assert walk == [5, 4, 3, 5, 4, 3, 5, 4, 3, 2, 1, 3, 2, 1, 3, 2, 1, 0]
    assert samplers._walk([9, 4, 1, 0], jump_length=10, resamples=10) == [9, 4, 1, 0]
    assert samplers._walk([9, 4, 1, 0], jump_length=1, resamples=1) == [9, 4, 1, 0]


def test_progress_counts_every_network_evaluation() -> None:
    seen: list[tuple[int, int]] = []
    evaluations = count()

    def denoise(x: Tensor, t: int) -> Tensor:
        next(evaluations)
        return x

    samplers.repaint(
        denoise,
        torch.zeros(3, 1, 4, 5, 6),
        SCHEDULE.levels(6),
        schedule=SCHEDULE,
        generator=torch.Generator().manual_seed(0),
        known=torch.zeros(3, 1, 4, 5, 6),
        mask=torch.ones(3, 1, 4, 5, 6, dtype=torch.bool),
        on_step=lambda i, n: seen.append((i, n)),
        jump_length=2,
        resamples=2,
    )
    total = next(evaluations)
    assert seen == [(i, total) for i in range(1, total + 1)]
    assert total > 6


@pytest.mark.parametrize("options", [{"jump_length": 0}, {"resamples": 0}])
def test_jumps_that_go_nowhere_are_refused(options: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="1 or more; found"):
        response(SCHEDULE.levels(5), monkeypatch, **options)
