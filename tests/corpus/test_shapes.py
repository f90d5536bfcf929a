"""Shapes of real lesions: which are read, which are drawn, and where they are put without a known affine."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neuromend.corpus.shapes import ShapeBook, ShapeSource, approximate_mni, load_shapes
from neuromend.data.lesions import LesionShape
from neuromend.data.symmetry import reflection
from neuromend.errors import InputError, MissingInputError

SHARED = Path(__file__).resolve().parents[3] / "shared"


def add_mask(folder: Path, name: str, side: int) -> None:
    folder.mkdir(exist_ok=True)
    mask = np.zeros((20, 22, 24), np.uint8)
    mask[2 : 2 + side, 3 : 3 + side, 4 : 4 + side] = 1
    nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / f"{name}.nii.gz")


def volumes(book: ShapeBook) -> list[list[int]]:
    return [[round(1000 * shape.volume_ml) for shape in source] for source in book.shapes]


def test_masks_are_read_sorted_and_empty_or_large_ones_left_out(tmp_path: Path) -> None:
    for name, side in (("a", 5), ("b", 0), ("c", 2), ("d", 15), ("e", 3)):
        add_mask(tmp_path / "stroke", name, side)
    add_mask(tmp_path / "ms", "x", 4)
    book = load_shapes(
        ShapeSource(tmp_path / "stroke", 0.8), ShapeSource(tmp_path / "ms", 0.2), largest_ml=1.0
    )
    assert volumes(book) == [[8, 27, 125], [64]]
    assert book.weights == (0.8, 0.2)
    assert book
    assert not ShapeBook()


def test_held_out_masks_are_those_of_the_dev_holes(tmp_path: Path) -> None:
    for number in range(9):
        add_mask(tmp_path / "s", f"sub-{number}", number + 1)
    book = load_shapes(ShapeSource(tmp_path / "s", hold_out=4))
    assert volumes(book) == [[n**3 for n in (2, 3, 4, 6, 7, 8)]]


def test_a_shape_of_about_the_wanted_volume_is_drawn() -> None:
    small = tuple(LesionShape(np.ones((1, 1, 1), bool), np.eye(4), 0.01 * (n + 1)) for n in range(100))
    large = tuple(LesionShape(np.ones((2, 1, 1), bool), np.eye(4), 1.0 + n) for n in range(100))
    book = ShapeBook((small, large), (0.5, 0.5))
    rng = np.random.default_rng(0)
    assert all(book.draw(rng, 80.0).volume_ml > 50 for _ in range(50))  # the small ones are not asked
    sizes = [book.draw(rng, 0.3).voxels.shape[0] for _ in range(200)]
    assert 60 < sizes.count(1) < 140
    assert book.draw(rng, 1e4).volume_ml > 60


def test_a_missing_folder_an_empty_one_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="folder of lesion shapes is not there") as missing:
        load_shapes(ShapeSource(tmp_path / "none"))
    assert (missing.value.code, missing.value.exit_status) == ("TR-32", 66)
    with pytest.raises(InputError, match="no usable lesion mask") as empty:
        load_shapes(ShapeSource(tmp_path))
    assert (empty.value.code, empty.value.exit_status, empty.value.path) == ("TR-32", 65, tmp_path)
    (tmp_path / "x.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read") as damaged:
        load_shapes(ShapeSource(tmp_path))
    assert (damaged.value.code, damaged.value.path) == ("TR-32", tmp_path / "x.nii.gz")


def test_mni_space_is_found_from_the_brains_own_axes() -> None:
    """A brain of average size, turned and shifted: its middle plane is x = 0, its ends are those of MNI space."""
    shape, spacing = (70, 90, 80), np.array([2.0, 2.0, 2.0])
    mirror = reflection(33.0, 0.1, 0.05, shape)
    points = np.argwhere(
        np.linalg.norm((np.moveaxis(np.indices(shape), 0, -1) - [33, 45, 40]) / [30, 40, 34], axis=-1) <= 1
    ).astype(float)
    to_mni = approximate_mni(points, spacing, mirror)
    mni = points @ to_mni[:3, :3].T + to_mni[:3, 3]
    low, high = np.percentile(mni, [1, 99], axis=0)
    np.testing.assert_allclose([low[1], high[1]], [-96.6, 63.3], atol=1)
    np.testing.assert_allclose([low[2], high[2]], [-56.2, 73.6], atol=1)
    mirrored = np.array([20.0, 30, 40, 1])
    x = (to_mni @ mirrored)[0]
    np.testing.assert_allclose((to_mni @ mirror @ mirrored)[0], -x, atol=1e-6)
    assert np.linalg.det(to_mni[:3, :3]) > 0


@pytest.mark.shared
def test_it_is_near_the_registered_affine_in_real_brains() -> None:
    folder = SHARED / "data" / "healthy" / "ixi-2mm"
    if not folder.is_dir():
        pytest.skip("the real scans are not beside the checkout")
    affines = json.loads((SHARED / "data" / "mni-to-subject.json").read_text())
    errors = []
    for path in sorted(folder.glob("*_T1w.nii.gz"))[:6]:
        image = nib.load(path)
        subject = np.array(affines[f"ixi2mm/{path.name.split('_')[0]}"]["mni_to_subject_ras"])
        known = np.linalg.inv(subject) @ image.affine
        points = np.argwhere(np.asarray(image.dataobj) > 0).astype(float)
        mirror = np.linalg.inv(known) @ np.diag([-1.0, 1, 1, 1]) @ known
        guess = approximate_mni(points, np.full(3, 2.0), mirror)
        difference = points @ (guess - known)[:3, :3].T + (guess - known)[:3, 3]
        errors.append(np.linalg.norm(difference, axis=1).mean())
    assert np.mean(errors) < 12, errors
