"""The six promises of the main job, kept by ``neuromend.fill`` for a classical fill and for a network.

Identity outside the mask through the command line, on 528 kinds of files, is in test_cli_identity.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

import neuromend
from neuromend.methods.classical import CLASSICAL

from .filling_cases import (
    THICK,
    THIN,
    ball,
    contents,
    head,
    image,
    save_network,
    save_pair,
    stored,
    turned,
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(params=["harmonic", "network"])
def model(request: pytest.FixtureRequest, network: Path) -> Any:
    return network if request.param == "network" else "harmonic"


@pytest.fixture(params=[(True, THIN), (False, THICK)], ids=["stripped-1mm", "head-anisotropic"])
def case(request: pytest.FixtureRequest) -> tuple[bool, NDArray[np.float64]]:
    return request.param  # type: ignore[no-any-return]


# 1. Outside the mask the output equals the input.


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_outside_the_mask_nothing_changes_and_inside_everything_does(
    model: Any, case: tuple[bool, NDArray[np.float64]], dtype: str
) -> None:
    stripped, affine = case
    before = head(stripped=stripped, dtype=dtype)
    before[ball()] = 30_000
    result = neuromend.fill(image(before, affine), image(ball(), affine), model=model, device="cpu")
    after = stored(result.image)
    assert after.dtype == before.dtype
    assert np.array_equal(after[~ball()], before[~ball()])
    assert (after[ball()] != 30_000).all()
    np.testing.assert_allclose(result.image.affine, affine, atol=1e-5)
    assert result.record["result"]["outside_identical_voxels"] == int((~ball()).sum())


def test_the_network_of_these_tests_paints_its_own_tissue(network: Path) -> None:
    fills = [
        stored(neuromend.fill(image(head(), THIN), image(ball(), THIN), model=m, device="cpu").image)
        for m in ("harmonic", network)
    ]
    assert np.abs(fills[0].astype(float) - fills[1])[ball()].mean() > 1


# 3. What the lesion looks like has no influence.


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_the_fill_is_blind_to_the_lesion(
    model: Any, case: tuple[bool, NDArray[np.float64]], dtype: str
) -> None:
    stripped, affine = case
    healthy = head(stripped=stripped, dtype=dtype)
    limits = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max] if dtype == "int16" else [-3e38, 3e38])
    rng = np.random.default_rng(2)
    contents_of_lesion: list[Any] = [None, rng.choice(limits, int(ball().sum())), rng.normal(500, 300)]
    if dtype == "float32":
        contents_of_lesion += [np.nan, rng.choice([np.nan, 1e30, -np.inf], int(ball().sum()))]
    found = []
    for content in contents_of_lesion:
        scan = healthy.copy()
        if content is not None:
            scan[ball()] = content
        result = neuromend.fill(
            image(scan, affine), image(ball(), affine), model=model, samples=2, steps=1, device="cpu"
        )
        frames = json.dumps(result.record["frame"])
        found.append(
            (
                frames,
                *(stored(part).tobytes() for part in (result.image, *result.samples, result.uncertainty)),
            )
        )
    assert len(set(found)) == 1


def test_a_double_beyond_single_precision_in_the_lesion_changes_nothing(model: Any) -> None:
    healthy = head(dtype="float64")
    lesioned = healthy.copy()
    lesioned[ball()] = 1e300
    one, other = (
        stored(neuromend.fill(image(scan), image(ball()), model=model, device="cpu").image)
        for scan in (healthy, lesioned)
    )
    assert one.tobytes() == other.tobytes()


def test_a_lesion_of_a_third_of_a_hemisphere_is_invisible_too(network: Path) -> None:
    """The head, its box and the scale are estimated without it, however large it is."""
    mask = ball(0.62, (0.45, 0.0, 0.1)) & (head() > 0)
    found = []
    for content in (0, 30_000):
        scan = head()
        scan[mask] = content
        result = neuromend.fill(image(scan, THIN), image(mask, THIN), model=network, device="cpu")
        found.append((stored(result.image).tobytes(), json.dumps(result.record["frame"])))
    assert found[0] == found[1]


# 4. Same seed, same bytes.


def test_two_equal_runs_write_equal_files(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The version is part of the record; whoever edits the checkout between the two runs changes it.
    monkeypatch.setattr("neuromend.provenance.git_commit", lambda: None)
    scan, mask = save_pair(tmp_path)
    for folder in ("one", "two"):
        neuromend.fill(
            scan, mask, tmp_path / folder, model=network, samples=2, seed=7, steps=2, device="cpu",
            command=["neuromend", "fill", "-o", str(tmp_path / folder / "f.nii.gz")],
        )  # fmt: skip
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    records = [json.loads(files.pop("scan_inpainted.json")) for files in (one, two)]
    assert one == two
    runs = [record.pop("run") for record in records]
    assert records[0] == records[1]
    assert {key for key in runs[0] if runs[0][key] != runs[1][key]} <= {"started", "ended", "command"}
    assert str(tmp_path) not in json.dumps([records, runs])
    assert str(tmp_path).encode() not in b"".join(one.values())


def test_a_sample_is_the_same_however_many_are_drawn_and_another_seed_gives_another(network: Path) -> None:
    drawn = {}
    for seed, count in ((3, 1), (3, 2), (3, 4), (4, 2)):
        result = neuromend.fill(
            image(head()), image(ball()), model=network, samples=count, seed=seed, steps=1, device="cpu"
        )
        drawn[seed, count] = [stored(sample).tobytes() for sample in result.samples]
        assert len(drawn[seed, count]) == count
    assert drawn[3, 4][:2] == drawn[3, 2]
    assert drawn[3, 4][:1] == drawn[3, 1]
    assert len({*drawn[3, 4], *drawn[4, 2]}) == 6


def test_mean_and_spread_are_those_of_the_samples(network: Path) -> None:
    result = neuromend.fill(
        image(head(dtype="float32")), image(ball()), model=network, samples=3, steps=1, device="cpu"
    )
    samples = np.array([stored(sample)[ball()] for sample in result.samples], dtype=np.float64)
    np.testing.assert_allclose(stored(result.image)[ball()], samples.mean(0), rtol=1e-5)
    spread = stored(result.uncertainty)
    np.testing.assert_allclose(spread[ball()], samples.std(0, ddof=1), rtol=1e-3, atol=1e-3)
    assert (spread[~ball()] == 0).all()
    assert spread[ball()].max() > 0


def test_the_expected_fill_is_one_whatever_the_seed(network: Path) -> None:
    fills = {
        stored(
            neuromend.fill(image(head()), image(ball()), model=network, seed=seed, device="cpu").image
        ).tobytes()
        for seed in (0, 99, -5, 2**70)
    }
    assert len(fills) == 1


def test_negative_and_huge_seeds_give_samples(network: Path) -> None:
    fills = [
        neuromend.fill(
            image(head()), image(ball()), model=network, samples=1, steps=1, seed=seed, device="cpu"
        )
        for seed in (-1, 2**63 - 1, 2**80)
    ]
    assert [fill.record["settings"]["seed"] for fill in fills] == [-1, 2**63 - 1, 2**80]


# Independent of storage (the same voxels, however a file holds them, get the same tissue).


def stored_otherwise(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The same head and lesion as files of different types, formats, scalings and orientations."""
    voxels, mask = head(), image(ball(), THIN)
    variants: dict[str, Any] = {
        "int16.nii.gz": image(voxels, THIN),
        "float32.nii": image(voxels.astype(np.float32), THIN),
        "int16.mgz": nib.MGHImage(voxels, THIN),
    }
    variants["uint16-LPS.nii.gz"] = turned(image(voxels.astype(np.uint16), THIN), "LPS")
    variants["int16-SAL.nii.gz"] = turned(image(voxels, THIN), "SAL")
    pairs = {}
    for name, scan in variants.items():
        codes = name.split("-")[-1].split(".")[0]
        drawn = turned(mask, codes) if len(codes) == 3 and codes.isupper() else mask
        nib.save(scan, folder / name)
        nib.save(drawn, folder / f"{name.split('.')[0]}-{name.split('.')[1]}-mask.nii.gz")
        pairs[name] = folder / name, folder / f"{name.split('.')[0]}-{name.split('.')[1]}-mask.nii.gz"
    return pairs


