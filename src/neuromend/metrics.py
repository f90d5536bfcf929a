"""How near a fill comes to the hidden truth: the BraTS inpainting challenge's scores, and ours.

``challenge_scores`` follows the definitions of the challenge's own package (``inpainting`` on the
Python package index, version 0.0.12), written from their description; the tests compare the two.
Two properties of these definitions matter to a reader of the numbers:

- SSIM is two-dimensional, on the (y, z) plane of every x, and everything outside the mask is set to
  zero in both images, so windows that cross the border are flattered.
- The intensity limits are percentiles of the voided image with its background, which fills most of a
  skull-stripped volume, so the limits depend on how much air surrounds the head.

``own_scores`` adds what they cannot see: a true 3-D SSIM with the surrounding tissue kept, the seam, the
sharpness and the distribution of intensities. All arrays are (x, y, z) on one grid; ``mask`` is True
where tissue was invented; every score looks at the voxels of the mask only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from neuromend.errors import GeometryError, InputError

Volume = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]

# The package's names, in its order of meaning; `psnr_max` and `psnr_max_eps` are its `psnr` and
# `psnr_eps` as they were before August 2025 (range = the largest true value instead of max - min).
CHALLENGE_COLUMNS = ("ssim", "mse", "rmse", "mae", "msle", "psnr", "psnr_eps", "psnr_01", "psnr_01_eps")
OLDER_COLUMNS = ("psnr_max", "psnr_max_eps")
OWN_COLUMNS = ("ssim_3d", "seam", "sharpness", "histogram_distance", "gradient_distance")

PERCENTILES = (0.5, 99.5)  # of the voided image, background included (challenge)
SIGMA = 1.5  # Gaussian window of SSIM, in voxels (Wang et al. 2004, section III-B)
RADIUS = 5  # 11 taps (same source)
K1, K2 = 0.01, 0.03  # same source
EPSILON = float(np.finfo(np.float64).eps)  # what the `_eps` columns add to the squared error

_OFFSETS = np.arange(-RADIUS, RADIUS + 1)
_TAPS = np.exp(-0.5 * (_OFFSETS / SIGMA) ** 2)
_TAPS /= _TAPS.sum()


def challenge_scores(prediction: Volume, truth: Volume, voided: Volume, mask: Mask) -> dict[str, float]:
    """The challenge's scores of one case.

    Args:
        prediction: (x, y, z), the filled image, in the intensity units of ``truth``.
        truth: (x, y, z), the healthy image.
        voided: (x, y, z), what the model was given: ``truth`` with the hole set to 0. It gives the
            intensity limits.
        mask: (x, y, z), True where the score is taken (the challenge: ``mask-healthy``).

    Returns:
        ``CHALLENGE_COLUMNS`` and then ``OLDER_COLUMNS``. SSIM and the PSNRs (dB) are better when high,
        the others when low. A flat truth has no range, so its ``psnr`` is NaN; a perfect fill has
        ``psnr`` infinite. Values that are not finite make all scores NaN.

    Raises:
        GeometryError: MA-09, where the shapes differ.
        InputError: MA-01, where the mask is empty.
    """
    check_grids(mask, prediction, truth, voided)
    limits = intensity_limits(voided)
    guess, true = scale(prediction[mask], limits), scale(truth[mask], limits)
    squared = float(np.mean((guess - true) ** 2))
    low, high = float(true.min()), float(true.max())
    clipped = float(np.mean((guess.clip(low, high) - true) ** 2))
    return {
        "ssim": _challenge_ssim(prediction, truth, mask, limits),
        "mse": squared,
        "rmse": squared**0.5,
        "mae": float(np.mean(np.abs(guess - true))),
        "msle": float(np.mean((np.log1p(guess) - np.log1p(true)) ** 2)),
        # With a range from the data the package also clips the prediction to it, but not in `_eps`.
        "psnr": _psnr(clipped, high - low),
        "psnr_eps": _psnr(squared + EPSILON, high - low),
        "psnr_01": _psnr(squared, 1.0),
        "psnr_01_eps": _psnr(squared + EPSILON, 1.0),
        "psnr_max": _psnr(squared, high),
        "psnr_max_eps": _psnr(squared + EPSILON, high),
    }


def own_scores(prediction: Volume, truth: Volume, voided: Volume, mask: Mask) -> dict[str, float]:
    """Our scores of one case (``OWN_COLUMNS``); arguments and errors as in ``challenge_scores``.

    ``ssim_3d`` and the two distances are taken on intensities scaled by the challenge's limits, so that
    they compare across scanners; ``seam`` and ``sharpness`` are ratios with 1 as the ideal.
    """
    check_grids(mask, prediction, truth, voided)
    box = bounding_box(mask, (RADIUS, RADIUS, RADIUS))
    limits = intensity_limits(voided)
    inside = mask[box]
    true = scale(truth[box], limits)
    pasted = np.where(inside, scale(prediction[box], limits), true)
    tissue = truth[box] != 0
    return {
        "ssim_3d": ssim_3d(pasted, true, inside),
        "seam": seam_score(pasted, true, inside, tissue),
        "sharpness": sharpness_ratio(pasted, true, inside),
        "histogram_distance": _distance(pasted[inside], true[inside]),
        "gradient_distance": _distance(_inner_steps(pasted, inside), _inner_steps(true, inside)),
    }


def intensity_limits(voided: Volume) -> tuple[float, float]:
    """The challenge's limits: the 0.5 (at least 0) and 99.5 percentiles with the background included."""
    # In the order of the memory: a copy in another order takes longer than the percentiles.
    low, high = np.percentile(np.asarray(voided, dtype=np.float64).ravel(order="K"), PERCENTILES)
    return max(float(low), 0.0), float(high)


