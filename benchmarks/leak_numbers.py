"""How alike are brains, and copies of brains, to the check for leaks (corpus/leaks.py)?

    python benchmarks/leak_numbers.py ../shared/data/healthy

Reads every ``*_T1w.nii.gz`` below the folder, correlates all pairs, aligns those that are at all alike, and compares
a few scans with copies of themselves. Of the aligned pairs it also tells how well their folds match at 2 mm, which is
what tells one person scanned twice from two persons whose brains have one shape. Prints Markdown;
docs/how-to/prepare.md quotes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from neuromend.corpus import leaks
from neuromend.data.frame import Reorient
from neuromend.data.intensity import IntensityScale
from neuromend.data.volume import read_volume

Array = NDArray[np.float32]
Copy = Callable[[Array, Array], tuple[Array, Array]]
RNG = np.random.default_rng(0)


def resampled(mm: float) -> Copy:
    """Voxels of another size, by linear interpolation."""

    def copy(v: Array, s: Array) -> tuple[Array, Array]:
        size = tuple(int(n * a / mm) for n, a in zip(v.shape, s, strict=True))
        return ndimage.affine_transform(v, mm / s, 0.4, size, order=1), np.full(3, mm, np.float32)

    return copy


def turned(v: Array, s: Array) -> tuple[Array, Array]:
    """Turned by 3 and 2 degrees, as another registration would leave it."""
    turn = Rotation.from_euler("xz", [3, 2], degrees=True).as_matrix()
    middle = np.array(v.shape) / 2
    return ndimage.affine_transform(v, turn, middle - turn @ middle, order=1), s


def holed(v: Array, s: Array) -> tuple[Array, Array]:
    """A hole of 4 cm in one hemisphere."""
    grid = np.indices(v.shape) - (np.array(v.shape) / 2)[:, None, None, None]
    mm = grid * s[:, None, None, None] - np.array([30, 20, 10])[:, None, None, None]
    return np.where((mm**2).sum(axis=0) < 400, 0, v).astype(np.float32), s


def without_bottom(v: Array, s: Array) -> tuple[Array, Array]:
    """The lowest 15 mm of the brain cut off."""
    first = int(np.nonzero(v.max(axis=(0, 1)))[0][0])
    return v[:, :, first + int(15 / s[2]) :], s


COPIES: dict[str, Copy] = {
    "padded": lambda v, s: (np.pad(v, ((13, 4), (0, 9), (21, 2))), s),
    "brighter by 20 %": lambda v, s: (v * np.float32(1.2), s),
    "gamma 0.7": lambda v, s: (v ** np.float32(0.7), s),
    "gamma 1.4": lambda v, s: (v ** np.float32(1.4), s),
    "noise of 10 % in the brain": lambda v, s: (
        np.where(v > 0, np.clip(v + RNG.normal(0, 0.1, v.shape), 0.005, None), 0).astype(np.float32),
        s,
    ),
    "noise of 10 % everywhere": lambda v, s: (
        np.abs(v + RNG.normal(0, 0.1, v.shape)).astype(np.float32),
        s,
    ),
    "resampled to 1.3 mm": resampled(1.3),
    "resampled to 3 mm": resampled(3.0),
    "lowest 15 mm cut off": without_bottom,
    "2 mm of the surface stripped off": lambda v, s: (
        v * ndimage.binary_erosion(v > 0, iterations=max(1, int(2 / s[0]))),
        s,
    ),
    "a hole of 4 cm": holed,
    "turned by 3 degrees": turned,
}


def load(path: Path) -> tuple[Array, Array]:
    """A scan in RAS, 0 in air and about 1 in bright tissue, and its voxel size."""
    scan = read_volume(path)
    turn = Reorient.of(scan.affine)
    scale = IntensityScale.estimate(scan.values, np.ones(scan.shape, np.bool_))
    spacing = np.array(scan.spacing_mm, np.float32)[list(turn.order)]
    return turn.to_model(scale.normalise(scan.values)), spacing


def low(voxels: Array, spacing: Array) -> leaks.Brain:
    """What the check keeps of a scan."""
    mean, share, _ = leaks.low_resolution(voxels, spacing.tolist(), 1.0)
    return mean, share


def detail(voxels: Array, spacing: Array) -> tuple[Array, NDArray[np.bool_]]:
    """What a scan shows finer than about 2 cm, on voxels of 2 mm, and where its brain is."""
    blurred = ndimage.gaussian_filter(voxels, np.sqrt(np.maximum(0.6**2 * ((2 / spacing) ** 2 - 1), 0)))
    coarse = ndimage.zoom(blurred, spacing / 2, order=1, mode="grid-constant", grid_mode=True)
    inside = coarse > 0.1
    share = ndimage.gaussian_filter(inside.astype(np.float32), 4)
    smooth = ndimage.gaussian_filter(coarse * inside, 4) / np.maximum(share, 1e-3)
    return np.where(inside, coarse - smooth, 0).astype(np.float32), inside


def folds(first: Path, second: Path) -> float:
    """The correlation of the folds of two brains at 2 mm, after the best rotation and shift."""
    (one, inside), (other, theirs) = detail(*load(first)), detail(*load(second))
    middle, their_middle = (np.array(ndimage.center_of_mass(m)) for m in (inside, theirs))
    points = np.argwhere(inside)[::8]
    fine, soft = one[inside], ndimage.gaussian_filter(one, 1)[inside][::8]
    their_soft = ndimage.gaussian_filter(other, 1)

    def there(volume: Array, p: NDArray[np.float64], places: NDArray[np.int_]) -> Array:
        moved = Rotation.from_rotvec(0.05 * p[3:]).apply(places - middle) + their_middle + 2 * p[:3]
        found: Array = ndimage.map_coordinates(volume, moved.T, order=1)
        return found

    def unlike(p: NDArray[np.float64]) -> float:
        return -float(np.corrcoef(soft, there(their_soft, p, points))[0, 1])

    best = optimize.minimize(
        unlike, np.zeros(6), method="Powell", options={"maxiter": 8, "xtol": 0.01, "ftol": 1e-4}
    )
    return float(np.corrcoef(fine, there(other, best.x, np.argwhere(inside)))[0, 1])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copied", type=int, default=4, help="how many scans are compared with copies")
    parser.add_argument(
        "--aligned", type=int, default=12, help="how many of the pairs most alike are aligned"
    )
    args = parser.parse_args(argv)
    paths = sorted(args.folder.rglob("*_T1w.nii.gz"))
    brains = [low(*load(path)) for path in paths]
    descriptors = np.stack([leaks.describe(*brain) for brain in brains])
    flat = descriptors.reshape(len(paths), -1).astype(np.float32)
    every = (flat @ flat.T)[np.triu_indices(len(paths), 1)]
    print(f"{len(paths)} scans, {every.size:,} pairs: median {np.median(every):.2f}, "
          f"99.9 % below {np.quantile(every, 0.999):.2f}\n")  # fmt: skip
    print("| pair | as they lie | aligned | folds |\n|---|---|---|---|")
    for pair in leaks.find_twins(descriptors, 0.8)[: args.aligned]:
        other = brains[pair.second]
        moved = (other[0][::-1], other[1][::-1]) if pair.mirrored else other
        names = f"{paths[pair.first].name} {paths[pair.second].name}"
        score = leaks.aligned_correlation(brains[pair.first], moved)
        detailed = folds(paths[pair.first], paths[pair.second])
        print(f"| {names} | {pair.correlation:.3f} | {score:.3f} | {detailed:.2f} |", flush=True)
    print("\n| copy | as it lies | aligned |\n|---|---|---|")
    chosen = [int(n) for n in np.linspace(0, len(paths) - 1, args.copied)]
    for name, copy in COPIES.items():
        lying, aligned = [], []
        for number in chosen:
            copied = low(*copy(*load(paths[number])))
            lying.append(float(leaks.describe(*copied).astype(np.float32).ravel() @ flat[number]))
            aligned.append(leaks.aligned_correlation(brains[number], copied))
        print(f"| {name} | {min(lying):.3f} | {min(aligned):.3f} |", flush=True)


if __name__ == "__main__":
    main()
