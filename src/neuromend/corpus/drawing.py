"""Training cases: a healthy brain with a hole, as another scanner might show it.

Case i of seed s is always the same case, whatever was drawn before and by however many workers, so a resumed run
sees the same data (TR-16). What the hole hides is in none of the pictures that a network is shown: the
mirror image is the reflection of the filled image, as it is when a scan is filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from neuromend.corpus.appearance import Array, as_another_scanner, painted
from neuromend.corpus.cache import CaseCache, CaseRow
from neuromend.corpus.concealing import conceal
from neuromend.corpus.holes import Mask, draw_holes, usable
from neuromend.corpus.placing import (
    Brain,
    Matrix,
    Size,
    crop_size,
    moved,
    place_crop,
    reflection_in,
    sampled,
    window_with_reflection,
)
from neuromend.corpus.recipe import Recipe
from neuromend.corpus.shapes import ShapeBook
from neuromend.errors import InputError

TRIES = 40
"""Draws for one case before the data are refused; nearly all cases take one."""

WHOLE_BRAIN_MM = 1.5
"""Scans with larger voxels fit into a crop as a whole, so their crops are centred on the brain."""

Group = Literal["fine", "coarse", "labels"]


@dataclass(frozen=True, eq=False)
class Plan:
    """What was decided about a case before any voxel is touched.

    Attributes:
        spacing_mm: edge of its cubic voxels.
        volume_ml: about the volume of its first hole.
        size: sides of the crop in voxels.
        place: (4, 4) crop voxel -> cached voxel.
        planted: the first hole on the crop's grid, or None.
        stored: the hole is one of the cache, to be used as it is.
        around_centre: the first blob lies near the centre of the crop.
    """

    spacing_mm: float
    volume_ml: float
    size: Size
    place: Matrix
    planted: Mask | None
    stored: bool
    around_centre: bool


class TrainingCases(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Case ``i`` -> float32 tensors (1, X, Y, Z): healthy, voided, mask, and with ``condition`` base and mirror.

    Args:
        cache: the prepared scans.
        split: "train", "dev" or "test".
        seed: of all that is random.
        epoch_length: number of cases; a run counts through one endless epoch.
        recipe: what cases are made like.
        multiple: the sides of every case are divisible by it (the method's ``multiple``).
        condition: also give the harmonic fill and its reflection (what ``FastWavelet3D.condition`` computes).
        shapes: real lesions to make holes of.
        plain: unchanged scans, those of the split in turn: to measure on.

    Attributes:
        rows: the scans that are drawn from.

    Raises:
        InputError: TR-33, the split has no scans.
    """

    def __init__(
        self,
        cache: CaseCache,
        split: str,
        *,
        seed: int,
        epoch_length: int,
        recipe: Recipe | None = None,
        multiple: int = 1,
        condition: bool = False,
        shapes: ShapeBook | None = None,
        plain: bool = False,
    ) -> None:
        self.cache, self.seed, self.epoch_length = cache, seed, epoch_length
        self.recipe = (recipe or Recipe()).plain() if plain else recipe or Recipe()
        self.multiple, self.condition, self.plain = multiple, condition, plain
        self.shapes = shapes or ShapeBook()
        self.rows = [row for row in cache.rows(split) if row.kind == "scan" or not plain]
        if not any(row.kind == "scan" for row in self.rows):
            raise InputError(
                "TR-33",
                f"the cache has no scans in the split '{split}'",
                why="there is nothing to draw training cases from",
                fix="neuromend prepare can be told how many subjects go to each split",
                path=cache.folder,
            )
        self._groups: dict[Group, list[CaseRow]] = {"fine": [], "coarse": [], "labels": []}
        for row in self.rows:
            fine = min(row.spacing_mm) < WHOLE_BRAIN_MM
            self._groups["labels" if row.kind == "labels" else "fine" if fine else "coarse"].append(row)
        self._brains: dict[str, Brain] = {}

    def __len__(self) -> int:
        return self.epoch_length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self.epoch_length:
            raise IndexError(f"case {index} of {self.epoch_length}")
        # The number 0 was that of the first epoch while there were several; the dev cases of old runs are kept by it.
        rng = np.random.default_rng([self.seed, 0, index])
        for _ in range(TRIES):
            row = self.rows[index % len(self.rows)] if self.plain else self._row(rng)
            case = self._draw(rng, row)
            if case is not None:
                return {
                    name: torch.from_numpy(np.ascontiguousarray(v, np.float32))[None]
                    for name, v in case.items()
                }
        raise InputError(
            "TR-33",
            f"no hole fits into the healthy tissue of the scans: {TRIES} draws failed (case {index})",
            why="a training case needs a hole in the brain that leaves most of it visible",
            fix="look at the scans (neuromend prepare reports on them), or allow smaller holes: volume_ml",
            path=self.cache.folder,
        )

    def _row(self, rng: np.random.Generator) -> CaseRow:
        """A scan: the kind of scan first, by the recipe's odds."""
        fine, labels = self.recipe.fine, self.recipe.labels
        odds = {"fine": fine * (1 - labels), "coarse": (1 - fine) * (1 - labels), "labels": labels}
        kinds: list[Group] = [kind for kind, rows in self._groups.items() if rows and odds[kind] > 0]
        # A split with one kind of scans only is used whatever the odds say.
        kinds = kinds or [kind for kind, rows in self._groups.items() if rows]
        weights = np.array([odds[kind] or 1.0 for kind in kinds])
        rows = self._groups[kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]]
        return rows[int(rng.integers(len(rows)))]

    def _brain(self, row: CaseRow) -> Brain:
        if row.id not in self._brains:
            self._brains[row.id] = Brain.of(self.cache.load(row))
        return self._brains[row.id]

    def _draw(self, rng: np.random.Generator, row: CaseRow) -> dict[str, Array] | None:
        """One attempt at a case; None where its hole turns out to be of no use."""
        brain, recipe = self._brain(row), self.recipe
        plan = self._plan(rng, brain)
        reflect = reflection_in(rng, brain, plan.place, jitter=recipe.plane_jitter)
        corner, size = np.zeros(3, int), plan.size
        if self.condition:
            corner, size = window_with_reflection(plan.size, reflect, plan.place, row.shape)
        crop = tuple(slice(int(-c), int(-c) + n) for c, n in zip(corner, plan.size, strict=True))
        place = moved(plan.place, corner)
        image = self._image(rng, brain, place, size)
        mask = self._mask(rng, brain, image[crop], plan)
        if mask is None:
            return None
        clean, seen = image, image
        if not self.plain:
            clean, seen = as_another_scanner(rng, image, recipe, stripped=brain.stripped)
        hidden = np.zeros(size, bool)
        hidden[crop] = mask
        gain = float(rng.uniform(*recipe.gain))
        case = conceal(clean, seen, hidden, crop, gain, reflect if self.condition else None)
        if rng.random() < recipe.flip:
            case = {name: v[::-1] for name, v in case.items()}
        return case

    def _plan(self, rng: np.random.Generator, brain: Brain) -> Plan:
        """Decide on size, place and first hole."""
        recipe, row = self.recipe, brain.case.row
        turned = bool(rng.random() < recipe.geometry)
        spacing = _another_spacing(rng, brain.working_mm) if turned else brain.working_mm
        volume_ml = float(np.exp(rng.uniform(*np.log(recipe.volume_ml))))
        stored = (
            row.masks[int(rng.integers(len(row.masks)))]
            if row.masks and rng.random() < recipe.stored_masks
            else ""
        )
        shape = None
        if not stored and self.shapes and row.kind == "scan" and rng.random() < recipe.real_shapes:
            shape = self.shapes.draw(rng, volume_ml)
        if stored:
            centre = np.argwhere(brain.case.masks[stored]).mean(0)
        elif shape is not None:
            middle = shape.affine[:3, :3] @ np.argwhere(shape.voxels).mean(0) + shape.affine[:3, 3]
            centre = (np.linalg.inv(brain.to_mni) @ [*middle, 1.0])[:3]
        else:
            centre = brain.random_voxel(rng)
        size = crop_size(recipe.crop, brain, spacing, volume_ml, self.multiple)
        whole_scan = recipe.crop == "whole"
        whole_brain = whole_scan or (recipe.crop == "hole" and spacing > WHOLE_BRAIN_MM)
        jitter = 0.0 if whole_scan else 0.05 if whole_brain else 0.16
        place = place_crop(
            rng, brain, size, spacing, None if whole_brain else centre, jitter=jitter, turned=turned
        )
        planted: Mask | None = None
        if stored:
            planted = sampled(brain.case.masks[stored].view(np.uint8), place, size, order=0) > 0
        elif shape is not None:
            planted = shape.placed(size, brain.to_mni @ place)
        return Plan(spacing, volume_ml, size, place, planted, bool(stored), not whole_brain)

    def _image(self, rng: np.random.Generator, brain: Brain, place: Matrix, size: Size) -> Array:
        """The brain on a grid, 0 in air and about 1 in bright tissue."""
        if brain.case.row.kind == "labels":
            return painted(rng, sampled(brain.case.healthy, place, size, order=0))
        image: Array = sampled(brain.case.healthy, place, size, smooth=True)
        image *= np.float32(1 / brain.case.row.stored_scale)
        return image

    def _mask(self, rng: np.random.Generator, brain: Brain, image: Array, plan: Plan) -> Mask | None:
        """The hole of a case on the crop's grid."""
        inside = brain.inside(image, plan.place)
        diseased: Mask | None = None
        if brain.case.lesion is not None:
            # A voxel that was interpolated from diseased tissue is diseased.
            diseased = sampled(brain.case.lesion.view(np.uint8), plan.place, plan.size) > 0
        if plan.stored and plan.planted is not None:
            return usable(plan.planted, inside, diseased, beyond_brain=True)
        return draw_holes(
            rng,
            inside,
            plan.planted,
            diseased=diseased,
            spacing_mm=plan.spacing_mm,
            volume_ml=plan.volume_ml,
            around_centre=plan.around_centre,
            recipe=self.recipe,
        )


def _another_spacing(rng: np.random.Generator, spacing_mm: float) -> float:
    """The voxel size, in mm, that a scan is resampled to; some fine scans become coarse ones."""
    if spacing_mm > WHOLE_BRAIN_MM:
        return float(rng.uniform(1.6, 2.2))
    spacing = float(rng.uniform(1.0, 1.4))
    return float(rng.uniform(1.4, 2.0)) if rng.random() < 0.35 else spacing