def scale(image: Volume, limits: tuple[float, float]) -> Floats:
    """Clip to ``limits`` and map them to [0, 1]; NaN everywhere where the limits do not differ."""
    low, high = limits
    if not high > low:
        return np.full(np.shape(image), np.nan)
    return ((np.asarray(image, dtype=np.float64) - low) / (high - low)).clip(0.0, 1.0)


def ssim_3d(prediction: Floats, truth: Floats, mask: Mask, *, data_range: float = 1.0) -> float:
    """True 3-D SSIM with the context kept, averaged over the voxels of the mask.

    Args:
        prediction: (x, y, z), scaled; only its voxels inside the mask are used, the rest is ``truth``.
        truth: (x, y, z), scaled.
        mask: (x, y, z), not empty.
        data_range: the distance of the darkest from the brightest possible value.

    Returns:
        At most 1 (equal). Gaussian window of sigma 1.5 voxels and 11 taps on each axis, borders of the
        volume mirrored, as in Wang et al. 2004 extended by one dimension.
    """
    box = bounding_box(mask, (RADIUS, RADIUS, RADIUS))
    inside, true = mask[box], truth[box]
    pasted = np.where(inside, prediction[box], true)
    return float(_ssim_map(pasted, true, data_range, axes=(0, 1, 2))[inside].mean())


def seam_score(prediction: Volume, truth: Volume, mask: Mask, tissue: Mask | None = None) -> float:
    """Steps of intensity across the border of the hole, relative to those of the real tissue there.

    Every pair of face neighbours with one voxel inside the mask and one outside is a step. The score is
    the sum of the absolute steps from the fill to the true surroundings, divided by that of the true
    image. 1: as in real tissue; above: a visible edge; below: smoother than tissue is.

    Args:
        prediction: (x, y, z); only its voxels inside the mask are used.
        truth: (x, y, z).
        mask: (x, y, z).
        tissue: (x, y, z), where given, both voxels of a step must be True (leaves out the step from
            the brain to the blanked background).

    Returns:
        The ratio; NaN where no step is left or the true image is flat there.
    """
    pasted = np.where(mask, np.asarray(prediction, dtype=np.float64), truth)
    true = np.asarray(truth, dtype=np.float64)
    allowed = np.ones_like(mask) if tissue is None else tissue
    filled_steps = true_steps = 0.0
    for axis in range(3):
        near, far = _neighbours(axis)
        border = (mask[near] != mask[far]) & allowed[near] & allowed[far]
        filled_steps += float(np.abs(pasted[far] - pasted[near])[border].sum())
        true_steps += float(np.abs(true[far] - true[near])[border].sum())
    return filled_steps / true_steps if true_steps > 0 else float("nan")


