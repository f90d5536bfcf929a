"""One level of the orthonormal three-dimensional Haar transform, forward and back.

A volume becomes eight half-size bands and nothing is lost: the transform is orthonormal, so white noise
stays white noise, squared errors keep their value, and the inverse is the transpose. Along each axis a
pair of neighbours (even, odd) becomes the low pass (even + odd)/sqrt(2) and the high pass
(even - odd)/sqrt(2) (Haar 1910; Mallat, A Wavelet Tour of Signal Processing, section 7.7).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BANDS = ("LLL", "LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH")
"""Names of the bands in channel order; the letters belong to dimensions 2, 3 and 4 of the tensor."""

_SCALE = 8**-0.5  # 1/sqrt(2) for each of the three axes, applied once


def haar(x: Tensor) -> Tensor:
    """Split a volume into its eight Haar bands.

    Args:
        x: (B, C, X, Y, Z), floating point, X, Y and Z even.

    Returns:
        (B, 8*C, X/2, Y/2, Z/2) in the dtype of ``x``: all C channels of LLL, then all of LLH, and so on
        in the order of ``BANDS``.

    Raises:
        ValueError: if ``x`` is not five-dimensional or a side is odd.
    """
    if x.dim() != 5 or any(side % 2 for side in x.shape[2:]):
        raise ValueError(f"haar needs (B, C, X, Y, Z) with even X, Y, Z; found shape {tuple(x.shape)}")
    bands: Tensor = _Haar.apply(x)  # type: ignore[no-untyped-call]
    return bands


def inverse_haar(bands: Tensor) -> Tensor:
    """Put the eight bands together again; the exact inverse of ``haar`` (and its transpose).

    Args:
        bands: (B, 8*C, X, Y, Z), band-major as ``haar`` returns it.

    Returns:
        (B, C, 2X, 2Y, 2Z) in the dtype of ``bands``.

    Raises:
        ValueError: if ``bands`` is not five-dimensional or its channels are no multiple of eight.
    """
    if bands.dim() != 5 or bands.shape[1] % 8:
        raise ValueError(f"inverse_haar needs (B, 8*C, X, Y, Z); found shape {tuple(bands.shape)}")
    x: Tensor = _InverseHaar.apply(bands)  # type: ignore[no-untyped-call]
    return x


# The derivative of an orthonormal map is its inverse. Saying so saves autograd from allocating one
# zero-filled full-size tensor for every strided slice.
class _Haar(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _split(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return inverse_haar(gradients[0])


class _InverseHaar(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bands: Tensor) -> Tensor:
        return _join(bands)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return haar(gradients[0])


def _split(x: Tensor) -> Tensor:
    # A butterfly an axis. Every pass puts a new band axis of two before the channels, so after three
    # passes the layout is (B, 2, 2, 2, C, x, y, z), which is band-major.
    for axis, band_axis in ((-3, 1), (-2, 2), (-1, 3)):
        even, odd = torch.unflatten(x, axis, (-1, 2)).unbind(axis)
        x = torch.stack((even + odd, even - odd), dim=band_axis)
    return x.flatten(1, 4).mul_(_SCALE)


def _join(bands: Tensor) -> Tensor:
    x = torch.unflatten(bands, 1, (2, 2, 2, -1))
    for axis, band_axis in ((-1, 3), (-2, 2), (-3, 1)):
        low, high = x.unbind(band_axis)
        x = torch.stack((low + high, low - high), dim=axis).flatten(axis - 1, axis)
    return x.mul_(_SCALE)