def test_the_same_voxels_get_the_same_tissue_however_they_are_stored(tmp_path: Path, model: Any) -> None:
    fills = {}
    for name, (scan, mask) in stored_otherwise(tmp_path).items():
        result = neuromend.fill(scan, mask, model=model, device="cpu")
        nifti = nib.Nifti1Image(np.asarray(result.image.get_fdata()), result.image.affine)
        fills[name] = np.asarray(nib.as_closest_canonical(nifti).dataobj)[ball()]
    reference = fills["float32.nii"]
    for name, fill in fills.items():
        assert np.abs(fill - reference).max() <= 1.0, name  # a quantum of the integer types


def test_an_oblique_scan_gets_the_same_tissue_in_every_format(tmp_path: Path, network: Path) -> None:
    scan, mask = (turned(image(a, THIN), "LAS", 17.3) for a in (head().astype(np.float32), ball()))
    nib.save(mask, tmp_path / "mask.nii")
    nib.save(scan, tmp_path / "scan.nii")
    nib.save(nib.MGHImage(np.asarray(scan.dataobj), scan.affine), tmp_path / "scan.mgz")
    one, other = (
        stored(neuromend.fill(tmp_path / name, tmp_path / "mask.nii", model=network, device="cpu").image)
        for name in ("scan.nii", "scan.mgz")
    )
    assert np.abs(one - other).max() <= 0.01


