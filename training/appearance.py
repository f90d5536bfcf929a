"""How another scanner might show a brain: contrast, noise, shading, thick slices, a skull around it.

Images are (x, y, z), about 0 in air and 1 in bright tissue.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]


def as_another_scanner(
    rng: np.random.Generator, image: Array, mirror: Array, labels: bool
) -> tuple[Array, Array, Array]:
    """(clean, seen, mirror): intensities in about 0..1; ``seen`` has noise that ``clean`` has not."""
    if labels:
        means = _tissue_means(rng)
        seed = int(rng.integers(2**31))
        image, mirror = (
            _paint(np.random.default_rng([seed, k]), v, means) for k, v in enumerate((image, mirror))
        )
    else:
        image, mirror = image / 255, mirror / 255
    gamma = float(np.exp(rng.normal(0, 0.18)))
    image, mirror = np.clip(image, 0, None) ** gamma, np.clip(mirror, 0, None) ** gamma
    if rng.random() < 0.3:
        seed = int(rng.integers(2**31))
        image, mirror = (_with_skull(np.random.default_rng(seed), v) for v in (image, mirror))
    if rng.random() < 0.6:
        image = image * _bias_field(rng, image.shape, float(rng.uniform(0, 0.35)))
    if rng.random() < 0.12:
        image = _thick_slices(image, int(rng.integers(3)), int(rng.integers(2, 6)))
    if rng.random() < 0.1:
        image = ndimage.gaussian_filter(image, float(rng.uniform(0.3, 0.8)))
    clean = seen = image.astype(np.float32)
    if rng.random() < 0.4:
        seen = np.abs(clean + rng.standard_normal(clean.shape, np.float32) * np.float32(rng.uniform(0, 0.05)))
        seen = np.where(clean > 0, seen, clean) if rng.random() < 0.6 else seen
    return clean, seen.astype(np.float32), mirror.astype(np.float32)


def smooth(rng: np.random.Generator, shape: tuple[int, ...], knots: tuple[int, ...]) -> Array:
    """Smooth noise of about unit variance: a coarse grid, linearly enlarged."""
    coarse = rng.standard_normal(knots).astype(np.float32)
    matrix = [(k - 1) / (n - 1) for k, n in zip(knots, shape, strict=True)]
    return ndimage.affine_transform(coarse, matrix, output_shape=shape, order=1)


def _bias_field(rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> Array:
    """A multiplicative field exp(strength * smooth), quadratic in the coordinates."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    c = rng.normal(0, 1, 6).astype(np.float32)
    x, y, z = axes
    return np.exp(
        np.float32(strength)
        * (c[0] * x + c[1] * y + c[2] * z + 0.5 * (c[3] * x * x + c[4] * y * y + c[5] * z * z))
        / 1.5
    )


def _with_skull(rng: np.random.Generator, image: Array) -> Array:
    """Put made-up meninges, skull, fat and muscle around a stripped brain: shells of its blurred outline."""
    soft = ndimage.uniform_filter((image > 0).astype(np.float32), 9)
    soft = ndimage.uniform_filter(soft, 9)
    texture = smooth(rng, image.shape, (9, 9, 9))
    csf, bone = 0.25 + 0.15 * rng.random(), 0.02 + 0.15 * rng.random()
    fat, muscle = 0.5 + 0.9 * rng.random(), 0.2 + 0.4 * rng.random()
    edges = np.sort(rng.uniform(0.0, 0.35, 3))[::-1]
    shell = np.full(image.shape, muscle * (0.3 + 0.7 * (rng.random() < 0.5)), np.float32)
    shell[soft > 1e-6] = muscle
    shell[soft > edges[2]] = fat
    shell[soft > edges[1]] = bone
    shell[soft > edges[0]] = csf
    return np.where(image > 0, image, shell * (1 + 0.15 * texture)).astype(np.float32)


def _thick_slices(image: Array, axis: int, factor: int) -> Array:
    """Average slices in groups and interpolate back, as a scan with thick slices looks on a fine grid."""
    blurred = ndimage.uniform_filter1d(image, factor, axis=axis)
    picked = np.take(blurred, np.arange(factor // 2, image.shape[axis], factor), axis=axis)
    matrix = np.ones(3)
    matrix[axis] = 1 / factor
    offset = np.zeros(3)
    offset[axis] = -(factor // 2) / factor
    return ndimage.affine_transform(picked, matrix, offset, image.shape, order=1, mode="nearest")


def _tissue_means(rng: np.random.Generator) -> Array:
    """Mean intensity of the ten classes (data README): T1-like with scatter, or (one in four) arbitrary."""
    t1 = np.array([0, 0.2, 0.55, 0.85, 0.68, 0.55, 0.8, 0.78, 0.3, 0.6])
    means = rng.uniform(0.1, 1.0, 10) if rng.random() < 0.25 else t1 * np.exp(rng.normal(0, 0.12, 10))
    means[0] = 0
    return means.astype(np.float32)


def _paint(rng: np.random.Generator, labels: Array, means: Array) -> Array:
    """Draw an image from a label map: class means, smooth and voxel noise, partial volume by blurring."""
    classes = np.clip(labels, 0, 9).astype(np.intp)
    image = means[classes] * (1 + 0.05 * smooth(rng, labels.shape, (12, 12, 12)))
    image += (
        (classes > 0) * rng.standard_normal(labels.shape, np.float32) * np.float32(rng.uniform(0.01, 0.05))
    )
    blurred = ndimage.gaussian_filter(image, float(rng.uniform(0.4, 0.8)))
    return np.where(classes > 0, np.maximum(blurred, 0.01), 0).astype(np.float32)
