"""Fill a hole in a normalised volume with a model: the part of the main job that knows torch.

The tensors of a method are (1, 1, X, Y, Z) in RAS with normalised intensities; arrays come in and go out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuromend.device import bf16_is_fast, freed_memory_kept
from neuromend.errors import DeviceError, ModelFaultError, UsageError
from neuromend.findings import Finding, Level
from neuromend.methods.classical import CLASSICAL
from neuromend.methods.windows import fill_in_windows
from neuromend.models import ModelEntry, load_method

Array = NDArray[np.float32]
OnStep = Callable[[int, int], None]

SEED_STRIDE = 0x9E3779B97F4A7C15
"""Sample k of seed s is seeded with s + k * this (mod 2**63), whatever number of samples is drawn."""

EXPECTED_SEED = 0
"""Seeds the traces of noise that a network sees at the highest noise level, where the expected fill is made."""


class Painter:
    """A model, loaded once, that fills holes.

    Args:
        entry: the model (a classical fill, or a folder with weights).
        device: where to run it.
        fallback: on lack of GPU memory go on, on the CPU (RT-11).

    Attributes:
        findings: what happened on the way (the fallback to the CPU, a repeat in float32).
    """

    def __init__(self, entry: ModelEntry, device: torch.device, *, fallback: bool = True) -> None:
        self.entry = entry
        self.device = device
        self.fallback = fallback
        self.findings: list[Finding] = []
        self.method: Any = None if entry.is_classical else load_method(entry, device)

    @property
    def knows_expected_fill(self) -> bool:
        """Whether the answer without sampling is the expected fill; else it is one random sample."""
        return self.method is None or self.method.expected_steps is not None

    @property
    def sampler(self) -> str | None:
        """How the method walks from noise to tissue; None for one that has no choice."""
        return getattr(getattr(self.method, "config", None), "sampler", None)

    def steps_for(self, wanted: int | None, *, sampling: bool) -> int:
        """How many denoising steps to make: what was asked for, else the method's own default.

        The expected fill of a method that knows one takes the steps that it takes.

        Raises:
            UsageError: UX-01, more than the method can take.
        """
        if self.method is None:
            return 1
        expected = self.method.expected_steps
        if sampling or not self.knows_expected_fill:
            most = self.method.most_steps
            if wanted is not None and most is not None and wanted > most:
                raise UsageError(
                    "UX-01",
                    f"--steps is {wanted}, expected {most} or less",
                    why=f"'{self.entry.name}' knows {most} noise levels, and each is visited at most once",
                    fix=f"--steps {most}, or leave it out for {self.method.default_steps}",
                )
            return wanted or int(self.method.default_steps)
        if wanted not in (None, expected):
            self._note(
                "UX-01", "note", f"the expected fill takes {expected} step(s); --steps is for --samples"
            )
        return int(expected)

    def seed_for(self, wanted: int, *, sampling: bool) -> int:
        """The seed of a run: the expected fill is one, whatever seed was asked for."""
        return wanted if sampling or not self.knows_expected_fill else EXPECTED_SEED

    def paint(
        self,
        voided: Array,
        hole: NDArray[np.bool_],
        *,
        steps: int,
        seed: int,
        number: int,
        on_step: OnStep | None,
    ) -> Array:
        """Fill the hole.

        Args:
            voided: (X, Y, Z) normalised, 0 in the hole.
            hole: (X, Y, Z) True where tissue is to be invented.
            steps: denoising steps.
            seed: of the run.
            number: of the sample, from 0; sample 3 is the same whether 3 or 30 are drawn.
            on_step: called with (done, of).

        Returns:
            (X, Y, Z), finite.

        Raises:
            ModelFaultError: RT-15, the model gave values that are not finite, also in float32.
            DeviceError: RT-11, out of memory and no fallback allowed.
        """
        if self.method is None:
            if number == 1:
                self._note(
                    "UX-02", "warning", f"'{self.entry.name}' is not random: all samples are the same fill"
                )
            return CLASSICAL[self.entry.name](voided, hole)
        seed = (seed + number * SEED_STRIDE) % 2**63
        if bf16_is_fast(self.device):
            filled = self._sample(voided, hole, steps, seed, on_step, fast=True)
            if np.isfinite(filled[hole]).all():
                return filled
            message = "the model gave values that are not finite; repeated in float32"
            self._note("RT-15", "warning", message)
        filled = self._sample(voided, hole, steps, seed, on_step, fast=False)
        if np.isfinite(filled[hole]).all():
            return filled
        raise ModelFaultError(
            "RT-15",
            "the model gave values that are not finite, in float32 too; nothing was written",
            why="such voxels would break every tool that reads the scan",
            fix="run `neuromend models verify`; if the model is sound, report the case with its sidecar",
        )

    def _note(self, code: str, level: Level, message: str) -> None:
        """Notice something once, however many samples meet it."""
        finding = Finding(code, level, message)
        if finding not in self.findings:
            self.findings.append(finding)

    def _sample(
        self,
        voided: Array,
        hole: NDArray[np.bool_],
        steps: int,
        seed: int,
        on_step: OnStep | None,
        *,
        fast: bool,
    ) -> Array:
        # Models differ in what the sides must be divisible by; what is added is cut off again.
        pad = [(0, -side % self.method.multiple) for side in voided.shape]
        image, mask = (
            torch.from_numpy(np.pad(v, pad, mode="edge").astype(np.float32))[None, None]
            for v in (voided, hole)
        )
        inside = tuple(slice(side) for side in voided.shape)
        try:
            return self._run(image, mask, steps, seed, on_step, fast=fast)[inside]
        except torch.OutOfMemoryError as error:
            if not self.fallback or self.device.type == "cpu":
                raise DeviceError(
                    "RT-11",
                    f"{self.device} ran out of memory on a volume of {'x'.join(map(str, voided.shape))} voxels",
                    why="the network needs the whole brain at once",
                    fix="--device cpu, or close what else uses this device",
                ) from error
            self._note("RT-11", "warning", f"{self.device} ran out of memory; the CPU was used instead")
            self.device = torch.device("cpu")
            self.method = self.method.to(self.device)
            torch.cuda.empty_cache()
            return self._run(image, mask, steps, seed, on_step, fast=fast)[inside]

    def _run(
        self,
        image: torch.Tensor,
        mask: torch.Tensor,
        steps: int,
        seed: int,
        on_step: OnStep | None,
        *,
        fast: bool,
    ) -> Array:
        # The generator stays on the CPU, so that every device draws the same noise.
        generator = torch.Generator("cpu").manual_seed(seed)
        use_bf16 = fast and bf16_is_fast(self.device)

        def paint(known: torch.Tensor, hole: torch.Tensor, told: OnStep | None) -> torch.Tensor:
            painted: torch.Tensor = self.method.sample(
                known, hole.to(known), steps=steps, generator=generator, on_step=told
            )
            return painted

        image, hole = image.to(self.device), mask.to(self.device) > 0.5
        window = self.method.window
        with freed_memory_kept(), torch.autocast(self.device.type, torch.bfloat16, enabled=use_bf16):
            if window is None:
                filled = paint(image, hole, on_step)
            else:
                filled = fill_in_windows(paint, image, hole, window, on_step)
        result: Array = filled[0, 0].float().cpu().numpy()
        return result


class LoadedModel:
    """Keeps the painter of the last model, so that a process that fills many scans loads it once."""

    def __init__(self) -> None:
        self._painter: Painter | None = None
        self._key: tuple[ModelEntry, torch.device, bool] | None = None

    def __call__(self, entry: ModelEntry, device: torch.device, *, fallback: bool) -> Painter:
        """The painter, with no findings; loaded anew for another model or device, and after a fallback."""
        key = (entry, device, fallback)
        if self._painter is None or self._key != key or self._painter.device != device:
            self._painter = None  # two models at once might not fit
            self._painter, self._key = Painter(entry, device, fallback=fallback), key
        self._painter.findings = []
        return self._painter
