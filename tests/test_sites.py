from __future__ import annotations

import numpy as np
import pytest

from neuromend.sites import SITES, hole_site, site_map, site_of

SHAPE = (30, 32, 34)


@pytest.fixture
def tissue() -> np.ndarray:
    """Slabs along x: air, cortex (8 unlabelled rim), white matter, ventricle, deep grey, brainstem, cerebellum."""
    tissue = np.zeros(SHAPE, np.uint8)
    for start, label in ((3, 8), (4, 2), (8, 3), (15, 1), (18, 4), (22, 7), (25, 5)):
        tissue[start:] = label
    tissue[28:] = 0
    return tissue


def hole_at(x: int, width: int = 1) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[x - width : x + width + 1, 14:17, 15:18] = True
    return mask


@pytest.mark.parametrize(
    ("x", "site"),
    [(6, "cortex"), (10, "white-matter"), (13, "ventricle-border"), (16, "ventricle-border"), (21, "deep-grey"),
     (23, "brainstem"), (26, "cerebellum"), (3, "cortex"), (1, "cortex"), (28, "cerebellum")],
)  # fmt: skip
def test_the_site_is_the_anatomy_at_the_innermost_voxel(tissue: np.ndarray, x: int, site: str) -> None:
    mask = hole_at(x)
    assert site_of(mask, site_map(tissue, 1.0)) == site
    assert hole_site(mask, tissue, (1.0, 1.0, 1.0)) == site


def test_the_border_of_a_ventricle_is_measured_in_millimetres(tissue: np.ndarray) -> None:
    names = list(SITES)
    sites = site_map(tissue, (0.5, 1.0, 2.0))
    assert [names[i] for i in sites[[8, 9, 12, 14], 15, 15]] == ["white-matter", *["ventricle-border"] * 3]
    assert hole_site(hole_at(9), tissue, (0.5, 1.0, 2.0)) == "ventricle-border"
    assert hole_site(hole_at(9), tissue, (1.0, 1.0, 2.0)) == "white-matter"


def test_without_ventricles_nothing_lies_at_their_border(tissue: np.ndarray) -> None:
    tissue[tissue == 1] = 3
    assert hole_site(hole_at(16), tissue, (1.0, 1.0, 1.0)) == "white-matter"


def test_a_map_without_a_known_class_has_no_site() -> None:
    assert hole_site(hole_at(16), np.full(SHAPE, 8), (1.0, 1.0, 1.0)) is None