def sharpness_ratio(prediction: Volume, truth: Volume, mask: Mask) -> float:
    """Mean absolute step between neighbours inside the mask, relative to the true image's.

    1: as sharp as the truth; below: blurred; above: noisy. NaN where the truth is flat.
    """
    true = float(_inner_steps(truth, mask).sum())
    return float(_inner_steps(prediction, mask).sum()) / true if true > 0 else float("nan")


def bounding_box(mask: Mask, margins: Sequence[int]) -> Box:
    """The smallest box around the mask, widened by ``margins`` voxels an axis, cut at the volume."""
    edges = []
    for axis, margin in enumerate(margins):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        edges.append(slice(max(int(hit[0]) - margin, 0), min(int(hit[-1]) + margin + 1, mask.shape[axis])))
    return edges[0], edges[1], edges[2]


def _challenge_ssim(prediction: Volume, truth: Volume, mask: Mask, limits: tuple[float, float]) -> float:
    """SSIM on (y, z) planes with everything outside the mask set to 0, averaged over the mask.

    Only the box of the mask is computed. That changes nothing: windows reach ``RADIUS`` voxels in y and
    z and none in x, so with that margin no window of a mask voxel crosses an artificial border.
    """
    box = bounding_box(mask, (0, RADIUS, RADIUS))
    inside = mask[box]
    guess = scale(np.where(inside, prediction[box], 0), limits)
    true = scale(np.where(inside, truth[box], 0), limits)
    # The range is that of the whole blanked volume: the zeros outside the box count too.
    outside = scale(np.zeros(0 if mask.all() else 1), limits)
    data_range = max(float(np.ptp(np.append(image, outside))) for image in (guess, true))
    return float(_ssim_map(guess, true, data_range, axes=(1, 2))[inside].mean())


def _ssim_map(first: Floats, second: Floats, data_range: float, axes: Sequence[int]) -> Floats:
    """SSIM at every voxel (Wang et al. 2004, eq. 13), windows along ``axes``, borders mirrored."""

    def smooth(image: Floats) -> Floats:
        for axis in axes:
            image = correlate1d(image, _TAPS, axis=axis, mode="mirror")
        return image

    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean1, mean2 = smooth(first), smooth(second)
    product = mean1 * mean2
    power = mean1**2 + mean2**2
    # Rounding may leave a variance just below 0.
    variances = (smooth(first**2) - mean1**2).clip(0) + (smooth(second**2) - mean2**2).clip(0)
    covariance = smooth(first * second) - product
    with np.errstate(invalid="ignore"):
        ssim: Floats = (2 * product + c1) * (2 * covariance + c2) / ((power + c1) * (variances + c2))
    return ssim


def _psnr(squared_error: float, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB; infinite without error, NaN for 0/0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.float64(data_range) ** 2 / np.float64(squared_error)))


def _inner_steps(image: Volume, mask: Mask) -> Floats:
    """Absolute differences of all face neighbours that lie both inside the mask, as one flat array."""
    values = np.asarray(image, dtype=np.float64)
    steps = []
    for axis in range(3):
        near, far = _neighbours(axis)
        steps.append(np.abs(values[far] - values[near])[mask[near] & mask[far]])
    return np.concatenate(steps)


def _neighbours(axis: int) -> tuple[Box, Box]:
    """Two views of a volume, the second shifted by one voxel along ``axis``."""
    whole, near, far = slice(None), slice(None, -1), slice(1, None)
    first, second = [whole] * 3, [whole] * 3
    first[axis], second[axis] = near, far
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def _distance(first: Floats, second: Floats) -> float:
    """Earth mover's distance of two samples of one size, in their units; NaN where they are empty."""
    return float(np.abs(np.sort(first) - np.sort(second)).mean()) if first.size else float("nan")


def check_grids(mask: Mask, *images: Volume) -> None:
    """Refuse an empty mask and grids of different shapes before anything is computed."""
    for image in images:
        if image.shape != mask.shape:
            raise GeometryError(
                "MA-09",
                f"the image has shape {image.shape} and the mask {mask.shape}",
                why="scores compare voxel with voxel, so all volumes must lie on one grid",
                fix="resample the result to the grid of the true scan first",
            )
    if not mask.any():
        raise InputError(
            "MA-01",
            "the mask is empty: 0 voxels are to be scored",
            why="every score is a mean over the voxels of the mask",
            fix="give the mask that was filled (the challenge: mask-healthy)",
        )
