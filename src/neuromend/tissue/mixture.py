"""How the intensities of three tissues and of their mixtures are distributed in one brain.

Idea: the partial-volume mixture of Shattuck et al. 2001, NeuroImage 13: 856-876. Beside each pure tissue stand the
voxels that two tissues share, of any proportion, with a mean between the two; without them the little fluid
of a tight brain mask disappears into grey matter. All means and widths are estimated together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PARTS = 9
"""Proportions between two tissues: a tenth to nine tenths."""

NARROWEST, WIDEST = np.array([0.045, 0.045, 0.04]), np.array([0.07, 0.07, 0.055])
"""Standard deviations that a tissue may have, dark to bright, in units of bright tissue: noise and variety. Chosen
on seven of the development scans (two data sets, 1 and 2 mm); with free widths one class swallows its neighbour."""

ROUNDS = 300
BINS, BRIGHTEST = 512, 1.3
"""The histogram that is fitted: of intensities up to this, in units of bright tissue."""

_STEPS = np.arange(1, PARTS + 1) / (PARTS + 1)
# Rows: what share of each of the three tissues a component has; the three pure ones, then the two kinds of mixture.
_SHARES = np.array(
    [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], *([1 - a, a, 0] for a in _STEPS), *([0, 1 - a, a] for a in _STEPS)]
)
_KIND = np.array([0, 1, 2, *[3] * PARTS, *[4] * PARTS])
_MOST = _SHARES.argmax(axis=1)


@dataclass(frozen=True, eq=False)
class Mixture:
    """The fitted distribution.

    Attributes:
        means, widths: (3,) of the pure tissues, dark to bright.
        weights: (5,) of the three tissues and the two kinds of mixture; their sum is 1.
    """

    means: Floats
    widths: Floats
    weights: Floats

    def cost(self, intensities: Floats) -> Floats:
        """Negative logarithm of the joint density with each tissue as the one that fills most of the voxel, (n, 3).

        What is darker than fluid or brighter than white matter counts like these.
        """
        grid = np.linspace(0, BRIGHTEST, 4 * BINS)
        density = _densities(np.clip(grid, self.means[0], self.means[2]), self)
        table = np.stack([density[:, tissue == _MOST].sum(axis=1) for tissue in range(3)], axis=1)
        # Where grey and white matter have little contrast their shares are the least certain of all that is fitted,
        # and a few lesions would tip them; so the two count alike, whatever their shares.
        table[:, 1:] /= np.bincount(_MOST, self.weights[_KIND] / np.bincount(_KIND)[_KIND])[1:]
        table[:, 0] /= (1 - self.weights[0] - self.weights[3] / 2) / 2
        nearest = np.clip(np.rint(intensities / BRIGHTEST * (len(grid) - 1)), 0, len(grid) - 1).astype(int)
        found: Floats = -np.log(table + 1e-12)[nearest]
        return found


def fit(intensities: Floats) -> Mixture:
    """Estimate the mixture by expectation maximisation.

    Args:
        intensities: (n,) of the voxels of one brain, without bias field, bright tissue about 1.
    """
    counts, edges = np.histogram(np.clip(intensities, 0, BRIGHTEST), BINS, (0, BRIGHTEST))
    middles = (edges[1:] + edges[:-1]) / 2
    found = Mixture(
        np.quantile(intensities, [0.03, 0.4, 0.85]),
        WIDEST,
        np.array([0.1, 0.3, 0.3, 0.15, 0.15]),
    )
    for _ in range(ROUNDS):
        density = _densities(middles, found)
        member = density / (density.sum(axis=1, keepdims=True) + 1e-9) * counts[:, None]
        precise = member / (_SHARES @ found.widths) ** 2
        # The means of all components follow from three unknowns: weighted least squares.
        normal = _SHARES.T @ (precise.sum(axis=0)[:, None] * _SHARES) + 1e-9 * np.eye(3)
        means = np.linalg.solve(normal, _SHARES.T @ (precise * middles[:, None]).sum(axis=0))
        squares = member[:, :3] * (middles[:, None] - means) ** 2
        widths = np.sqrt(squares.sum(axis=0) / (member[:, :3].sum(axis=0) + 1e-9))
        weights = np.bincount(_KIND, member.sum(axis=0))
        found = Mixture(np.sort(means), np.clip(widths, NARROWEST, WIDEST), weights / weights.sum())
    return found


def _densities(intensities: Floats, mixture: Mixture) -> Floats:
    """The weighted density of every component, (n, 3 + 2 * PARTS)."""
    widths = _SHARES @ mixture.widths
    weights = mixture.weights[_KIND] / np.bincount(_KIND)[_KIND]
    away = (intensities[:, None] - _SHARES @ mixture.means) / widths
    density: Floats = weights / widths * np.exp(-0.5 * away**2)
    return density
