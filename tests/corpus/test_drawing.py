"""Training cases: the same ones every time, and honest about what they hide."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.corpus import drawing, holes, placing
from neuromend.corpus.cache import CaseCache, write_manifest
from neuromend.corpus.concealing import conceal
from neuromend.corpus.drawing import TrainingCases
from neuromend.corpus.recipe import RECIPES, Recipe
from neuromend.corpus.shapes import ShapeBook
from neuromend.data.lesions import LesionShape
from neuromend.data.symmetry import reflection
from neuromend.errors import InputError
from neuromend.methods.classical import harmonic
from neuromend.methods.fastwavelet3d import FastWavelet3D

from .cache_cases import row_of

Case = dict[str, torch.Tensor]
FINE, COARSE = (44, 52, 48), (36, 44, 40)
TURN = ((0.98, 0.05, 0.0, 1.5), (-0.05, 1.02, 0.1, -1.0), (0.0, -0.1, 0.97, 0.7), (0.0, 0.0, 0.0, 1.0))


def brain(shape: tuple[int, int, int], seed: int) -> NDArray[np.uint8]:
    """A textured ellipsoid, 1..255, in 0; no axis is a symmetry of its texture."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    a, b, c = rng.uniform(6, 12, 3)
    tissue = 150 + 60 * np.sin(a * x + 1) * np.cos(b * y) + 30 * np.sin(c * z) + rng.normal(0, 3, shape)
    return np.where(x**2 + y**2 + z**2 < 0.8, np.clip(tissue, 1, 255), 0).astype(np.uint8)


def mirror_of(shape: tuple[int, int, int], roll: float = 0.05) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(line) for line in reflection((shape[0] - 1) / 2 + 0.3, 0.03, roll, shape).tolist())


