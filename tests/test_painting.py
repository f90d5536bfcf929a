"""The painter: seeds, padding, and what it does when memory runs out or a network gives NaN (RT-11, RT-15)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import neuromend
from neuromend import painting
from neuromend.errors import DeviceError, ModelFaultError, UsageError
from neuromend.models import ModelEntry, resolve_model
from neuromend.painting import Painter

from .filling_cases import ball, contents, head, image, save_network, save_pair, stored

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
"""A device that holds no data stands for a GPU: tensors can be sent there, and nothing comes back."""


class FakeMethod:
    """Adds noise in the hole; ``faults`` happen first, one a call."""

    expected_steps, default_steps, most_steps, multiple, window = 1, 4, 8, 1, None

    def __init__(self, *faults: Callable[[torch.Tensor], torch.Tensor], multiple: int = 1) -> None:
        self.faults = list(faults)
        self.multiple = multiple
        self.seen: list[dict[str, Any]] = []

    def to(self, device: torch.device) -> FakeMethod:
        return self

    def sample(
        self,
        voided: torch.Tensor,
        mask: torch.Tensor,
        *,
        steps: int,
        generator: torch.Generator,
        on_step: Any,
    ) -> torch.Tensor:
        noise = torch.randn(voided.shape, generator=generator)
        self.seen.append(
            {
                "device": voided.device.type,
                "bf16": torch.is_autocast_enabled("cpu"),
                "noise": noise,
                "steps": steps,
                "shape": tuple(voided.shape),
                "mask": mask,
            }
        )
        if self.faults:
            return self.faults.pop(0)(voided)
        return voided + mask * noise


def out_of_memory(_: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def not_finite(voided: torch.Tensor) -> torch.Tensor:
    return voided * torch.nan


@pytest.fixture
def make_painter(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Painter]:
    """A painter with a fake method on a device of one's choice."""
    monkeypatch.setattr(painting, "bf16_is_fast", lambda device: True)
    autocast = torch.autocast

    def known_devices_only(device: str, *arguments: Any, **options: Any) -> Any:
        return nullcontext() if device == "meta" else autocast(device, *arguments, **options)

    monkeypatch.setattr(torch, "autocast", known_devices_only)

    def make(method: FakeMethod, device: torch.device = CPU, **options: Any) -> Painter:
        monkeypatch.setattr(painting, "load_method", lambda entry, where: method)
        return Painter(ModelEntry("fake", "", folder=Path("fake")), device, **options)

    return make


def paint(painter: Painter, seed: int = 5, number: int = 0) -> Any:
    voided = np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8) / 300
    hole = np.zeros((6, 7, 8), np.bool_)
    hole[2:4, 3:5, 4:8] = True
    voided[hole] = 0
    return painter.paint(voided, hole, steps=3, seed=seed, number=number, on_step=None)