# 6. Refuse or report.


def test_the_clipped_voxels_are_counted_as_anyone_would_count_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes cannot hold what this fill gives; how many, is recounted from a scan of floats."""
    rng = np.random.default_rng(1)

    def too_bright(voided: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.where(hole, rng.normal(0.9, 0.5, hole.shape), voided).astype(np.float32)

    monkeypatch.setitem(CLASSICAL, "harmonic", too_bright)
    results = {}
    for dtype in ("float32", "uint8"):
        rng = np.random.default_rng(1)
        results[dtype] = neuromend.fill(image((head() // 4).astype(dtype)), image(ball()), model="harmonic")
    exact = stored(results["float32"].image)[ball()]
    clipped = int(((np.rint(exact) > 255) | (np.rint(exact) < 0)).sum())
    assert clipped > 10
    assert results["uint8"].record["result"]["clipped_voxels"] == clipped
    [warning] = [f for f in results["uint8"].findings if f.code == "IN-18"]
    assert warning.level == "warning"
    assert "store the scan in a wider type" in warning.message
    assert warning.message.startswith(f"{clipped:,} of {ball().sum():,} filled voxels were cut")
    assert results["float32"].record["result"]["clipped_voxels"] == 0
    filled = stored(results["uint8"].image)[ball()]
    assert (filled.min(), filled.max()) == (0, 255)


@pytest.mark.parametrize(("every", "level"), [(1000, "note"), (20, "warning")])
def test_a_few_clipped_voxels_are_no_warning(monkeypatch: pytest.MonkeyPatch, every: int, level: str) -> None:
    """IN-18: one voxel in 1000 is told, but nobody need look; one in 20 is another matter."""

    def spotted(voided: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
        values = np.full(hole.shape, 0.5, dtype=np.float32)
        values.flat[np.flatnonzero(hole)[::every]] = 3
        return np.where(hole, values, voided)

    monkeypatch.setitem(CLASSICAL, "harmonic", spotted)
    result = neuromend.fill(image((head() // 4).astype("uint8")), image(ball()), model="harmonic")
    [finding] = [f for f in result.findings if f.code == "IN-18"]
    assert finding.level == level
    assert f"of {ball().sum():,} filled voxels" in finding.message
