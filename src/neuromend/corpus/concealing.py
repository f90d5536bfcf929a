"""Hide the tissue under a mask, in every picture of it that a network is shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuromend.corpus.appearance import Array
from neuromend.corpus.holes import Mask
from neuromend.corpus.placing import interpolated
from neuromend.data.intensity import IntensityScale
from neuromend.methods.classical import harmonic


def conceal(
    clean: Array,
    seen: Array,
    mask: Mask,
    crop: tuple[slice, ...],
    gain: float = 1.0,
    reflect: NDArray[np.float64] | None = None,
) -> dict[str, Array]:
    """Hide the tissue under the mask, in every picture of it that the network is shown.

    Args:
        clean, seen: (x, y, z) the brain without and with noise, in a window that holds the crop.
        mask: (x, y, z) True where tissue is to be hidden; only inside the crop.
        crop: where the case lies in the window.
        gain: factor on the normalised intensities.
        reflect: (4, 4) crop voxel -> crop voxel; with it, ``base`` and ``mirror`` are given too.

    Returns:
        healthy (clean in the mask), voided, mask; base (the harmonic fill) and mirror (the base reflected: what is
        hidden is not in it). All have the size of the crop.
    """
    every_second = (slice(None, None, 2),) * 3  # an eighth of the voxels tells the percentiles
    scale = IntensityScale.estimate(seen[every_second], ~mask[every_second])
    voided = _normalised(seen, scale, gain)
    voided[mask] = 0
    hole = mask[crop]
    healthy = voided[crop].copy()
    healthy[hole] = _normalised(clean[crop][hole], scale, gain)
    case: dict[str, Array] = {"healthy": healthy, "voided": voided[crop], "mask": hole.astype(np.float32)}
    if reflect is not None:
        case["base"] = harmonic(voided[crop], hole)
        window = voided.copy()
        window[crop] = case["base"]
        # ``reflect`` speaks of voxels of the crop; the window begins earlier.
        offset = reflect[:3, 3] + [span.start for span in crop]
        case["mirror"] = interpolated(window, reflect[:3, :3], offset, hole.shape)
    return case


def _normalised(values: Array, scale: IntensityScale, gain: float) -> Array:
    """As ``IntensityScale.normalise``, in float32 and with a gain; the values are finite."""
    factor = gain / (scale.high - scale.low)
    scaled: Array = values * np.float32(factor)
    scaled -= np.float32(scale.low * factor)
    if scale.background is not None:
        scaled[values == scale.background] = 0
    return scaled
