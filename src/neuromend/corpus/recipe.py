"""What training cases are made like: the crop, the holes, and how much of another scanner is put on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from neuromend.errors import UsageError

Crop = Literal["hole", "whole"] | tuple[int, int, int]
"""``hole``: room around the hole, the whole brain where voxels are large. ``whole``: the cached volume.
Three numbers: this many voxels around the hole."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to draw a training case. Shares are probabilities from 0 to 1.

    Attributes:
        crop: which part of a scan a case shows; its sides are enlarged to the method's ``multiple``.
        volume_ml: smallest and largest hole; volumes are spread evenly over the logarithm.
        stored_masks: share of cases with a healthy mask that the cache holds, where it holds one.
        real_shapes: share of the other holes that have the shape of a real lesion, where shapes are at hand.
        scattered: share of cases with many holes besides, a tenth to a third of the crop in all.
        beyond_brain: share of holes that go on where the brain ends.
        fine: share of scans of 1.5 mm and finer where the data have coarser ones too.
        labels: share of images drawn from maps of tissue classes, where the data have some.
        geometry: share of cases that are turned, stretched and brought to another voxel size.
        flip: share of cases with left and right exchanged.
        gamma: standard deviation of log(gamma).
        gain: smallest and largest factor on the intensities.
        skull, bias, thick_slices, blur, noise: share of cases with each of these.
        plane_jitter: whether the plane of the reflection is moved a little, as if it had been estimated.
    """

    crop: Crop = "hole"
    volume_ml: tuple[float, float] = (0.05, 130.0)
    stored_masks: float = 0.3
    real_shapes: float = 0.5
    scattered: float = 0.65
    beyond_brain: float = 0.2
    fine: float = 0.565
    labels: float = 0.08
    geometry: float = 0.4
    flip: float = 0.5
    gamma: float = 0.18
    gain: tuple[float, float] = (0.75, 1.2)
    skull: float = 0.3
    bias: float = 0.6
    thick_slices: float = 0.12
    blur: float = 0.1
    noise: float = 0.4
    plane_jitter: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float" and field.name != "gamma" and not 0 <= value <= 1:
                raise _refused(field.name, value, "a share from 0 to 1")
        if self.gamma < 0:
            raise _refused("gamma", self.gamma, "0 or more")
        for name in ("volume_ml", "gain"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise _refused(name, (low, high), "two numbers above 0, the smaller one first")
        sides = self.crop if isinstance(self.crop, tuple) else (1, 1, 1)
        if (
            (isinstance(self.crop, str) and self.crop not in ("hole", "whole"))
            or len(sides) != 3
            or min(sides) < 1
        ):
            raise _refused("crop", self.crop, 'three numbers of voxels, "hole" or "whole"')

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Recipe:
        """A recipe from a table of a TOML file: ``base`` names one of ``RECIPES``, the rest changes it.

        Raises:
            UsageError: TR-31, an unknown name or a value that means nothing.
        """
        changes = dict(table)
        base = changes.pop("base", "default")
        if base not in RECIPES:
            raise _refused("base", base, f"one of {', '.join(sorted(RECIPES))}")
        known = {field.name: field for field in fields(cls)}
        for name, value in changes.items():
            if name not in known:
                raise _refused(name, value, f"one of the names {', '.join(sorted(known))}")
            changes[name] = _as(str(known[name].type), name, value)
        return replace(RECIPES[base], **changes)

    def plain(self) -> Recipe:
        """The same crops and kinds of holes in unchanged scans: fixed cases to measure on."""
        return replace(
            self, scattered=0.0, beyond_brain=0.0, labels=0.0, geometry=0.0, flip=0.0, gamma=0.0, gain=(1.0, 1.0),
            skull=0.0, bias=0.0, thick_slices=0.0, blur=0.0, noise=0.0, plane_jitter=False,
        )  # fmt: skip


RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    "whole": Recipe(crop="whole"),
    "crop128": Recipe(crop=(128, 128, 128)),
    "ms": Recipe(volume_ml=(0.5, 60.0), real_shapes=1.0, scattered=0.2, labels=0.0),
    "paper": replace(Recipe(crop="whole", stored_masks=1.0, real_shapes=0.0).plain()),
    "paper-crop128": replace(Recipe(crop=(128, 128, 128), stored_masks=1.0, real_shapes=0.0).plain()),
}
"""``default`` trains the default model. The published methods see whole volumes, fastWDM3D 128 voxels around the
hole, both without augmentation (``paper`` and ``paper-crop128``); ``whole`` and ``crop128`` add ours. ``ms`` fine-tunes
on many small lesions: give it their shapes (``--shapes``)."""


def _as(kind: str, name: str, value: Any) -> Any:
    """A TOML value as the type of a field."""
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if name == "crop" and isinstance(value, str):
        return value
    if kind not in ("bool", "float") and isinstance(value, list | tuple):
        numbers: list[Any] = list(value)
        if all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            wanted = 3 if name == "crop" else 2
            if len(numbers) == wanted:
                return tuple(int(n) if name == "crop" else float(n) for n in numbers)
    raise _refused(name, value, "a value like " + repr(getattr(Recipe(), name)))


def _refused(name: str, value: object, expected: str) -> UsageError:
    return UsageError(
        "TR-31",
        f"in the recipe of the training cases, {name} is {value!r}; expected {expected}",
        why="no training case can be drawn by it",
        fix="correct it in the run's configuration, or leave it out to take the default",
    )
