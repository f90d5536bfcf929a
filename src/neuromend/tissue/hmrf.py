"""Three tissues of a T1-weighted brain: cerebrospinal fluid, grey matter, white matter.

Idea: the hidden Markov random field of Zhang, Brady and Smith 2001, IEEE Trans. Med. Imaging 20: 45-57 (also behind
FSL's FAST): a voxel takes the tissue that fits its intensity and its neighbours. The field is dipy's
(``dipy.segment.mrf.IteratedConditionalModes``), the intensities are those of ``mixture``, after ``bias``.

Why not dipy's ``TissueClassifierHMRF`` as a whole: it gives the background random values from a generator
without a seed and lets them take part in the statistics, and it knows neither bias field nor mixtures; so two runs
on one scan differ. Here the background is fixed, and the same scan gives the same labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.errors import InputError, MissingInputError
from neuromend.tissue.bias import correct_bias
from neuromend.tissue.mixture import fit

CSF, GM, WM = 1, 2, 3
TISSUES: dict[str, int] = {"CSF": CSF, "GM": GM, "WM": WM}
"""The labels, in the order of their brightness in a T1-weighted scan; 0 is outside the brain."""

BETA = 0.3
"""How much a neighbour of the same tissue counts: six neighbours weigh as much as a density six times as high."""

ROUNDS = 10
SETTLED = 1e-4
"""The labels stay when fewer than this share of the brain change."""

FEWEST = 1000
"""Brain voxels below which three distributions cannot be told apart."""

FORBIDDEN = 1e6
"""Cost that no neighbourhood outweighs: of tissue outside the brain, and of background inside."""


def segment(values: NDArray[np.floating[Any]], brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Label every voxel of the brain with its tissue.

    Args:
        values: (x, y, z) T1-weighted intensities, any units; not read outside ``brain``, where it must be finite
            and of the brain (lesions included: they get the tissue that they look like).
        brain: (x, y, z) True in the brain, with its inner and outer fluid.

    Returns:
        (x, y, z) uint8: 0 outside, else one of ``TISSUES``. The same for the same input.

    Raises:
        InputError: TI-02, too little or too uniform a brain for three tissues.
        MissingInputError: TI-01, dipy is not installed.
    """
    try:
        from dipy.segment.mrf import IteratedConditionalModes
    except ImportError:
        raise MissingInputError(
            "TI-01",
            "tissue segmentation needs dipy, which is not installed",
            why="its Markov random field smooths the labels",
            fix="pip install 'neuromend[tissue]', or --tool fast where FSL is installed",
        ) from None
    check_brain(values, brain)
    box = _box(brain)
    inside = np.pad(brain[box], 1)
    image = np.pad(correct_bias(values[box], brain[box]), 1).astype(np.float64)
    seen = image[inside]
    tissue_cost = fit(seen).cost(seen)
    cost = np.full((*image.shape, 1 + len(TISSUES)), FORBIDDEN)
    cost[~inside, 0] = 0.0
    cost[inside, 1:] = tissue_cost
    labels = np.zeros(image.shape, np.int16)
    labels[inside] = 1 + np.argmin(tissue_cost, axis=1)
    field = IteratedConditionalModes()
    for _ in range(ROUNDS):
        before = labels
        labels = np.asarray(field.icm_ising(cost, BETA, before)[0], np.int16)
        if np.count_nonzero(labels != before) < SETTLED * len(seen):
            break
    found = np.zeros(values.shape, np.uint8)
    found[box] = labels[1:-1, 1:-1, 1:-1].astype(np.uint8)
    return found


def volumes_ml(labels: NDArray[np.integer[Any]], affine: NDArray[np.float64]) -> dict[str, float]:
    """The volume of each tissue of ``TISSUES`` in millilitres.

    Args:
        labels: (x, y, z) from ``segment``.
        affine: (4, 4), voxel index to mm.
    """
    one = float(abs(np.linalg.det(np.asarray(affine, np.float64)[:3, :3]))) / 1000
    return {name: float(np.count_nonzero(labels == label)) * one for name, label in TISSUES.items()}


def check_brain(values: NDArray[np.floating[Any]], brain: NDArray[np.bool_]) -> None:
    """Refuse what cannot be three tissues (TI-02)."""
    count = int(np.count_nonzero(brain))
    seen = values[brain]
    finite = int(np.count_nonzero(np.isfinite(seen)))
    if count >= FEWEST and finite == count and np.percentile(seen, 90) > np.percentile(seen, 10):
        return
    if count < FEWEST:
        what = f"the brain has {count} voxels, expected at least {FEWEST}"
    elif finite < count:
        what = f"{count - finite} voxels of the brain are not finite, expected none"
    else:
        what = "80 % of the brain have one and the same value"
    raise InputError(
        "TI-02",
        what,
        why="three tissues are told apart by their intensities",
        fix="check that scan and brain mask belong together and are whole",
    )


def _box(brain: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box that holds the brain."""
    x, y, z = (np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3))
    return slice(x[0], x[-1] + 1), slice(y[0], y[-1] + 1), slice(z[0], z[-1] + 1)
