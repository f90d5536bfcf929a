"""Simulated lesions: like those of patients in number, size and site; where they belong; with a known truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend import cli
from neuromend.errors import InputError, UsageError
from neuromend.lesions import SITES, Anatomy, load_statistics, paint_lesions, simulate
from neuromend.lesions.files import simulate_files, three_tissues
from neuromend.lesions.simulate import Lesions

STATISTICS = load_statistics()
SHAPE, SPACING = (60, 70, 52), (2.0, 2.0, 2.0)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def classes() -> Any:
    """A brain of shells: cortex, white matter, a ventricle; cerebellum below; classes as in neuromend.sites."""
    half = (np.array(SHAPE) - 1) / 2
    place = (np.indices(SHAPE).transpose(1, 2, 3, 0) - half) / half
    r = np.linalg.norm(place, axis=-1)
    found = np.zeros(SHAPE, np.uint8)
    for outer, label in ((0.95, 2), (0.85, 3), (0.3, 1)):
        found[r < outer] = label
    below = place[..., 2] < -0.45
    found[below & (found == 2)] = 5
    found[below & (found == 3)] = 6
    return found


CLASSES = classes()
ANATOMY = Anatomy.of_map(CLASSES, SPACING)


def brightness() -> Any:
    values = np.array([0, 150, 500, 850], np.float32)[three_tissues(CLASSES)]
    return np.where(CLASSES > 0, values + np.random.default_rng(1).normal(0, 15, SHAPE), 0).astype(np.float32)


@pytest.fixture(scope="module")
def many() -> list[Lesions]:
    return [simulate(ANATOMY, STATISTICS, seed=seed, count=40) for seed in range(25)]


def test_the_sites_have_the_learned_shares(many: list[Lesions]) -> None:
    placed = [one.site for lesions in many for one in lesions.placed]
    for site in SITES:
        share = placed.count(site) / len(placed)
        tolerance = 4 * (STATISTICS.site_share[site] * (1 - STATISTICS.site_share[site]) / len(placed)) ** 0.5
        assert share == pytest.approx(STATISTICS.site_share[site], abs=tolerance)


def test_the_volumes_have_the_learned_quantiles(many: list[Lesions]) -> None:
    for site in SITES:
        wanted = [one.wanted_ml for lesions in many for one in lesions.placed if one.site == site]
        learned = np.interp([0.25, 0.5, 0.75], np.linspace(0, 1, 21), np.log(STATISTICS.volume_ml[site]))
        np.testing.assert_allclose(np.quantile(np.log(wanted), [0.25, 0.5, 0.75]), learned, atol=0.5)


def test_the_numbers_have_the_learned_median() -> None:
    counts = [len(simulate(ANATOMY, STATISTICS, seed=seed, load_ml=0.1).placed) for seed in range(40)]
    low, high = np.quantile(STATISTICS.number, [0.2, 0.8])
    assert low < np.median(counts) < high


def test_a_lesion_has_its_volume_where_there_is_room(many: list[Lesions]) -> None:
    one_ml = float(np.prod(SPACING)) / 1000
    ratios = [o.volume_ml / max(o.wanted_ml, 3 * one_ml) for lesions in many for o in lesions.placed]
    assert np.mean(np.abs(np.array(ratios) - 1) < 0.35) > 0.9


def test_lesions_lie_in_white_matter_at_their_site_and_do_not_touch(many: list[Lesions]) -> None:
    from scipy import ndimage

    for lesions in many[:5]:
        assert ANATOMY.white[lesions.mask].all()
        pieces, count = ndimage.label(lesions.mask, np.ones((3, 3, 3)))
        assert count == len(lesions.placed)
        for one in lesions.placed:
            assert ANATOMY.site_of(lesions.map == one.number) == one.site
        assert lesions.volume_ml == pytest.approx(lesions.mask.sum() * 0.008)
        assert pieces.any()


def test_the_same_seed_gives_the_same_lesions_and_another_seed_others() -> None:
    first, again, other = (simulate(ANATOMY, STATISTICS, seed=seed, count=12) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.map, again.map)
    assert (first.map != other.map).any()


def test_count_load_and_sites_are_kept() -> None:
    lesions = simulate(ANATOMY, STATISTICS, seed=1, count=10, load_ml=4.0, sites=("deep", "periventricular"))
    assert len(lesions.placed) == 10
    assert lesions.volume_ml == pytest.approx(4.0, rel=0.35)
    assert {one.site for one in lesions.placed} <= {"deep", "periventricular"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "--count is 0"),
        ({"load_ml": -1.0}, "--load-ml is -1"),
        ({"sites": ("cortical",)}, "--sites names cortical"),
        ({"sites": ()}, "--sites names nothing"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        simulate(ANATOMY, STATISTICS, seed=0, **options)
    assert (caught.value.code, caught.value.exit_status) == ("LE-01", 2)


def test_a_brain_without_white_matter_is_refused() -> None:
    with pytest.raises(UsageError, match="found room") as caught:
        simulate(Anatomy.of_map(np.where(CLASSES > 0, 2, 0), SPACING), STATISTICS, seed=0, count=3)
    assert (caught.value.code, caught.value.exit_status) == ("LE-02", 2)


def test_painted_lesions_are_darker_than_white_matter_and_nothing_else_changes() -> None:
    values = brightness()
    lesions = simulate(ANATOMY, STATISTICS, seed=3, count=8, load_ml=12.0)
    painted = paint_lesions(values, lesions, three_tissues(CLASSES), STATISTICS, SPACING, seed=3)
    np.testing.assert_array_equal(painted[~lesions.mask], values[~lesions.mask])
    inside = painted[lesions.mask]
    assert 450 < inside.mean() < 840
    assert inside.min() > 0
    again = paint_lesions(values, lesions, three_tissues(CLASSES), STATISTICS, SPACING, seed=3)
    np.testing.assert_array_equal(painted, again)


def test_three_tissues_are_enough_to_find_ventricle_cortex_and_what_lies_below() -> None:
    anatomy = Anatomy.of_tissues(three_tissues(CLASSES), AFFINE, STATISTICS.infratentorial_plane)
    np.testing.assert_array_equal(anatomy.white, ANATOMY.white)
    brain = CLASSES > 0
    assert np.mean(anatomy.infratentorial[brain] == ANATOMY.infratentorial[brain]) > 0.7
    near = anatomy.to_ventricle_mm <= 3
    assert np.mean(near[brain] == (ANATOMY.to_ventricle_mm <= 3)[brain]) > 0.95


@pytest.fixture
def files(tmp_path: Path) -> Path:
    nib.save(nib.Nifti1Image(brightness().astype(np.int16), AFFINE), tmp_path / "sub-01_T1w.nii.gz")
    nib.save(nib.Nifti1Image(CLASSES, AFFINE), tmp_path / "classes.nii.gz")
    return tmp_path


def test_the_command_writes_a_case_with_a_known_truth(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, out = files / "sub-01_T1w.nii.gz", files / "out"
    line = ["simulate-lesions", str(scan), "-o", str(out), "--tissue", str(files / "classes.nii.gz")]
    assert cli.main([*line, "--count", "9", "--seed", "2", "--paint", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    mask, painted, healthy = (
        np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
        for path in (told["outputs"]["mask"], told["outputs"]["painted"], scan)
    )
    assert set(np.unique(mask)) == {0, 1}
    np.testing.assert_array_equal(painted[mask == 0], healthy[mask == 0])
    record = json.loads(Path(told["outputs"]["record"]).read_text())
    assert len(record["lesions"]) == told["lesions"] == 9
    assert record["settings"]["seed"] == 2
    assert cli.main(line) == 73  # it is there already


def test_a_map_that_is_no_tissue_map_is_refused(files: Path) -> None:
    nib.save(nib.Nifti1Image(CLASSES * 20, AFFINE), files / "wrong.nii.gz")
    with pytest.raises(InputError, match="expected 0 to 9") as caught:
        simulate_files(
            files / "sub-01_T1w.nii.gz",
            files / "out",
            tissue=files / "wrong.nii.gz",
            on_step=lambda *a: None,
            command=[],
        )
    assert (caught.value.code, caught.value.exit_status) == ("LE-03", 65)
    assert list((files / "out").iterdir()) == []


def test_the_statistics_hold_what_they_say() -> None:
    assert set(STATISTICS.site_share) == set(STATISTICS.volume_ml) == set(SITES)
    assert sum(STATISTICS.site_share.values()) == pytest.approx(1, abs=1e-3)
    for quantiles in (STATISTICS.number, STATISTICS.elongation, *STATISTICS.volume_ml.values()):
        assert len(quantiles) == 21
        assert list(quantiles) == sorted(quantiles)
    assert "CC BY" in STATISTICS.source
