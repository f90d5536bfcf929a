"""The one contract: what every method in METHODS promises to the story around it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuromend.checkpoint import load_into, load_weights, save_model
from neuromend.manifest import TrainedRange
from neuromend.methods import METHODS

TRUE_BRIGHTNESS = 0.8
EXPECTED_LEAK = 0.002
"""Normalised intensity by which the seed may change a fill that is meant to be the expected one.

The first state is noise, and a trace of it (sqrt(abar) of the highest level) reaches the network. Largest
difference in a voxel, fastwavelet3d: 0.0002 at ``tiny``, untrained, float32; 0.0017 at ``default`` after
1500 training steps, bfloat16, where two samples of 4 steps differ by up to 0.11.
"""


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Any:
    """The class of one method."""
    return METHODS[request.param]


@pytest.fixture
def live_tensors() -> Any:
    """The class of benchmarks/live_tensors.py, which is no part of the package: it counts what tensors take."""
    place = Path(__file__).resolve().parents[2] / "benchmarks" / "live_tensors.py"
    spec = importlib.util.spec_from_file_location("live_tensors", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LiveTensors


@pytest.fixture
def tiny(method: Any) -> Any:
    """One method at its smallest size, untrained, every parameter off its start: nothing is zero by chance."""
    torch.manual_seed(4)
    module = method(method.PRESETS["tiny"]).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module


def phantom(multiple: int, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """(healthy, voided, mask), each (batch, 1, 2m, 3m, 4m): textured ellipsoids with a hole off the middle."""
    sides = (2 * multiple, 3 * multiple, 4 * multiple)
    axes = [torch.linspace(-1, 1, n) for n in sides]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    healthy, mask = [], []
    for number in range(batch):
        texture = 1 + 0.3 * torch.sin(9 * y + number) * torch.cos(7 * z - 5 * x)
        healthy.append(TRUE_BRIGHTNESS * texture * (x**2 + y**2 + z**2 < 0.9))
        centre = (0.35, -0.1 + 0.2 * number, 0.15)
        distance = sum((a - c) ** 2 for a, c in zip((x, y, z), centre, strict=True))
        mask.append(distance < 0.12)
    truth, hole = torch.stack(healthy)[:, None].float(), torch.stack(mask)[:, None].float()
    return truth, truth * (1 - hole), hole


def noise(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def losses(module: Any, case: tuple[Tensor, Tensor, Tensor], count: int = 4) -> float:
    """The mean loss over a few fixed draws of noise and noise level."""
    with torch.no_grad():
        return sum(float(module.loss(*case, noise(100 + k))) for k in range(count)) / count


def test_a_method_has_a_frozen_config_and_its_presets(method: Any) -> None:
    assert "tiny" in method.PRESETS
    for config in method.PRESETS.values():
        assert isinstance(config, method.Config)
        json.dumps(asdict(config), allow_nan=False)
        name = fields(config)[0].name
        with pytest.raises(FrozenInstanceError):
            setattr(config, name, None)
    assert method.default_steps >= 1
    assert method.expected_steps is None or method.expected_steps >= 1


def test_a_method_takes_no_more_steps_than_it_says(tiny: Any) -> None:
    if tiny.most_steps is None:
        return
    assert tiny.most_steps >= tiny.default_steps
    _, voided, mask = phantom(tiny.multiple)
    with pytest.raises(ValueError, match=f"steps must be between 1 and {tiny.most_steps}"):
        tiny.sample(voided, mask, steps=tiny.most_steps + 1, generator=noise(0))


def test_a_window_fits_the_network(tiny: Any) -> None:
    assert tiny.window is None or all(side % tiny.multiple == 0 for side in tiny.window)


def test_the_memory_of_a_sample_is_told_of_every_preset_and_grows_with_the_volume(method: Any) -> None:
    for config in method.PRESETS.values():
        with torch.device("meta"):
            module = method(config)
        little, much = module.memory_bytes((64, 64, 128)), module.memory_bytes((64, 128, 128))
        assert isinstance(little, int)
        assert 4 * 64 * 64 * 128 < little < much


def test_a_sample_takes_no_more_memory_than_foreseen(tiny: Any, live_tensors: Callable[[], Any]) -> None:
    sides = tuple(-(-side // tiny.multiple) * tiny.multiple for side in (32, 24, 40))
    voided, mask = torch.rand(1, 1, *sides), torch.zeros(1, 1, *sides)
    mask[:, :, 8:20, 6:18, 4:36] = 1
    with live_tensors() as live:
        tiny.sample(voided, mask, steps=3, generator=noise())
    assert 4 * voided.numel() < live.peak < tiny.memory_bytes(sides)


def test_the_loss_is_a_finite_number_with_a_gradient_for_every_parameter(tiny: Any) -> None:
    value = tiny.loss(*phantom(tiny.multiple), noise())
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    for name, parameter in tiny.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("steps", [1, 3])
def test_a_sample_has_the_shape_and_kind_of_its_input_and_is_finite(tiny: Any, steps: int) -> None:
    _, voided, mask = phantom(tiny.multiple, batch=2)
    filled = tiny.sample(voided, mask, steps=steps, generator=noise())
    assert filled.shape == voided.shape
    assert filled.dtype == voided.dtype
    assert filled.device == voided.device
    assert torch.isfinite(filled).all()


def test_a_sample_in_autocast_is_still_float32(tiny: Any) -> None:
    _, voided, mask = phantom(tiny.multiple)
    with torch.autocast("cpu", torch.bfloat16):
        filled = tiny.sample(voided, mask, steps=2, generator=noise())
    assert filled.dtype == torch.float32
    assert torch.isfinite(filled).all()


@pytest.mark.parametrize("steps", [1, 3])
def test_voxels_outside_the_mask_come_back_unchanged(tiny: Any, steps: int) -> None:
    _, voided, mask = phantom(tiny.multiple)
    filled = tiny.sample(voided, mask, steps=steps, generator=noise())
    assert torch.equal(filled[mask == 0], voided[mask == 0])
    assert not torch.equal(filled[mask == 1], voided[mask == 1])


def test_inputs_are_left_alone(tiny: Any) -> None:
    case = phantom(tiny.multiple)
    before = [tensor.clone() for tensor in case]
    tiny.loss(*case, noise())
    tiny.sample(case[1], case[2], steps=2, generator=noise())
    for tensor, copy in zip(case, before, strict=True):
        assert torch.equal(tensor, copy)


def test_the_same_seed_gives_the_same_sample_and_another_seed_another(tiny: Any) -> None:
    _, voided, mask = phantom(tiny.multiple)
    first, again, other = (tiny.sample(voided, mask, steps=3, generator=noise(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_expected_fill_hardly_depends_on_the_seed(tiny: Any) -> None:
    if tiny.expected_steps is None:
        pytest.skip("this method has no expected fill")
    _, voided, mask = phantom(tiny.multiple)
    fills = [tiny.sample(voided, mask, steps=tiny.expected_steps, generator=noise(s)) for s in (5, 6)]
    assert (fills[0] - fills[1]).abs().max() < EXPECTED_LEAK


def test_progress_is_told_after_every_step(tiny: Any) -> None:
    _, voided, mask = phantom(tiny.multiple)
    told: list[tuple[int, int]] = []
    tiny.sample(voided, mask, steps=3, generator=noise(), on_step=lambda i, n: told.append((i, n)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def same_noise_in_every_item(
    draw: Callable[..., Tensor], shape_of: Callable[..., tuple[int, ...]]
) -> Callable[..., Tensor]:
    """A random function that draws for one item and repeats it, so a batch sees what a single item sees."""

    def repeated(*args: Any, **kwargs: Any) -> Tensor:
        shape = shape_of(*args)
        return draw((1, *shape[1:]), **kwargs).repeat(shape[0], *[1] * (len(shape) - 1))

    return repeated


def test_a_batch_of_two_is_two_of_one(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shape_of = lambda *args: tuple(args[0]) if isinstance(args[0], (tuple, torch.Size)) else args  # noqa: E731
    monkeypatch.setattr(torch, "randn", same_noise_in_every_item(torch.randn, shape_of))
    _, voided, mask = phantom(tiny.multiple, batch=2)
    both = tiny.sample(voided, mask, steps=3, generator=noise())
    for k in range(2):
        alone = tiny.sample(voided[k : k + 1], mask[k : k + 1], steps=3, generator=noise())
        torch.testing.assert_close(both[k : k + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_saved_and_loaded_gives_the_same_sample(
    tiny: Any, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Weights stored in bfloat16 are rounded once; from then on every bit stays."""
    name = next(key for key, cls in METHODS.items() if isinstance(tiny, cls))
    rounded = {key: value.to(dtype).float() for key, value in tiny.state_dict().items()}
    tiny.load_state_dict(rounded)
    manifest = save_model(
        tmp_path / "model",
        rounded,
        name=name,
        description="untrained",
        method=name,
        config=asdict(tiny.config),
        trained_range=TrainedRange(modalities=("T1w",), spacing_mm=(1.0, 2.0), coverage=("skull-stripped",)),
        licence="CC0-1.0",
        licence_text="CC0-1.0",
        card="# untrained",
        training={},
        ema=False,
        dtype=dtype,
    )
    loaded = type(tiny)(tiny.config).eval()
    load_into(loaded, load_weights(tmp_path / "model", manifest))
    _, voided, mask = phantom(tiny.multiple)
    fills = [m.sample(voided, mask, steps=3, generator=noise()) for m in (tiny, loaded)]
    assert torch.equal(*fills)


