"""How another scanner might show a brain: contrast, noise, shading, thick slices, a skull around it.

Images are float32 (x, y, z), 0 in air and about 1 in bright tissue.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.corpus.recipe import Recipe

Array = NDArray[np.float32]
Shape = tuple[int, ...]


_BRIGHTEST = 4
"""Brighter voxels (vessels, fat; bright brain tissue is 1) are cut off where the contrast is changed."""


def as_another_scanner(
    rng: np.random.Generator, image: Array, recipe: Recipe, *, stripped: bool
) -> tuple[Array, Array]:
    """Change an image as the recipe says.

    Args:
        rng: source of randomness.
        image: (x, y, z).
        recipe: how often each change is made.
        stripped: the image is 0 outside the brain, so a skull can be put around it.

    Returns:
        clean, seen: ``seen`` has noise that ``clean`` has not. One array where there is no noise.
    """
    if recipe.gamma > 0:
        image = _to_power(image, float(np.exp(rng.normal(0, recipe.gamma))))
    if rng.random() < recipe.skull and stripped:
        image = _with_skull(rng, image)
    if rng.random() < recipe.bias:
        image = _shaded(rng, image, float(rng.uniform(0, 0.35)))
    if rng.random() < recipe.thick_slices:
        image = _thick_slices(image, int(rng.integers(3)), int(rng.integers(2, 6)))
    if rng.random() < recipe.blur:
        image = ndimage.gaussian_filter(image, float(rng.uniform(0.3, 0.8)))
    if rng.random() >= recipe.noise:
        return image, image
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.float32(rng.uniform(0, 0.05))
    noise += image
    seen = np.abs(noise, out=noise)
    if rng.random() < 0.6:
        seen[image <= 0] = 0
    return image, seen


def smooth(rng: np.random.Generator, shape: Shape, knots: Shape) -> Array:
    """Smooth noise of about unit variance: a coarse grid of ``knots``, linearly enlarged to ``shape``."""
    return enlarged(rng.standard_normal(knots, np.float32), shape)


def enlarged(coarse: Array, shape: Shape) -> Array:
    """A coarse grid, linearly interpolated to a finer one with the same corners, axis by axis."""
    for axis in (2, 1, 0):
        places = np.linspace(0, coarse.shape[axis] - 1, shape[axis])
        coarse = between(coarse, axis, places)
    return coarse


def between(array: Array, axis: int, places: NDArray[np.float64]) -> Array:
    """Linear interpolation along one axis; ``places`` beyond the ends take the values at the ends."""
    last = array.shape[axis] - 1
    places = np.clip(places, 0, last)
    low = np.minimum(places.astype(np.intp), max(last - 1, 0))
    weight = (places - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    below: Array = np.take(array, low, axis)
    step: Array = np.take(array, np.minimum(low + 1, last), axis)
    step -= below
    step *= weight
    step += below
    return step


def painted(rng: np.random.Generator, classes: NDArray[np.integer]) -> Array:
    """Draw an image from a map of tissue classes: class means, smooth and voxel noise, partial volume.

    Args:
        rng: source of randomness.
        classes: (x, y, z) tissue classes of ``neuromend.sites``, 0 outside the brain.

    Returns:
        The image, 0 exactly where the class is 0.
    """
    inside = classes > 0
    image = _tissue_means(rng)[np.minimum(classes, 9).astype(np.uint8)]
    image *= 1 + np.float32(0.05) * smooth(rng, classes.shape, (12, 12, 12))
    image += inside * rng.standard_normal(classes.shape, np.float32) * np.float32(rng.uniform(0.01, 0.05))
    blurred = ndimage.gaussian_filter(image, float(rng.uniform(0.4, 0.8)))
    return np.where(inside, np.maximum(blurred, np.float32(0.01)), np.float32(0))


def _tissue_means(rng: np.random.Generator) -> Array:
    """Mean intensity of the ten classes: T1-like with scatter, or (one in four) arbitrary."""
    t1 = np.array([0, 0.2, 0.55, 0.85, 0.68, 0.55, 0.8, 0.78, 0.3, 0.6])
    means = rng.uniform(0.1, 1.0, 10) if rng.random() < 0.25 else t1 * np.exp(rng.normal(0, 0.12, 10))
    means[0] = 0
    return means.astype(np.float32)


def _to_power(image: Array, gamma: float) -> Array:
    """``image ** gamma`` by a table (a quarter of the time of powers); 0 where the image is negative.

    The steps of 1/4096 are rounded up, so that only 0 becomes 0 and the outline of a stripped brain stays. The table
    ends at a fixed value, not at the image's highest one, which may be hidden under the mask later on.
    """
    steps = image * np.float32(4096)
    np.ceil(steps, out=steps)
    np.clip(steps, 0, 4096 * _BRIGHTEST - 1, out=steps)
    table = (np.arange(4096 * _BRIGHTEST) / 4096) ** gamma
    return np.take(table.astype(np.float32), steps.astype(np.uint16))


def _shaded(rng: np.random.Generator, image: Array, strength: float) -> Array:
    """Multiply by a bias field exp(strength * polynomial), whose terms are separate in the coordinates."""
    linear, quadratic = rng.normal(0, 1, (2, 3))
    shaded = image
    for axis, size in enumerate(image.shape):
        x = np.linspace(-1, 1, size)
        field = np.exp(strength / 1.5 * (linear[axis] * x + 0.5 * quadratic[axis] * x * x))
        shaded = shaded * field.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return shaded


def _with_skull(rng: np.random.Generator, image: Array) -> Array:
    """Put made-up meninges, skull, fat and muscle around a stripped brain: shells of its blurred outline.

    The outline is blurred on every second voxel: by two boxes of about 9 voxels.
    """
    soft = (image[::2, ::2, ::2] > 0).astype(np.float32)
    for _ in range(2):
        soft = ndimage.uniform_filter(soft, 5)
    for axis in (2, 1, 0):
        soft = between(soft, axis, np.arange(image.shape[axis]) / 2)
    csf, bone = 0.25 + 0.15 * rng.random(), 0.02 + 0.15 * rng.random()
    fat, muscle = 0.5 + 0.9 * rng.random(), 0.2 + 0.4 * rng.random()
    beyond = muscle * (0.3 + 0.7 * (rng.random() < 0.5))
    edges = np.sort(rng.uniform(0.0, 0.35, 3))
    # A shell a bin of the blurred outline, from far outside inwards.
    values = np.array([beyond, muscle, fat, bone, csf], np.float32)
    around = values[np.searchsorted(np.array([1e-6, *edges], np.float32), soft, side="left")]
    texture = smooth(rng, image.shape, (9, 9, 9))
    texture *= np.float32(0.15)
    texture += 1
    around *= texture
    return np.where(image > 0, image, around)


def _thick_slices(image: Array, axis: int, factor: int) -> Array:
    """Average slices in groups and interpolate back, as a scan with thick slices looks on a fine grid."""
    blurred = ndimage.uniform_filter1d(image, factor, axis=axis)
    first = factor // 2
    picked = np.take(blurred, np.arange(first, image.shape[axis], factor), axis=axis)
    return between(picked, axis, (np.arange(image.shape[axis]) - first) / factor)
