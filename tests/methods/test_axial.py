"""Slices, runs, stacks and turns; and the published losses and trajectories of the slice-wise methods."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from neuromend.diffusion import samplers
from neuromend.diffusion.process import add_noise
from neuromend.diffusion.variational import variational_bound
from neuromend.methods import axial
from neuromend.methods.pseudo3d import Pseudo3D, Pseudo3DConfig, overlapping_stacks, published_stacks, tent
from neuromend.methods.sequential2d import neighbours, turns_inwards, turns_upwards
from neuromend.methods.slice2d import Slice2D

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
PUBLISHED = ("DDPM_2D_slice_wise", "DDPM_2D_seq_pos", "DDPM_Pseudo3D")


def lesions() -> Tensor:
    """Two scans: z 1-3 and 5-6 of the first (the hole grows upwards), z 0 of the second."""
    mask = torch.zeros(2, 1, 4, 6, 8)
    for size, z in enumerate((1, 2, 3, 5, 6), start=1):
        mask[0, 0, 1, :size, z] = 1
    mask[1, 0, 2, 2, 0] = 1
    return mask


def test_slices_come_back_to_where_they_were_cut() -> None:
    volume = torch.randn(2, 1, 4, 6, 8)
    item, z = torch.tensor([1, 0]), torch.tensor([5, 7])
    slices = axial.cut(volume, item, z)
    assert slices.shape == (2, 1, 4, 6)
    assert slices[0, 0, 0, 1] == volume[1, 0, 3, 4, 5], "the axes run to the left and to the back"
    other = torch.zeros_like(volume)
    axial.put(other, slices, item, z)
    assert torch.equal(other[1, ..., 5], volume[1, ..., 5])
    assert (other != 0).any(3).any(2).sum() == 2


def test_separate_lesions_and_scans_are_separate_runs() -> None:
    item, z = axial.masked_slices(lesions())
    assert item.tolist() == [0, 0, 0, 0, 0, 1]
    assert z.tolist() == [1, 2, 3, 5, 6, 0]
    assert axial.runs(item, z) == [range(3), range(3, 5), range(5, 6)]
    nothing = torch.empty(0, dtype=torch.long)
    assert axial.runs(nothing, nothing) == []


def test_stacks_overlap_by_half_and_never_hold_two_lesions() -> None:
    assert overlapping_stacks([range(5), range(5, 21)]) == [range(5), range(5, 21)]
    assert overlapping_stacks([range(3, 23)]) == [range(3, 19), range(7, 23)]
    assert overlapping_stacks([range(40)]) == [range(a, a + 16) for a in (0, 8, 16, 24)]


def test_published_stacks_ignore_gaps_but_not_scans() -> None:
    item = torch.tensor([0] * 18 + [1] * 2)
    assert published_stacks(item) == [range(16), range(16, 18), range(18, 20)]


def test_weights_of_a_stack_fall_towards_its_ends_and_are_positive() -> None:
    assert tent(4).flatten().tolist() == pytest.approx([0.4, 0.8, 0.8, 0.4])
    assert tent(1).flatten().tolist() == [1]


def test_slices_are_filled_upwards_as_published() -> None:
    assert turns_upwards(lesions()) == [
        [(0, 1, 0), (1, 0, -1)],
        [(0, 2, 1)],
        [(0, 3, 2)],
        [(0, 5, 4)],
        [(0, 6, 5)],
    ]


def test_slices_are_filled_from_the_ends_of_each_lesion_with_most_context_first() -> None:
    mask = lesions()
    mask[0, 0, 3, :, 1] = 1  # the lowest slice of the first lesion has the largest hole now
    assert turns_inwards(mask) == [[(0, 3, 4), (0, 5, 4), (1, 0, -1)], [(0, 2, 3), (0, 6, 5)], [(0, 1, 0)]]


def test_an_empty_mask_has_no_turns() -> None:
    assert turns_inwards(torch.zeros(1, 1, 2, 4, 6)) == turns_upwards(torch.zeros(1, 1, 2, 4, 6)) == []


def test_beyond_the_ends_of_the_volume_there_is_air() -> None:
    volume = torch.ones(1, 1, 4, 6, 8)
    beside = neighbours(volume, torch.zeros(3, dtype=torch.long), torch.tensor([-1, 3, 8]))
    assert beside.amax((1, 2, 3)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp", "ddpm", "published"])
@pytest.mark.parametrize("cls", [Slice2D, Pseudo3D])
def test_every_sampler_fills_the_mask_and_nothing_else(cls: type, sampler: str) -> None:
    torch.manual_seed(0)
    config = cls.Config(64, (1, 1), 1, (2,), sampler)
    method = cls(config).eval()
    assert method.default_steps == (1000 if sampler == "published" else 25)
    voided, mask = torch.rand(2, 1, 4, 6, 8), lesions()
    told: list[tuple[int, int]] = []
    generator = torch.Generator().manual_seed(1)
    filled = method.sample(
        voided, mask, steps=4, generator=generator, on_step=lambda i, n: told.append((i, n))
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.equal(filled[mask == 0], voided[mask == 0])
    assert torch.isfinite(filled).all()
    assert (filled != voided)[mask == 1].any()


def test_long_lesions_have_no_seam_between_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that answers by the place in its stack shows every border of stacks, unless they are blended."""
    method = Pseudo3D(Pseudo3DConfig(64, (1, 1), 1, (2,))).eval()

    def by_place(x: Tensor, timesteps: Tensor) -> Tensor:
        place = torch.linspace(-1, 1, len(x))[:, None, None, None]
        return place.expand(-1, 2, *x.shape[2:])

    monkeypatch.setattr(method.network, "forward", by_place)
    seen: list[Tensor] = []
    original = axial.clean
    monkeypatch.setattr(
        axial, "clean", lambda p, x, t: (seen.append(p(x, t)[:, 0, 0, 0]), original(p, x, t))[1]
    )
    mask = torch.zeros(1, 1, 2, 2, 40)
    mask[:, :, 0, 0] = 1
    method.sample(mask * 0, mask, steps=1, generator=torch.Generator())
    assert seen[0].diff().abs().max() < 0.3, "stacks of 16 without overlap would jump by 2"


