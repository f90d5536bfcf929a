"""Random training cases for the default model: a healthy brain, a hole, and how another scanner might see it.

Case i of seed s is always the same case, whatever was drawn before, so a resumed run sees the same data.
Only subjects of the split asked for (a column of the data's subjects.tsv) are ever read.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from appearance import as_another_scanner, smooth
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from neuromend.data.intensity import IntensityScale
from neuromend.data.lesions import LesionShape, random_blob
from neuromend.methods.classical import harmonic

Array = NDArray[np.float32]

SCATTERED = 0.65
"""Share of the training cases with many holes."""

FOLDERS = {"malf": "oasis", "ixi2mm": "ixi-2mm"}


@dataclass(frozen=True, eq=False)
class Brain:
    """A healthy scan (or label map) in memory.

    Attributes:
        voxels: uint8 (x, y, z) in RAS; 0 is background.
        spacing_mm: edge of its cubic voxels.
        to_mni: voxel -> MNI mm, or None.
        mirror: voxel -> voxel reflection at the midsagittal plane.
        labels: True if the voxels are tissue classes to draw intensities for.
    """

    voxels: NDArray[np.uint8]
    spacing_mm: float
    to_mni: NDArray[np.float64] | None
    mirror: NDArray[np.float64]
    labels: bool = False


def load_brains(data: Path, split: str = "train") -> dict[str, list[Brain]]:
    """Read the scans of one split and, for training, the label maps; by "1mm", "2mm" and "labels"."""
    affines = json.loads((data / "mni-to-subject.json").read_text())
    brains: dict[str, list[Brain]] = {"1mm": [], "2mm": [], "labels": []}
    with (data / "subjects.tsv").open() as table:
        for row in csv.DictReader(table, delimiter="\t"):
            if row["split"] != split or row["dataset"] not in FOLDERS:
                continue
            image = nib.load(data / "healthy" / FOLDERS[row["dataset"]] / f"{row['subject']}_T1w.nii.gz")
            to_subject = np.array(affines[f"{row['dataset']}/{row['subject']}"]["mni_to_subject_ras"])
            to_mni = np.linalg.inv(to_subject) @ image.affine
            mirror = np.linalg.inv(to_mni) @ np.diag([-1.0, 1, 1, 1]) @ to_mni
            spacing = float(np.abs(np.diag(image.affine)[:3]).mean())
            kind = "1mm" if spacing < 1.5 else "2mm"
            brains[kind].append(Brain(np.asarray(image.dataobj).astype(np.uint8), spacing, to_mni, mirror))
    if split == "train":
        for path in sorted((data / "labels").glob("*_tissue.nii.gz")):
            image = nib.as_closest_canonical(nib.load(path))
            labels = np.asarray(image.dataobj).astype(np.uint8)
            centre = float(np.argwhere(labels > 0)[:, 0].mean())
            mirror = np.diag([-1.0, 1, 1, 1])
            mirror[0, 3] = 2 * centre
            brains["labels"].append(Brain(labels, 1.0, None, mirror, labels=True))
    return brains


def load_shapes(data: Path, largest_ml: float = 150.0) -> dict[str, list[LesionShape]]:
    """Stroke and MS masks in MNI space, at most ``largest_ml`` each.

    The dev holes (benchmarks/dev_cases.py) are made from every fourth stroke mask and every second MS mask; those
    are left out here.
    """
    folders = {"stroke": (data / "stroke" / "masks-mni", 4), "ms": (data / "ms" / "masks-mni", 2)}
    shapes: dict[str, list[LesionShape]] = {}
    for kind, (folder, dev_share) in folders.items():
        read = []
        for number, path in enumerate(sorted(folder.glob("*.nii.gz"))):
            if number % dev_share == 0:
                continue
            try:
                read.append(LesionShape.read(path))
            except ValueError:
                continue
        shapes[kind] = [s for s in read if s.volume_ml <= largest_ml]
    return shapes


class Cases(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Case ``i`` -> tensors (1, X, Y, Z): healthy, voided, mask, base (harmonic fill), its reflection."""

    def __init__(
        self,
        brains: dict[str, list[Brain]],
        shapes: dict[str, list[LesionShape]],
        *,
        seed: int,
        length: int,
        plain: bool = False,
    ) -> None:
        self.brains, self.shapes, self.seed, self.length, self.plain = brains, shapes, seed, length, plain

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index])
        for _ in range(20):
            case = self._draw(rng)
            if case is not None:
                return {
                    name: torch.from_numpy(np.ascontiguousarray(v, np.float32))[None]
                    for name, v in case.items()
                }
        raise RuntimeError(f"no usable case for seed {self.seed}, index {index}")

    def _draw(self, rng: np.random.Generator) -> dict[str, Array] | None:
        kinds = [k for k in ("1mm", "2mm", "labels") if self.brains[k]]
        odds = np.array([{"1mm": 0.52, "2mm": 0.40, "labels": 0.08}[k] for k in kinds])
        kind = str(rng.choice(kinds, p=odds / odds.sum()))
        brain = self.brains[kind][int(rng.integers(len(self.brains[kind])))]
        exact = self.plain or rng.random() < 0.6
        target_ml = float(np.exp(rng.uniform(np.log(0.05), np.log(130))))
        spacing = brain.spacing_mm if exact else _another_spacing(rng, kind)
        size = crop_size(spacing, target_ml)
        shape = self._shape(rng, brain, target_ml)
        centre = self._centre(rng, brain, shape)
        place = self._placement(rng, brain, size, spacing, centre, exact)
        image, mirror, reflect = self._views(rng, brain, place, size)
        mask = self._holes(rng, image > 0, spacing, target_ml, shape, place, brain)
        if mask is None:
            return None
        if self.plain:
            clean = seen = image
        else:
            clean, seen, mirror = as_another_scanner(rng, image, mirror, brain.labels)
        gain = 1.0 if self.plain else float(rng.uniform(0.75, 1.2))
        case = conceal(clean, seen, mirror, mask, reflect, gain)
        if not self.plain and rng.random() < 0.5:
            case = {name: v[::-1] for name, v in case.items()}
        return case

    def _shape(self, rng: np.random.Generator, brain: Brain, target_ml: float) -> LesionShape | None:
        """A real lesion of about the wanted size, or None for a random blob."""
        if brain.to_mni is None or rng.random() < 0.5:
            return None
        if target_ml < 20 and rng.random() < 0.2:
            return self.shapes["ms"][int(rng.integers(len(self.shapes["ms"])))]
        sizes = np.array([s.volume_ml for s in self.shapes["stroke"]])
        nearest = np.argsort(np.abs(np.log(sizes / target_ml)))[:40]
        return self.shapes["stroke"][int(rng.choice(nearest))]

    def _centre(
        self, rng: np.random.Generator, brain: Brain, shape: LesionShape | None
    ) -> NDArray[np.float64]:
        """Where the crop is centred, in the brain's voxels: on the lesion, or on a random brain voxel."""
        if shape is not None and brain.to_mni is not None:
            middle = np.argwhere(shape.voxels).mean(0)
            mm = shape.affine[:3, :3] @ middle + shape.affine[:3, 3]
            back = np.linalg.inv(brain.to_mni)
            return np.asarray(back[:3, :3] @ mm + back[:3, 3])
        for _ in range(1000):
            voxel = rng.integers(0, brain.voxels.shape)
            if brain.voxels[tuple(voxel)]:
                return voxel.astype(np.float64)
        return np.array(brain.voxels.shape) / 2

    def _placement(
        self,
        rng: np.random.Generator,
        brain: Brain,
        size: tuple[int, int, int],
        spacing: float,
        centre: NDArray[np.float64],
        exact: bool,
    ) -> NDArray[np.float64]:
        """The 4x4 map crop voxel -> brain voxel. ``exact`` means whole-voxel shifts, no interpolation."""
        extent = np.array(size)
        whole = spacing > 1.5  # the crop holds the whole brain: centre it there
        if whole:
            centre = np.array(brain.voxels.shape) / 2
        jitter = rng.uniform(-0.16, 0.16, 3) * extent * (0.3 if whole else 1)
        place = np.eye(4)
        if exact:
            place[:3, 3] = np.round(centre - extent / 2 + jitter)
            return place
        turn = Rotation.from_rotvec(rng.normal(0, 0.1, 3)).as_matrix()
        zoom = np.exp(rng.normal(0, 0.06, 3)) * spacing / brain.spacing_mm
        place[:3, :3] = turn * zoom
        place[:3, 3] = centre - place[:3, :3] @ (extent / 2 - jitter)
        return place

    def _views(
        self, rng: np.random.Generator, brain: Brain, place: NDArray[np.float64], size: tuple[int, int, int]
    ) -> tuple[Array, Array, NDArray[np.float64]]:
        """The crop, the crop of the reflected brain, and the reflection in crop voxels."""
        noisy = np.eye(4)
        noisy[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix()
        middle = np.array(brain.voxels.shape) / 2
        noisy[:3, 3] = middle - noisy[:3, :3] @ middle + rng.normal(0, 0.7, 3) / brain.spacing_mm
        mirror = brain.mirror if self.plain else brain.mirror @ noisy
        zoom = np.linalg.norm(place[:3, :3], axis=0)
        source = brain.voxels
        if brain.labels:
            image = ndimage.affine_transform(source, place[:3, :3], place[:3, 3], size, order=0)
            matrix = mirror @ place
            other = ndimage.affine_transform(source, matrix[:3, :3], matrix[:3, 3], size, order=0)
        else:
            if zoom.max() > 1.25:  # anti-aliasing
                source = ndimage.gaussian_filter(source.astype(np.float32), 0.35 * zoom.mean())
            exact = np.array_equal(place[:3, :3], np.eye(3))
            image = _crop(source, place[:3, 3].astype(int), size) if exact else _sample(source, place, size)
            other = _sample(source, mirror @ place, size)
        return image.astype(np.float32), other.astype(np.float32), np.linalg.inv(place) @ mirror @ place

    def _holes(
        self,
        rng: np.random.Generator,
        inside: NDArray[np.bool_],
        spacing: float,
        target_ml: float,
        shape: LesionShape | None,
        place: NDArray[np.float64],
        brain: Brain,
    ) -> NDArray[np.bool_] | None:
        """The hole(s): the lesion, plus more of the same size class where they are small."""
        size = inside.shape
        voxels = np.argwhere(inside)
        if len(voxels) < 2000:
            return None
        mask = np.zeros(size, bool)
        if shape is not None and brain.to_mni is not None:
            mask |= shape.placed(size, brain.to_mni @ place)
        count = (
            1 if target_ml > 15 else int(rng.integers(1, 4)) if target_ml > 4 else int(rng.integers(2, 14))
        )
        for number in range(count):
            if number == 0 and mask.any():
                continue
            volume = target_ml * (float(np.exp(rng.normal(0, 0.5))) if number else 1.0)
            here = (
                voxels[int(rng.integers(len(voxels)))]
                if number or spacing > 1.5
                else np.array(size) / 2 + rng.normal(0, 3, 3)
            )
            mask |= random_blob(
                rng, size, tuple(here), volume, spacing, roughness=float(rng.uniform(0.1, 0.6))
            )
        if not self.plain and rng.random() < SCATTERED:
            mask |= _scattered(rng, size, spacing)
        if self.plain or rng.random() < 0.8:
            mask &= inside
        if mask.sum() < 8 or (mask & inside).sum() > 0.45 * inside.sum():
            return None
        return mask


def crop_size(spacing_mm: float, lesion_ml: float) -> tuple[int, int, int]:
    """Sides in voxels: the whole brain where voxels are large, else room around the lesion."""
    if spacing_mm > 1.5:
        return (80, 96, 80) if spacing_mm > 1.8 else (96, 112, 96)
    return (80, 80, 80) if lesion_ml < 4 else (96, 96, 96) if lesion_ml < 25 else (112, 112, 112)


def conceal(
    clean: Array,
    seen: Array,
    mirror: Array,
    mask: NDArray[np.bool_],
    reflect: NDArray[np.float64],
    gain: float = 1.0,
) -> dict[str, Array]:
    """Hide the tissue under the mask, in every picture of it that the network is shown.

    Args:
        clean, seen: (x, y, z) the brain without and with noise.
        mirror: the reflected brain; its voxel p shows what ``seen`` has at ``reflect`` p.
        mask: True where tissue is to be hidden.
        reflect: (4, 4) voxel -> voxel.
        gain: factor on the normalised intensities.

    Returns:
        healthy (clean in the mask), voided, mask, base (the harmonic fill) and mirror, where the reflected base
        stands in for all that was interpolated from a hidden voxel.
    """
    scale = IntensityScale.estimate(seen, ~mask)
    clean, seen, mirror = (scale.normalise(v) * np.float32(gain) for v in (clean, seen, mirror))
    voided = np.where(mask, np.float32(0), seen)
    base = harmonic(voided, mask)
    weight = ndimage.affine_transform(
        mask.astype(np.float32), reflect[:3, :3], reflect[:3, 3], order=1, mode="grid-constant"
    )
    hidden = weight > 0  # also half a voxel beyond the border of the crop
    if hidden.any():
        reflected = ndimage.affine_transform(base, reflect[:3, :3], reflect[:3, 3], order=1)
        mirror = np.where(hidden, reflected, mirror)
    healthy = np.where(mask, clean, seen)
    return {"healthy": healthy, "voided": voided, "mask": mask, "base": base, "mirror": mirror}


def _another_spacing(rng: np.random.Generator, kind: str) -> float:
    """The voxel size, in mm, that a scan is resampled to; some scans at 1 mm become coarse ones."""
    spacing = float(rng.uniform(1.6, 2.2) if kind == "2mm" else rng.uniform(1.0, 1.4))
    return float(rng.uniform(1.4, 2.0)) if kind == "1mm" and rng.random() < 0.35 else spacing


def _crop(source: NDArray[np.generic], corner: NDArray[np.int_], size: tuple[int, int, int]) -> Array:
    out = np.zeros(size, np.float32)
    lo, hi = np.maximum(corner, 0), np.minimum(corner + size, source.shape)
    if (hi > lo).all():
        inner = tuple(slice(a - c, b - c) for a, b, c in zip(lo, hi, corner, strict=True))
        out[inner] = source[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))]
    return out


def _sample(source: NDArray[np.generic], matrix: NDArray[np.float64], size: tuple[int, int, int]) -> Array:
    return ndimage.affine_transform(source, matrix[:3, :3], matrix[:3, 3], size, np.float32, order=1)


def _scattered(rng: np.random.Generator, shape: tuple[int, int, int], spacing: float) -> NDArray[np.bool_]:
    """Many holes at once, a tenth to a third of the volume: where smooth noise of one length scale is high.

    A case with one hole teaches little for its cost; this teaches up to ten times as much.
    """
    scale_mm = float(np.exp(rng.uniform(np.log(5), np.log(35))))
    extent = np.array(shape) * spacing
    field = smooth(rng, shape, tuple(int(n) for n in np.ceil(extent / scale_mm) + 2))
    field += 0.35 * smooth(rng, shape, tuple(int(n) for n in np.ceil(2.5 * extent / scale_mm) + 2))
    return field > np.quantile(field[::3, ::3, ::3], 1 - rng.uniform(0.1, 0.3))