def test_a_tiny_case_can_be_learnt_by_heart(method: Any) -> None:
    torch.manual_seed(4)
    module = method(method.PRESETS["tiny"])
    case = phantom(module.multiple)
    before = losses(module, case)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for step in range(12):
        optimiser.zero_grad()
        module.loss(*case, noise(step)).backward()
        optimiser.step()
    assert losses(module, case) < 0.5 * before


@pytest.mark.parametrize("content", [float("nan"), 1e6, -3.0])
def test_what_the_lesion_looked_like_has_no_influence(tiny: Any, content: float) -> None:
    healthy, voided, mask = phantom(tiny.multiple)
    lesion = torch.where(mask > 0, torch.full_like(voided, content), voided)
    clean, dirty = (tiny.sample(v, mask, steps=2, generator=noise()) for v in (voided, lesion))
    assert torch.equal(clean, dirty)
    assert torch.equal(tiny.loss(healthy, voided, mask, noise()), tiny.loss(healthy, lesion, mask, noise()))


def test_the_loss_does_not_look_at_healthy_tissue_outside_the_mask(tiny: Any) -> None:
    healthy, voided, mask = phantom(tiny.multiple)
    elsewhere = torch.where(mask > 0, healthy, torch.full_like(healthy, 7.0))
    assert torch.equal(tiny.loss(healthy, voided, mask, noise()), tiny.loss(elsewhere, voided, mask, noise()))