class TestMemory:
    """RT-11: the CPU takes over, with the same noise."""

    def test_the_cpu_takes_over_and_stays(self, make_painter: Callable[..., Painter]) -> None:
        method = FakeMethod(out_of_memory)
        painter = make_painter(method, ELSEWHERE)
        filled = [paint(painter, number=number) for number in (0, 1)]
        assert [call["device"] for call in method.seen] == ["meta", "cpu", "cpu"]
        assert painter.device == CPU
        assert torch.equal(method.seen[0]["noise"], method.seen[1]["noise"])
        [finding] = painter.findings
        assert (finding.code, finding.level) == ("RT-11", "warning")
        assert finding.message == "meta ran out of memory; the CPU was used instead"
        on_cpu = make_painter(FakeMethod())
        for number in (0, 1):
            assert np.array_equal(filled[number], paint(on_cpu, number=number))

    def test_without_fallback_it_ends(self, make_painter: Callable[..., Painter]) -> None:
        painter = make_painter(FakeMethod(out_of_memory), ELSEWHERE, fallback=False)
        with pytest.raises(DeviceError, match="meta ran out of memory on a volume of 6x7x8") as refused:
            paint(painter)
        assert (refused.value.code, refused.value.exit_status) == ("RT-11", 69)
        assert "--device cpu" in refused.value.fix

    def test_on_the_cpu_there_is_nowhere_to_go(self, make_painter: Callable[..., Painter]) -> None:
        with pytest.raises(DeviceError) as refused:
            paint(make_painter(FakeMethod(out_of_memory)))
        assert refused.value.code == "RT-11"

    def test_other_faults_of_a_network_are_not_taken_for_memory(
        self, make_painter: Callable[..., Painter]
    ) -> None:
        def broken(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        with pytest.raises(RuntimeError, match="mat1"):
            paint(make_painter(FakeMethod(broken), ELSEWHERE))


class TestNotFinite:
    """RT-15: once more in float32, then refused."""

    def test_float32_is_tried_once(self, make_painter: Callable[..., Painter]) -> None:
        method = FakeMethod(not_finite)
        painter = make_painter(method)
        assert np.isfinite(paint(painter)).all()
        assert [call["bf16"] for call in method.seen] == [True, False]
        assert torch.equal(method.seen[0]["noise"], method.seen[1]["noise"])
        assert [(f.code, f.level) for f in painter.findings] == [("RT-15", "warning")]

    def test_many_samples_say_it_once(self, make_painter: Callable[..., Painter]) -> None:
        painter = make_painter(FakeMethod(not_finite, lambda v: v, not_finite))
        for number in range(2):
            paint(painter, number=number)
        assert len(painter.findings) == 1

    @pytest.mark.parametrize("fast", [True, False])
    def test_twice_is_refused(
        self, make_painter: Callable[..., Painter], monkeypatch: pytest.MonkeyPatch, fast: bool
    ) -> None:
        monkeypatch.setattr(painting, "bf16_is_fast", lambda device: fast)
        method = FakeMethod(not_finite, not_finite)
        with pytest.raises(ModelFaultError, match="in float32 too; nothing was written") as refused:
            paint(make_painter(method))
        assert (refused.value.code, refused.value.exit_status) == ("RT-15", 70)
        assert [call["bf16"] for call in method.seen] == ([True, False] if fast else [False])

    def test_nothing_is_written(
        self, tmp_path: Path, make_painter: Callable[..., Painter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scan, mask = save_pair(tmp_path)
        network = save_network(tmp_path / "model")
        (tmp_path / "out").mkdir()
        before = contents(tmp_path)
        monkeypatch.setattr(painting, "load_method", lambda *_: FakeMethod(not_finite, not_finite))
        with pytest.raises(ModelFaultError):
            neuromend.fill(scan, mask, tmp_path / "out" / "f.nii.gz", model=network)
        assert contents(tmp_path) == before

    def test_a_repeat_stands_in_the_record(
        self, tmp_path: Path, make_painter: Callable[..., Painter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network = save_network(tmp_path / "model")
        monkeypatch.setattr(painting, "load_method", lambda *_: FakeMethod(not_finite))
        result = neuromend.fill(image(head()), image(ball()), model=network, device="cpu")
        assert "RT-15" in {finding["code"] for finding in result.record["findings"]}

    def test_a_scan_too_bright_for_its_type_is_clipped_and_not_refused(self) -> None:
        """Single precision ends at 3e38; a fill beyond it would be infinite."""
        scan = (head() / head().max() * 3.4e38).astype(np.float32)
        result = neuromend.fill(image(scan), image(ball()), model="harmonic")
        assert np.isfinite(stored(result.image)).all()
        assert nib.Nifti1Image is type(result.image)


class TestSeeds:
    def test_the_noise_depends_on_seed_and_number_only(self, make_painter: Callable[..., Painter]) -> None:
        def noise(seed: int, number: int) -> bytes:
            return bytes(paint(make_painter(FakeMethod()), seed=seed, number=number).tobytes())

        assert noise(1, 2) == noise(1, 2)
        assert len({noise(seed, number) for seed in (0, 1, -1, 2**64 + 5) for number in range(4)}) == 16

    def test_a_method_that_knows_no_expected_fill_draws_by_the_seed(
        self, make_painter: Callable[..., Painter]
    ) -> None:
        method = FakeMethod()
        painter = make_painter(method)
        assert painter.knows_expected_fill
        assert painter.seed_for(7, sampling=False) == painter.seed_for(8, sampling=False)
        assert painter.seed_for(7, sampling=True) == 7
        method.expected_steps = None  # type: ignore[assignment]
        assert not painter.knows_expected_fill
        assert painter.seed_for(7, sampling=False) == 7


class TestShape:
    def test_a_model_of_another_multiple_sees_a_padded_volume(
        self, make_painter: Callable[..., Painter]
    ) -> None:
        method = FakeMethod(multiple=5)
        filled = paint(make_painter(method))
        assert filled.shape == (6, 7, 8)
        assert method.seen[0]["shape"] == (1, 1, 10, 10, 10)
        # The hole touches the end of the last axis and goes on there; the voxels inside are as without padding.
        assert method.seen[0]["mask"][0, 0, 2:4, 3:5, 4:].all()
        assert method.seen[0]["mask"].sum() == 2 * 2 * 6


class TestSteps:
    @pytest.mark.parametrize(
        ("wanted", "sampling", "steps"),
        [(None, False, 1), (None, True, 4), (7, True, 7), (7, False, 1), (1, False, 1)],
    )
    def test_samples_take_the_steps_asked_for_and_the_expected_fill_its_own(
        self, make_painter: Callable[..., Painter], wanted: int | None, sampling: bool, steps: int
    ) -> None:
        painter = make_painter(FakeMethod())
        assert painter.steps_for(wanted, sampling=sampling) == steps
        told = [(finding.code, finding.level) for finding in painter.findings]
        assert told == ([("UX-01", "note")] if (wanted, sampling) == (7, False) else [])

    def test_more_steps_than_there_are_noise_levels_are_refused(
        self, make_painter: Callable[..., Painter]
    ) -> None:
        painter = make_painter(FakeMethod())
        assert painter.steps_for(8, sampling=True) == 8
        with pytest.raises(UsageError, match=r"--steps is 9, expected 8 or less") as caught:
            painter.steps_for(9, sampling=True)
        assert (caught.value.code, caught.value.exit_status) == ("UX-01", 2)
        assert "--steps 8" in caught.value.fix

    def test_a_method_without_an_expected_fill_takes_its_default(
        self, make_painter: Callable[..., Painter]
    ) -> None:
        method = FakeMethod()
        method.expected_steps = None  # type: ignore[assignment]
        assert make_painter(method).steps_for(None, sampling=False) == 4


class TestClassical:
    def test_samples_of_a_fill_that_is_not_random_are_warned_about(self) -> None:
        result = neuromend.fill(image(head()), image(ball()), model="ring-mean", samples=2)
        assert [(f.code, f.level) for f in result.findings if f.code == "UX-02"] == [("UX-02", "warning")]
        assert stored(result.samples[0]).tobytes() == stored(result.samples[1]).tobytes()
        assert not stored(result.uncertainty).any()
        assert Painter(resolve_model("ring-mean"), CPU).steps_for(9, sampling=True) == 1


class TestWindows:
    """A volume larger than a method was trained on is filled in windows (methods/windows.py)."""

    def test_a_method_is_never_shown_more_than_its_window(self, make_painter: Callable[..., Painter]) -> None:
        method = FakeMethod(multiple=4)
        method.window = (16, 16, 16)  # type: ignore[assignment]
        painter = make_painter(method, CPU)
        voided, hole = np.full((40, 12, 20), 0.5, np.float32), np.zeros((40, 12, 20), bool)
        hole[4:36, 4:8, 6:12] = True
        filled = painter.paint(
            np.where(hole, np.float32(0), voided), hole, steps=1, seed=0, number=0, on_step=None
        )
        assert len(method.seen) > 1
        assert {call["shape"] for call in method.seen} == {(1, 1, 16, 12, 16)}
        assert np.array_equal(filled[~hole], voided[~hole])
        assert (filled[hole] != 0.0).all()