def test_only_noise_levels_from_one_to_a_thousand_are_trained() -> None:
    levels = axial.random_levels(4000, torch.Generator().manual_seed(0))
    assert (levels.min() >= 1) & (levels.max() <= 1000)
    assert levels.float().mean().item() == pytest.approx(500, abs=20)


def fixture(name: str) -> dict[str, Tensor]:
    path = PARITY / name / "diffusion.npz"
    if not path.exists():
        pytest.skip("the parity fixtures are not beside this checkout")
    with np.load(path) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def closed_form(x: Tensor, index: int, name: str, number: float) -> Tensor:
    """The network of the recorded trajectories."""
    previous = -0.15 * x[:, 2:3] + 0.05 * number / 100 if name == "DDPM_2D_seq_pos" else 0
    eps = 0.6 * x[:, -1:] - 0.3 * x[:, :1] + 0.2 * x[:, 1:2] + 0.1 * index / 1000 + previous
    return torch.cat([eps, torch.sin(3 * x[:, -1:])], dim=1)


@pytest.mark.shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_loss_is_the_published_one_with_and_without_its_aliasing(name: str) -> None:
    published = fixture(name)
    x0, output, levels = (
        published["loss_x_start"][:, -1:],
        published["loss_model_output"],
        published["loss_t"] + 1,
    )
    xt = add_noise(x0, published["loss_noise"], axial.SCHEDULE.abar[levels])
    bound = variational_bound(output, x0, xt, levels, axial.SCHEDULE)
    torch.testing.assert_close(bound, published["loss_float64_vb"].float(), rtol=1e-5, atol=0)
    aliased = variational_bound(output, xt, xt, levels, axial.SCHEDULE)
    torch.testing.assert_close(aliased, published["loss_float32_vb"], rtol=1e-5, atol=0)


@pytest.mark.shared
@pytest.mark.parametrize("steps", [10, 1000])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_walk_ends_where_the_published_one_ended(
    name: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = fixture(name)
    condition, noise = published["traj_condition"], published["traj_initial_noise"]
    draws: Iterable[Tensor] = iter(published["traj_step_noise"])
    final = published["traj_samples"][-1]
    if steps == 1000:
        condition = published["full_network_input_call0"][:, :-1]
        noise, *rest = published["full_step_noise"][:, None, None]
        draws, final = iter(rest), published["full_final"]
    monkeypatch.setattr(samplers, "noise_like", lambda x, generator: next(draws))
    number = float(published.get("traj_slice_number", torch.tensor(0)))

    def predict(xt: Tensor, level: int) -> Tensor:
        return closed_form(torch.cat([condition, xt], dim=1), level - 1, name, number)

    levels = axial.SCHEDULE.levels(steps, "linspace")
    x = axial.published_walk(predict, noise, levels, generator=torch.Generator())
    assert (x - final).norm() / final.norm() < 1e-5
