"""The slowly varying shading of an MR scan (bias field), estimated from the scan itself and divided out.

Idea: Van Leemput et al. 1999, IEEE Trans. Med. Imaging 18: 885-896. In the logarithm of the intensities a bias
field is a smooth sum; the tissues are a mixture of normal distributions around it. Classifying the voxels and
fitting a polynomial to what the classes leave over are repeated in turn.

Differences from the paper: no Markov field here (the segmentation that follows has one), a thinned-out
sample of the brain, and a penalty for what is no tissue (a voxel far from every class has no say).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ORDER = 3
"""Degree of the polynomial: 19 terms, the shading of one coil over one head (the paper uses 4)."""

ROUNDS = 30
SAMPLE = 30_000
"""Brain voxels that are looked at, at most; a polynomial of 19 terms needs no more."""

CLASSES = 3
FLOOR = 0.02
"""Of bright tissue: darker voxels are raised to this before the logarithm."""


def correct_bias(values: NDArray[np.floating], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Divide the bias field out.

    Args:
        values: (x, y, z) intensities, positive where there is tissue.
        brain: (x, y, z) True in the brain; nothing else is looked at or changed.

    Returns:
        (x, y, z) float32: in the brain the corrected intensities, scaled so that bright tissue (99th
        percentile before the correction) is 1 and the field has mean 1 over the brain in the logarithm; 0 elsewhere.
    """
    inside = np.asarray(values[brain], np.float64)
    inside -= min(0.0, float(np.percentile(inside, 0.1)))  # standardised scans have negative intensities
    bright = float(np.percentile(inside, 99))
    inside /= bright if bright > 0 else 1.0
    axes = [_axis(brain, axis) for axis in range(3)]
    step = max(1, len(inside) // SAMPLE)
    sample = np.log(np.maximum(inside[::step], FLOOR))
    indices = [index[::step] for index in np.nonzero(brain)]
    powers = [axis[index][:, None] ** np.arange(ORDER + 1) for axis, index in zip(axes, indices, strict=True)]
    terms = np.array([t for t in np.ndindex(*(ORDER + 1,) * 3) if 0 < sum(t) <= ORDER])
    basis = np.stack([powers[0][:, i] * powers[1][:, j] * powers[2][:, k] for i, j, k in terms], axis=1)
    polynomial = np.zeros((ORDER + 1,) * 3)
    polynomial[tuple(terms.T)] = _fit(sample, basis)
    field = np.polynomial.polynomial.polygrid3d(axes[0], axes[1], axes[2], polynomial)[brain]
    corrected = np.zeros(values.shape, np.float32)
    corrected[brain] = inside / np.exp(field - field.mean())
    return corrected


def _fit(logarithms: Floats, basis: Floats) -> Floats:
    """The coefficients (terms,) of the field, by expectation maximisation."""
    means = np.quantile(logarithms, [0.1, 0.45, 0.85])
    deviations = np.full(CLASSES, max(float(logarithms.std()) / 2, 1e-3))
    shares = np.full(CLASSES, 1 / CLASSES)
    coefficients = np.zeros(basis.shape[1])
    for _ in range(ROUNDS):
        flat = (logarithms - basis @ coefficients)[:, None]
        density = shares / deviations * np.exp(-0.5 * ((flat - means) / deviations) ** 2)
        member = density / (density.sum(axis=1, keepdims=True) + 1e-6)
        total = member.sum(axis=0) + 1e-9
        means = (member * flat).sum(axis=0) / total
        deviations = np.maximum(np.sqrt((member * (flat - means) ** 2).sum(axis=0) / total), 1e-3)
        shares = total / total.sum()
        precision = member / deviations**2
        weight = precision.sum(axis=1)
        expected = (precision * means).sum(axis=1) / np.maximum(weight, 1e-9)
        weighted = basis * weight[:, None]
        normal = basis.T @ weighted + 1e-6 * weight.sum() * np.eye(basis.shape[1])
        coefficients = np.linalg.solve(normal, weighted.T @ (logarithms - expected))
    return coefficients


def _axis(brain: NDArray[np.bool_], axis: int) -> Floats:
    """The coordinate along one axis, -1 to 1 from end to end of the brain."""
    hit = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
    middle, reach = (hit[0] + hit[-1]) / 2, max((hit[-1] - hit[0]) / 2, 1)
    along: Floats = (np.arange(brain.shape[axis]) - middle) / reach
    return along