def centred(shape: tuple[int, int, int], spacing: float) -> tuple[tuple[float, ...], ...]:
    """Voxel -> something like MNI mm."""
    to_mm = np.diag([spacing, spacing, spacing, 1.0])
    to_mm[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    return tuple(tuple(line) for line in (np.array(TURN) @ to_mm).tolist())


def make_cache(folder: Path, change: NDArray[np.bool_] | None = None, only: str = "") -> CaseCache:
    """Brains at 1 and 2 mm, a map of classes, one with a lesion and a stored mask, one without affines."""
    fine, coarse, ill = brain(FINE, 1), brain(COARSE, 2), brain(FINE, 3)
    lesion, hole = np.zeros(FINE, bool), np.zeros(FINE, bool)
    lesion[10:18, 20:30, 18:28] = hole[26:34, 22:30, 20:27] = True
    two = {"spacing_mm": (2.0, 2.0, 2.0)}
    known: dict[str, Any] = {"mirror": mirror_of(FINE), "to_mni": centred(FINE, 1.0), "stored_scale": 255.0}
    plans: dict[str, tuple[dict[str, NDArray[Any]], dict[str, Any]]] = {
        "fine": ({"healthy": fine}, known),
        "coarse": (
            {"healthy": coarse},
            {**known, "mirror": mirror_of(COARSE), "to_mni": centred(COARSE, 2), **two},
        ),
        "ill": ({"healthy": ill, "lesion": lesion, "mask-healthy": hole}, known),
        "bare": ({"healthy": fine[:-2, :-1]}, {"stored_scale": 255.0}),
        "labels": ({"healthy": (fine // 30).astype(np.uint8)}, {"kind": "labels", "stored_scale": 1.0}),
    }
    if change is not None:
        voxels = plans[only][0]["healthy"]
        plans[only][0]["healthy"] = np.where(
            change & (voxels > 0), 1 + (voxels.astype(int) + 90) % 255, voxels
        ).astype(np.uint8)
    rows = [
        row_of(name, "train", *plan[:1], folder, **plan[1])
        for name, plan in plans.items()
        if only in ("", name)
    ]
    if not only:
        rows.append(row_of("dev", "dev", {"healthy": brain(FINE, 9)}, folder, **known))
    write_manifest(folder, rows, {})
    return CaseCache.open(folder)


def shape_book() -> ShapeBook:
    affine = np.eye(4)
    affine[:3, 3] = [-12.0, -6.0, -3.0]
    return ShapeBook(
        (tuple(LesionShape(np.ones((n, n + 1, n), bool), affine, n**3 / 1000) for n in (4, 7, 9)),), (1.0,)
    )


SHAPES = shape_book()


@pytest.fixture(autouse=True)
def small_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops that fit the small brains, so that a case takes milliseconds."""
    monkeypatch.setattr(placing, "room_for_hole", lambda mm, ml: (24, 32, 40) if mm > 1.5 else (32, 40, 48))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> CaseCache:
    return make_cache(tmp_path_factory.mktemp("cache"))


def cases_of(cache: CaseCache, *, seed: int = 5, **more: Any) -> TrainingCases:
    more = {
        "condition": True,
        "multiple": 8,
        "shapes": SHAPES,
        "recipe": Recipe(volume_ml=(0.05, 5.0)),
        **more,
    }
    return TrainingCases(cache, more.pop("split", "train"), seed=seed, epoch_length=1000, **more)


def same(one: Case, other: Case) -> bool:
    return all(one[n].shape == other[n].shape and torch.equal(one[n], other[n]) for n in one)


# The same cases every time


def test_case_i_is_always_the_same_whatever_was_drawn_before(cache: CaseCache) -> None:
    first, again = cases_of(cache), cases_of(cache)
    sequence = [first[i] for i in range(4)]
    for i in (3, 0, 2):
        assert same(again[i], sequence[i])


def test_other_numbers_and_seeds_give_other_cases(cache: CaseCache) -> None:
    cases = cases_of(cache)
    one = cases[0]
    assert not same(cases[1], one)
    assert not same(cases_of(cache, seed=6)[0], one)


def test_workers_draw_what_this_process_draws(cache: CaseCache) -> None:
    cases = cases_of(cache)
    found = list(torch.utils.data.DataLoader(cases, batch_size=None, sampler=range(4), num_workers=2))
    assert all(same(found[i], cases[i]) for i in range(4))


def test_a_worker_can_open_the_cases_from_a_pickle(cache: CaseCache) -> None:
    cases = cases_of(cache)
    assert same(pickle.loads(pickle.dumps(cases))[3], cases[3])


def test_plain_cases_take_the_scans_in_turn(cache: CaseCache) -> None:
    cases = cases_of(cache, plain=True)
    assert not same(cases[1], cases[5])  # one scan, another hole
    assert [row.id for row in cases.rows] == ["bare", "coarse", "fine", "ill"]  # no map of classes


def test_only_scans_of_the_split_are_read(cache: CaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load = CaseCache.load
    monkeypatch.setattr(CaseCache, "load", lambda self, row: (read.append(row.id), load(self, row))[1])
    train, dev = cases_of(cache), cases_of(cache, split="dev")
    for i in range(40):
        train[i]
    assert set(read) == {"fine", "coarse", "ill", "bare", "labels"}
    read.clear()
    dev[0]
    assert read == ["dev"]


def test_a_case_holds_volumes_that_the_network_takes(cache: CaseCache) -> None:
    cases = cases_of(cache)
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
    assert list(cases_of(cache, condition=False)[0]) == ["healthy", "voided", "mask"]


@pytest.mark.parametrize(("crop", "wanted"), [("whole", (48, 56, 48)), ((20, 24, 32), (24, 24, 32))])
def test_crops_are_enlarged_to_the_multiple_of_the_method(cache: CaseCache, crop: Any, wanted: Any) -> None:
    recipe = replace(RECIPES["paper"], crop=crop, volume_ml=(0.05, 2.0))
    case = cases_of(cache, recipe=recipe, plain=True)[2]
    assert tuple(case["mask"].shape[1:]) == wanted


def test_a_whole_volume_is_padded_and_not_moved(cache: CaseCache) -> None:
    case = cases_of(cache, recipe=replace(RECIPES["paper"], volume_ml=(0.05, 2.0)), plain=True)[2]
    volume = case["healthy"][0].numpy()
    assert np.count_nonzero(volume > 0.05) == np.count_nonzero(brain(FINE, 1) > 0)


def test_the_real_crops_suit_the_default_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sizes = {placing.room_for_hole(mm, ml) for mm in (1.0, 1.5, 1.7, 2.2) for ml in (1, 10, 100)}
    multiple = FastWavelet3D(FastWavelet3D.PRESETS["default"]).multiple
    assert len(sizes) == 5
    assert all(side % multiple == 0 for size in sizes for side in size)


# Honest about what they hide


@pytest.mark.parametrize("plain", [False, True])
def test_the_hole_is_never_empty_and_holds_nothing(cache: CaseCache, plain: bool) -> None:
    cases = cases_of(cache, plain=plain)
    for i in range(12):
        case = cases[i]
        hole = case["mask"] > 0
        assert hole.sum() >= 8
        assert not case["voided"][hole].any()
        assert torch.equal(case["voided"][~hole], case["healthy"][~hole])
        fill = harmonic(case["voided"][0].numpy(), hole[0].numpy())
        np.testing.assert_allclose(case["base"][0].numpy(), fill, atol=2e-2)  # made before a flip
        assert torch.equal(case["base"][~hole], case["voided"][~hole])


def test_what_the_hole_hides_is_nowhere_in_what_the_network_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tissue under the hole changes the answer and not one bit of the question, with all augmentations that
    copy: the crop is not turned, so that the voxels of the hole are known."""
    places: list[NDArray[np.float64]] = []
    place_crop = placing.place_crop

    def recorded(*args: Any, **more: Any) -> NDArray[np.float64]:
        places.append(place_crop(*args, **more))
        return places[-1]

    monkeypatch.setattr("neuromend.corpus.drawing.place_crop", recorded)
    recipe = replace(Recipe(volume_ml=(0.05, 5.0)), geometry=0, flip=0, blur=0, thick_slices=0)
    in_mirror = 0
    for number, (only, shape) in enumerate((("fine", FINE), ("coarse", COARSE))):
        for index in range(5):
            folder = tmp_path / f"{number}-{index}"
            before = cases_of(make_cache(folder / "a", only=only), recipe=recipe)[index]
            hole = np.zeros(shape, bool)
            points = np.argwhere(before["mask"][0].numpy() > 0) + places[-1][:3, 3].astype(int)
            inside = ((points >= 0) & (points < shape)).all(1)
            hole[tuple(points[inside].T)] = True
            after = cases_of(make_cache(folder / "b", hole, only), recipe=recipe)[index]
            assert not torch.equal(before["healthy"], after["healthy"])
            for name in ("mask", "voided", "base", "mirror"):
                assert torch.equal(before[name], after[name]), (index, only, name)
            turned = np.array(mirror_of(shape)) @ places[-1]
            shown = ndimage.affine_transform(
                hole.astype(float), turned[:3, :3], turned[:3, 3], before["mask"].shape[1:], order=1
            )
            in_mirror += np.count_nonzero(shown)
    assert in_mirror > 1000  # the reflection did look at the holes, so the test has tested something


@pytest.mark.parametrize("roll", [0.0, 0.15])
def test_concealing_forgets_every_voxel_under_the_mask(roll: float) -> None:
    """The same with noise, gain and any reflection, across the middle plane too."""
    rng, shape = np.random.default_rng(3), (24, 20, 28)
    crop = (slice(3, 23), slice(0, 20), slice(2, 26))
    reflect = reflection(9.3, 0.1, roll, (20, 20, 24))
    mask = np.zeros(shape, bool)
    mask[9:16, 6:12, 10:17] = mask[18:21, 13:17, 4:8] = True
    clean = rng.random(shape, np.float32)
    seen = clean + 0.1 * rng.random(shape, np.float32)
    questions = [
        conceal(clean, np.where(mask, np.float32(content), seen), mask, crop, 1.1, reflect)
        for content in (0.0, 0.7, rng.random(shape, np.float32))
    ]
    for name in ("voided", "base", "mirror", "mask"):
        for other in questions[1:]:
            assert np.array_equal(questions[0][name], other[name]), name
    assert not questions[0]["voided"][mask[crop]].any()


def test_the_mirror_shows_the_other_half_also_beyond_the_crop() -> None:
    rng, shape = np.random.default_rng(3), (24, 20, 28)
    mask = np.zeros(shape, bool)
    mask[4:8, 6:12, 10:17] = True
    seen = rng.random(shape, np.float32)
    crop = (slice(2, 12), slice(0, 20), slice(0, 28))  # the left half: its reflection lies outside
    case = conceal(seen, seen, mask, crop, 1.0, reflection(11.5 - 2, 0.0, 0.0, (10, 20, 28)))
    whole = conceal(seen, seen, np.zeros(shape, bool) | mask, (slice(0, 24), slice(0, 20), slice(0, 28)))
    np.testing.assert_allclose(case["mirror"], whole["voided"][::-1][crop], atol=1e-4)


def test_the_mirror_is_the_reflected_scan_noise_and_shading_included(
    cache: CaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a crop that holds the whole brain, the mirror is what filling would compute from the base."""
    recipe = replace(
        Recipe(crop="whole", noise=1, bias=1, skull=1, volume_ml=(0.05, 2.0)), geometry=0, flip=0
    )
    cases = cases_of(cache, recipe=replace(recipe, plane_jitter=False), multiple=4)
    row = next(row for row in cases.rows if row.id == "fine")
    monkeypatch.setattr(cases, "_row", lambda rng: row)
    case = cases[0]
    base, mirror = case["base"][0].numpy(), case["mirror"][0].numpy()
    matrix = np.array(mirror_of(FINE))
    expected = ndimage.affine_transform(base, matrix[:3, :3], matrix[:3, 3], order=1)
    known = ndimage.affine_transform(np.ones_like(base), matrix[:3, :3], matrix[:3, 3], order=1) > 0.99
    assert known.mean() > 0.8
    np.testing.assert_allclose(mirror[known], expected[known], atol=1e-4)


def test_training_and_filling_show_the_network_the_same_fill(cache: CaseCache) -> None:
    module = FastWavelet3D(FastWavelet3D.PRESETS["tiny"])
    case = cases_of(cache, plain=True, recipe=replace(RECIPES["paper"], volume_ml=(0.5, 2.0)))[2]
    condition = module.condition(case["voided"][None], case["mask"][None])
    assert torch.equal(condition.base[0], case["base"])


# Lesions, stored masks, shapes


def only_rows(cases: TrainingCases, name: str) -> TrainingCases:
    cases.rows = [row for row in cases.rows if row.id == name]
    return cases


@pytest.mark.parametrize("geometry", [0.0, 1.0])
def test_diseased_tissue_is_never_a_target(
    cache: CaseCache, geometry: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(Recipe(volume_ml=(0.5, 5.0), stored_masks=0.5), geometry=geometry, flip=0)
    cases = cases_of(cache, recipe=recipe, condition=False)
    row = next(row for row in cases.rows if row.id == "ill")
    monkeypatch.setattr(cases, "_row", lambda rng: row)
    places: list[NDArray[np.float64]] = []
    place_crop = placing.place_crop
    monkeypatch.setattr(
        "neuromend.corpus.drawing.place_crop",
        lambda *a, **m: places.append(place_crop(*a, **m)) or places[-1],
    )
    lesion = np.asarray(cache.load(row).lesion).astype(np.float32)
    met = 0.0
    for i in range(12):
        mask = cases[i]["mask"][0].numpy() > 0
        share = ndimage.affine_transform(lesion, places[-1][:3, :3], places[-1][:3, 3], mask.shape, order=1)
        assert not (mask & (share > 0)).any()
        met += share.sum()
    assert met > 1000  # the lesion was in the crops, and shown


def test_a_stored_mask_is_used_as_it_is(cache: CaseCache) -> None:
    recipe = replace(RECIPES["paper"], stored_masks=1.0)
    cases = only_rows(cases_of(cache, recipe=recipe, plain=True), "ill")
    case = cases[0]
    assert case["mask"].sum() == 8 * 8 * 7


def test_real_lesions_are_put_where_the_affine_says(
    cache: CaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPES["whole"], real_shapes=1.0, volume_ml=(0.7, 0.8)).plain()
    cases = only_rows(cases_of(cache, recipe=recipe, plain=True, multiple=4), "fine")
    drawn: list[LesionShape] = []
    draw = ShapeBook.draw
    monkeypatch.setattr(ShapeBook, "draw", lambda *args: drawn.append(draw(*args)) or drawn[-1])
    monkeypatch.setattr("neuromend.corpus.holes._count", lambda rng, ml: 1)
    mask = cases[0]["mask"][0].numpy() > 0
    expected = drawn[-1].placed(FINE, np.array(centred(FINE, 1.0))) & (brain(FINE, 1) > 0)
    assert np.array_equal(mask, expected)


def test_scans_without_an_affine_get_lesions_by_their_own_axes(cache: CaseCache) -> None:
    recipe = replace(RECIPES["whole"], real_shapes=1.0, volume_ml=(0.05, 0.8)).plain()
    case = only_rows(cases_of(cache, recipe=recipe, plain=True), "bare")[0]
    assert case["mask"].sum() >= 8


# Faults


def test_a_split_without_scans_is_refused(cache: CaseCache) -> None:
    with pytest.raises(InputError, match="no scans in the split 'test'") as caught:
        cases_of(cache, split="test")
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("TR-33", 65, cache.folder)


def test_scans_into_which_no_hole_fits_are_refused(cache: CaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "LARGEST_SHARE", 0.0)
    monkeypatch.setattr(drawing, "TRIES", 3)
    cases = cases_of(cache)
    with pytest.raises(InputError, match="no hole fits") as caught:
        cases[2]
    assert caught.value.code == "TR-33"


def test_numbers_beyond_the_epoch_end_the_iteration(cache: CaseCache) -> None:
    with pytest.raises(IndexError):
        cases_of(cache)[1000]
