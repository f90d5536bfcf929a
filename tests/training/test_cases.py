"""Training cases: the same ones every time, from the right persons, and honest about what they hide."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.symmetry import reflection
from neuromend.methods.classical import harmonic
from neuromend.methods.fastwavelet3d import FastWavelet3D

from .conftest import load_script

SHARED = Path(__file__).resolve().parents[3] / "shared"
Case = dict[str, torch.Tensor]


@pytest.fixture
def make(data: Path, cases: ModuleType) -> Any:
    """Makes a list of cases; ``brains`` replaces the scans."""
    brains, shapes = cases.load_brains(data), cases.load_shapes(data)

    def build(seed: int = 5, *, plain: bool = False, brains: Any = brains) -> Any:
        return cases.Cases(brains, shapes, seed=seed, length=1000, plain=plain)

    build.brains = brains  # type: ignore[attr-defined]
    return build


def paths_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all images opened from now on."""
    names: list[str] = []
    load = nib.load

    def recorded(path: Path) -> Any:
        names.append(f"{Path(path).parts[-3]}/{Path(path).name}")
        return load(path)

    monkeypatch.setattr(nib, "load", recorded)
    return names


# Which data are read


def test_only_train_subjects_are_read_for_training(
    data: Path, cases: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = paths_read(monkeypatch)
    brains = cases.load_brains(data)
    assert sorted(name.split("/")[1].split("_")[0] for name in read) == ["1000", "IXI002", "IXI012", "seg01"]
    assert {kind: len(found) for kind, found in brains.items()} == {"1mm": 1, "2mm": 2, "labels": 1}


def test_only_dev_subjects_are_read_for_dev(
    data: Path, cases: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = paths_read(monkeypatch)
    brains = cases.load_brains(data, "dev")
    assert sorted(name.split("/")[1].split("_")[0] for name in read) == ["1001", "IXI013"]
    assert not brains["labels"]


def test_dev_shapes_and_training_shapes_share_no_mask(
    data: Path, cases: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = load_script("dev_cases", monkeypatch, "benchmarks")
    read = paths_read(monkeypatch)
    cases.load_shapes(data)
    training = {name for name in read if "lesion" in name}
    read.clear()
    for kind, stride in benchmark.STRIDES.items():
        benchmark._lesions(data / kind / "masks-mni", stride)
    benchmark._lesions.cache_clear()
    assert not training & set(read)
    assert training | set(read) == {f"stroke/sub-{n:02d}_lesion.nii.gz" for n in range(9)} | {
        f"ms/sub-{n:02d}_lesion.nii.gz" for n in range(5)
    }


@pytest.mark.shared
def test_the_real_dev_persons_and_masks_are_kept_out_of_training(
    cases: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (SHARED / "data" / "subjects.tsv").exists():
        pytest.skip("the real scans are not beside the checkout")
    benchmark = load_script("dev_cases", monkeypatch, "benchmarks")
    read: list[Path] = []
    empty = cases.LesionShape(np.ones((1, 1, 1), bool), np.eye(4), 1.0)
    for module in (cases, benchmark):
        monkeypatch.setattr(module.LesionShape, "read", lambda path: read.append(path) or empty)
    cases.load_shapes(SHARED / "data")
    training = set(read)
    read.clear()
    for kind, stride in benchmark.STRIDES.items():
        benchmark._lesions(SHARED / "data" / kind / "masks-mni", stride)
    benchmark._lesions.cache_clear()
    assert len(training) > 700
    assert len(read) > 200
    assert not training & set(read)


def test_shapes_that_are_empty_or_too_large_are_left_out(data: Path, cases: ModuleType) -> None:
    shapes = cases.load_shapes(data, largest_ml=0.25)
    assert [round(1000 * s.volume_ml) for s in shapes["stroke"]] == [27, 64]  # 2 and 3 voxels wide: no. 1, 2


# The same cases every time


def test_case_i_is_always_the_same_whatever_was_drawn_before(make: Any) -> None:
    first, again = make(), make()
    sequence = [first[i] for i in range(3)]
    for i in (2, 0):
        for name, tensor in again[i].items():
            assert torch.equal(tensor, sequence[i][name]), name


def test_other_numbers_and_other_seeds_give_other_cases(make: Any) -> None:
    one, number, seed = make()[0], make()[1], make(6)[0]
    for other in (number, seed):
        same = other["mask"].shape == one["mask"].shape and torch.equal(other["mask"], one["mask"])
        assert not same


def test_a_case_holds_five_volumes_that_the_network_takes(make: Any) -> None:
    cases = make()
    for i in range(12):
        case = cases[i]
        assert list(case) == ["healthy", "voided", "mask", "base", "mirror"]
        shape = case["mask"].shape
        for name, tensor in case.items():
            assert tensor.dtype == torch.float32, name
            assert tensor.shape == shape
            assert torch.isfinite(tensor).all(), name
        assert shape[0] == 1
        assert all(side % 8 == 0 for side in shape[1:])
        assert set(case["mask"].unique().tolist()) <= {0.0, 1.0}


def test_the_real_crops_suit_the_default_network(cases: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sizes = {cases.crop_size(spacing, ml) for spacing in (1.0, 1.5, 1.7, 2.2) for ml in (1, 10, 100)}
    assert len(sizes) == 5
    multiple = FastWavelet3D(FastWavelet3D.PRESETS["default"]).multiple
    assert all(side % multiple == 0 for size in sizes for side in size)


# Honest about what they hide


@pytest.mark.parametrize("plain", [False, True])
def test_the_hole_is_never_empty_and_holds_nothing(make: Any, plain: bool) -> None:
    cases = make(plain=plain)
    for i in range(12):
        case = cases[i]
        hole = case["mask"] > 0
        assert hole.sum() >= 8
        assert not case["voided"][hole].any()
        assert torch.equal(case["voided"][~hole], case["healthy"][~hole])
        fill = harmonic(case["voided"][0].numpy(), hole[0].numpy())
        np.testing.assert_allclose(case["base"][0].numpy(), fill, atol=2e-2)  # it was made before a flip
        assert torch.equal(case["base"][~hole], case["voided"][~hole])


def other_tissue(brain: Any, hole: NDArray[np.bool_]) -> Any:
    """The same brain with other tissue under the hole (never 0, so that its outline stays)."""
    voxels = brain.voxels.copy()
    voxels[hole] = np.where(voxels[hole] > 0, 1 + (voxels[hole].astype(int) + 90) % 255, 0)
    return type(brain)(voxels, brain.spacing_mm, brain.to_mni, brain.mirror)


def hole_in_brain(case: Case, place: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask of a case that was cut out without interpolation, in the brain's own voxels."""
    hole = np.zeros(shape, bool)
    points = np.argwhere(case["mask"][0].numpy() > 0) + place[:3, 3].astype(int)
    hole[tuple(points.T)] = True
    return hole


def test_what_the_hole_hides_is_nowhere_in_what_the_network_sees(
    make: Any, cases: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tissue under the hole changes the answer and not one bit of the question: image, fill or mirror."""
    places: list[NDArray[np.float64]] = []
    placement = cases.Cases._placement

    def recorded(self: Any, *args: Any) -> NDArray[np.float64]:
        places.append(placement(self, *args))
        return places[-1]

    monkeypatch.setattr(cases.Cases, "_placement", recorded)
    seen_in_mirror = 0
    for index in range(10):
        for kind in ("1mm", "2mm"):
            brain = make.brains[kind][0]
            places.clear()
            before = make(plain=True, brains={"1mm": [], "2mm": [], "labels": [], kind: [brain]})[index]
            hole = hole_in_brain(before, places[-1], brain.voxels.shape)
            changed = other_tissue(brain, hole)
            after = make(plain=True, brains={"1mm": [], "2mm": [], "labels": [], kind: [changed]})[index]
            assert not torch.equal(before["healthy"], after["healthy"])
            for name in ("mask", "voided", "base", "mirror"):
                assert torch.equal(before[name], after[name]), (index, kind, name)
            turned = brain.mirror @ places[-1]
            shown = ndimage.affine_transform(
                hole.astype(float), turned[:3, :3], turned[:3, 3], before["mask"].shape[1:], order=1
            )
            seen_in_mirror += int((shown > 0).sum())
    assert seen_in_mirror > 1000  # the mirror did look at the holes, so the test has tested something


@pytest.mark.parametrize("roll", [0.0, 0.15])
def test_concealing_forgets_every_voxel_under_the_mask(cases: ModuleType, roll: float) -> None:
    """The same with noise, gain and any reflection, across the middle plane too."""
    rng, shape = np.random.default_rng(3), (24, 20, 28)
    reflect = reflection(11.3, 0.1, roll, shape)
    mask = np.zeros(shape, bool)
    mask[9:16, 6:12, 10:17] = mask[18:21, 13:17, 4:8] = True
    clean = rng.random(shape, np.float32)
    seen = clean + 0.1 * rng.random(shape, np.float32)
    questions = []
    for content in (0.0, 0.7, rng.random(shape, np.float32)):
        hidden = np.where(mask, np.float32(content), seen)
        mirror = ndimage.affine_transform(hidden, reflect[:3, :3], reflect[:3, 3], order=1)
        questions.append(cases.conceal(clean, hidden, mirror, mask, reflect, 1.1))
    for name in ("voided", "base", "mirror", "mask"):
        for other in questions[1:]:
            assert np.array_equal(questions[0][name], other[name]), name
    assert not questions[0]["voided"][mask].any()


def test_the_mirror_shows_the_other_half(cases: ModuleType) -> None:
    rng, shape = np.random.default_rng(3), (24, 20, 28)
    reflect = reflection(11.5, 0.0, 0.0, shape)
    mask = np.zeros(shape, bool)
    mask[4:8, 6:12, 10:17] = True
    seen = rng.random(shape, np.float32)
    mirror = ndimage.affine_transform(seen, reflect[:3, :3], reflect[:3, 3], order=1)
    case = cases.conceal(seen, seen, mirror, mask, reflect)
    np.testing.assert_allclose(case["mirror"][mask], case["healthy"][::-1][mask], atol=1e-5)
    opposite = mask[::-1]
    np.testing.assert_allclose(case["mirror"][opposite], case["base"][::-1][opposite], atol=1e-5)


def test_training_and_filling_show_the_network_the_same_question(make: Any, cases: ModuleType) -> None:
    """What a case holds as base is what the method computes from its voided image."""
    module = FastWavelet3D(FastWavelet3D.PRESETS["tiny"])
    case = make(plain=True)[1]
    condition = module.condition(case["voided"][None], case["mask"][None])
    assert torch.equal(condition.base[0], case["base"])
