"""The same brain is recognised however it was stored; other brains are not taken for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from neuromend.corpus import leaks
from neuromend.data.volume import read_volume

from .brains import MM, brain

Array = NDArray[np.float32]
SCALE = 900.0


def low(voxels: NDArray[Any], mm: float = MM) -> leaks.Brain:
    """The low-resolution pictures of a brain."""
    mean, share, _ = leaks.low_resolution(voxels, (mm, mm, mm), SCALE)
    return mean, share


def alike(one: leaks.Brain, other: leaks.Brain) -> float:
    """The correlation of two brains as they lie."""
    first, second = (leaks.describe(*b).astype(np.float32).ravel() for b in (one, other))
    return float(first @ second)


def noisy(voxels: Array) -> Array:
    rng = np.random.default_rng(3)
    return np.where(voxels > 0, np.clip(voxels + rng.normal(0, 60, voxels.shape), 1, None), 0)


def turned(voxels: Array) -> Array:
    turn = Rotation.from_euler("xyz", [3, 2, -3], degrees=True).as_matrix()
    middle = np.array(voxels.shape) / 2
    return ndimage.affine_transform(voxels, turn, middle - turn @ middle + [1, -0.5, 0], order=1)


COPIES: dict[str, Callable[[Array], tuple[Array, float]]] = {
    "re-scaled": lambda v: (v * 1.2, MM),
    "another contrast": lambda v: (SCALE * (v / SCALE) ** 0.8, MM),
    "cropped": lambda v: (v[1:-1, 2:-1, 1:-2], MM),
    "padded": lambda v: (np.pad(v, ((9, 0), (3, 4), (0, 11))), MM),
    "noisy": lambda v: (noisy(v), MM),
    "resampled": lambda v: (ndimage.zoom(v, 2, order=1, grid_mode=True, mode="grid-constant"), MM / 2),
    "one slice less": lambda v: (v[:, :, 6:], MM),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_recognised(how: str) -> None:
    original = brain(1).astype(np.float32)
    copy, mm = COPIES[how](original)
    assert alike(low(original), low(copy, mm)) > leaks.CANDIDATE
    assert leaks.aligned_correlation(low(original), low(copy, mm)) > leaks.SAME_SCAN


def test_a_turned_copy_is_recognised_once_it_is_aligned() -> None:
    original = brain(1).astype(np.float32)
    copy = low(turned(original))
    assert leaks.aligned_correlation(low(original), copy) > max(0.95, alike(low(original), copy))


def test_other_brains_are_not_taken_for_copies() -> None:
    brains = [low(brain(seed)) for seed in range(6)]
    descriptors = np.stack([leaks.describe(*each) for each in brains])
    assert leaks.find_twins(descriptors, leaks.CANDIDATE) == []
    assert leaks.aligned_correlation(brains[0], brains[1]) < leaks.SAME_PERSON


def test_a_mirrored_copy_is_found_as_such() -> None:
    brains = [low(brain(seed)) for seed in (1, 2)]
    brains.append(low(brain(1)[::-1]))
    (pair,) = leaks.find_twins(np.stack([leaks.describe(*each) for each in brains]), leaks.CANDIDATE)
    assert (pair.first, pair.second, pair.mirrored) == (0, 2, True)


def test_more_brains_than_one_block_are_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "ROWS_AT_ONCE", 2)
    descriptors = np.stack([leaks.describe(*low(brain(seed))) for seed in (1, 2, 3, 2, 1)])
    found = {(pair.first, pair.second) for pair in leaks.find_twins(descriptors, 0.98)}
    assert found == {(0, 4), (1, 3)}


def test_an_empty_picture_is_like_nothing() -> None:
    nothing = low(np.zeros((20, 22, 24), np.float32))
    descriptor = leaks.describe(*nothing)
    assert not descriptor.any()
    assert leaks.find_twins(np.stack([descriptor, descriptor]), leaks.CANDIDATE) == []
    assert leaks.aligned_correlation(nothing, nothing) == 0


def test_the_matrix_leads_from_the_voxels_to_the_picture() -> None:
    voxels = brain(4)
    mean, share, matrix = leaks.low_resolution(voxels, (MM, MM, MM), SCALE)
    middle = matrix @ [*(np.array(np.nonzero(voxels)).mean(axis=1)), 1]
    assert np.allclose(middle[:3], (np.array(leaks.GRID_SHAPE) - 1) / 2, atol=0.1)
    assert mean.shape == share.shape == leaks.GRID_SHAPE


@pytest.mark.shared
@pytest.mark.parametrize(("first", "second", "same"), [("1003", "1023", True), ("1015", "1110", False)])
def test_two_scans_of_one_person_are_recognised_and_two_persons_are_not(
    first: str, second: str, same: bool
) -> None:
    """TR-08 on the hardest real pairs: the least alike scans of one person, and very similar brains of two."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "healthy" / "oasis"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    scans = [read_volume(folder / f"{name}_T1w.nii.gz") for name in (first, second)]
    one, other = (leaks.low_resolution(scan.values, scan.spacing_mm, 200.0)[:2] for scan in scans)
    found = leaks.aligned_correlation(one, other)
    assert (found > leaks.SAME_SCAN) == same
    assert (found > leaks.SAME_PERSON) == same