def test_sides_that_do_not_fit_are_refused_by_name(tiny: Any) -> None:
    m = tiny.multiple
    healthy, voided, mask = phantom(m)
    for short in (1, m // 2):
        cut = [tensor[..., :-short] for tensor in (healthy, voided, mask)]
        for act in (
            lambda cut=cut: tiny.sample(cut[1], cut[2], steps=1, generator=noise()),
            lambda cut=cut: tiny.loss(*cut, noise()),
        ):
            with pytest.raises(ValueError, match=rf"divisible by {m}; found .*{4 * m - short}"):
                act()


def test_volumes_that_do_not_match_are_refused_by_name(tiny: Any) -> None:
    healthy, voided, mask = phantom(tiny.multiple)
    with pytest.raises(ValueError, match="the mask has shape"):
        tiny.sample(voided, mask[..., :-8], steps=1, generator=noise())
    with pytest.raises(ValueError, match="found shape"):
        tiny.sample(voided[0], mask[0], steps=1, generator=noise())
    with pytest.raises(ValueError, match="the healthy image has shape"):
        tiny.loss(healthy[..., :-8], voided, mask, noise())


def test_an_empty_mask_gives_the_input_back_and_no_loss(tiny: Any) -> None:
    healthy, _, mask = phantom(tiny.multiple)
    nothing = torch.zeros_like(mask)
    assert torch.equal(tiny.sample(healthy, nothing, steps=2, generator=noise()), healthy)
    assert tiny.loss(healthy, healthy, nothing, noise()).item() == 0.0


def test_a_step_count_below_one_is_refused(tiny: Any) -> None:
    _, voided, mask = phantom(tiny.multiple)
    with pytest.raises(ValueError, match="steps must be 1 or more; found 0"):
        tiny.sample(voided, mask, steps=0, generator=noise())
