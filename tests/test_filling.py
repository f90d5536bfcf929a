"""The main job on scans and lesions of every kind: what comes out, what is written, and nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import neuromend
from neuromend import filling
from neuromend.data.masks import MaskOptions, prepare_mask
from neuromend.data.volume import volume_from_image
from neuromend.errors import DeviceError, InputError, UsageError
from neuromend.findings import Finding
from neuromend.methods.fastwavelet3d import FastWavelet3D

from .filling_cases import (
    AFFINE,
    SHAPE,
    THICK,
    THIN,
    ball,
    contents,
    head,
    image,
    radius,
    save_network,
    save_pair,
    stored,
    turned,
)

TILTED = np.array([[1.4, 0.3, 0, -30], [-0.3, 1.5, 0.1, -20], [0.1, 0, 3.1, -50], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("models") / "tiny")


def filled(scan: Any, mask: Any, **options: Any) -> tuple[NDArray[Any], Any]:
    """The stored voxels of the fill; outside the mask they are the scan's."""
    result = neuromend.fill(scan, mask, **{"model": "harmonic", "device": "cpu"} | options)
    hole, before, after = np.asarray(mask.dataobj) > 0, stored(scan), stored(result.image)
    assert np.array_equal(after[~hole], before[~hole])
    assert np.array_equal(np.asarray(result.mask.dataobj) > 0, hole)
    np.testing.assert_allclose(result.mask.affine, scan.affine, atol=1e-5)
    return after, result


class TestScans:
    @pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP", "AIL", "PLI", "IAR"])
    @pytest.mark.parametrize("affine", [AFFINE, THICK, TILTED], ids=["2mm", "anisotropic", "oblique"])
    def test_every_orientation_gets_the_tissue_around_the_lesion(
        self, codes: str, affine: NDArray[np.float64]
    ) -> None:
        sick = head()
        sick[ball()] = 0
        scan, mask = turned(image(sick, affine), codes), turned(image(ball(), affine), codes)
        after, _ = filled(scan, mask)
        healthy = stored(turned(image(head(), affine), codes)).astype(float)
        hole = stored(mask) > 0
        assert np.abs(after[hole] - healthy[hole]).mean() < 120  # the two tissues differ by 300, air by 900

    def test_the_network_takes_an_oblique_anisotropic_scan(self, network: Path) -> None:
        scan, mask = (turned(image(a, TILTED), "SAL") for a in (head(), ball()))
        after, result = filled(scan, mask, model=network)
        assert result.record["frame"]["oblique_degrees"] > 5
        assert after[stored(mask) > 0].std() > 0

    def test_what_the_model_sees_does_not_depend_on_how_the_voxels_are_stored(self) -> None:
        """The head is found on every third voxel; counted from either end these are others."""
        shape = (94, 107, 83)
        scan = np.where(radius(shape, (0.11, -0.07, 0.05)) < 0.61, 700, 0).astype(np.int16)
        scan[radius(shape, (0.11, -0.07, 0.05)) < 0.4] += 90
        mask = radius(shape, (0.3, 0.1, 0.1)) < 0.1
        frames = []
        for codes in ("RAS", "LAS", "RPI", "SAL", "PIR"):
            volume, drawn = (volume_from_image(turned(image(a, THIN), codes)) for a in (scan, mask))
            frame = filling.frame_of(volume, prepare_mask(drawn, volume, MaskOptions()))
            frames.append((frame.model_shape, frame.model_affine))
        for found, affine in frames[1:]:
            assert found == frames[0][0]
            np.testing.assert_allclose(affine, frames[0][1], atol=1e-4)

    def test_one_volume_of_a_series_is_filled_and_the_others_stay(self, tmp_path: Path) -> None:
        series = np.stack([head(), head() // 2, head() // 3], axis=-1)
        series[ball()] = 30_000
        scan = nib.Nifti1Image(series, AFFINE)
        nib.save(scan, tmp_path / "series.nii")
        nib.save(image(ball()), tmp_path / "mask.nii")
        for source, mask in (
            (scan, image(ball())),
            (tmp_path / "series.nii", tmp_path / "mask.nii"),
        ):
            result = neuromend.fill(source, mask, model="harmonic", volume=1)
            after = stored(result.image)
            assert np.array_equal(after[..., [0, 2]], series[..., [0, 2]])
            assert np.array_equal(after[~ball()], series[~ball()])
            assert after[ball()][:, 1].max() < 1000
            assert result.record["result"]["outside_identical_voxels"] == series.size - int(ball().sum())
            assert result.mask.shape == SHAPE
        with pytest.raises(InputError, match="a series of 3 volumes") as refused:
            neuromend.fill(scan, image(ball()), model="harmonic")
        assert refused.value.code == "IN-12"

    def test_a_scan_that_does_not_tell_its_axes_is_taken_as_the_user_says(self) -> None:
        scan, mask = (nib.Nifti1Image(array, None) for array in (head(), ball().astype(np.uint8)))
        for made in (scan, mask):
            made.header.set_zooms((2, 2, 2))
        with pytest.raises(neuromend.NeuromendError) as refused:
            neuromend.fill(scan, image(ball()), model="harmonic")
        assert (refused.value.code, refused.value.exit_status) == ("IN-22", 65)
        result = neuromend.fill(scan, mask, model="harmonic", assume_orientation="LPS")
        assert result.record["frame"]["scan_axes"] == "LPS"
        assert np.array_equal(stored(result.image)[~ball()], head()[~ball()])

    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
    def test_an_image_in_memory_comes_back_as_its_own_class(
        self, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        scan = kind(head(), AFFINE)
        after, result = filled(scan, image(ball()))
        assert type(result.image) is kind
        assert after.dtype.newbyteorder("=") == np.int16
        assert (result.outputs, result.record["outputs"], result.record["image"]["file"]) == ({}, [], None)
        assert list(tmp_path.iterdir()) == []


class TestLesions:
    @pytest.fixture(params=["harmonic", "network"])
    def model(self, request: pytest.FixtureRequest, network: Path) -> Any:
        return network if request.param == "network" else "harmonic"

    def test_one_voxel(self, model: Any) -> None:
        hole = np.zeros(SHAPE, np.bool_)
        hole[30, 26, 21] = True
        _, result = filled(image(head()), image(hole), model=model)
        assert result.record["result"]["filled_voxels"] == 1

    def test_a_thousand_specks(self, model: Any) -> None:
        inside = np.argwhere((radius() < 0.75) & (np.indices(SHAPE) % 3 == 0).all(0))
        hole = np.zeros(SHAPE, np.bool_)
        hole[tuple(inside[np.random.default_rng(0).permutation(len(inside))[:1000]].T)] = True
        assert hole.sum() == min(1000, len(inside)) > 600
        sick = np.where(hole, 0, head())
        after, _ = filled(image(sick), image(hole), model=model)
        assert np.abs(after[hole].astype(float) - head()[hole]).mean() < 200

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_lesion_at_the_border_of_the_volume(self, model: Any, axis: int) -> None:
        keep = tuple(slice(SHAPE[a] // 2 if a == axis else 0, None) for a in range(3))
        scan, hole = head()[keep], (radius() < 0.35)[keep]  # the head is cut in two, the lesion too
        assert hole.take(0, axis=axis).any()
        sick = np.where(hole, 0, scan)
        after, _ = filled(image(sick), image(hole), model=model)
        assert np.abs(after[hole].astype(float) - scan[hole]).mean() < 60

    def test_a_third_of_a_hemisphere(self, model: Any) -> None:
        hole = ball(0.62, (0.45, 0.0, 0.1)) & (radius() < 0.8)
        right = np.indices(SHAPE)[0] > SHAPE[0] // 2
        assert hole.sum() / ((radius() < 0.8) & right).sum() > 0.33
        after, _ = filled(image(np.where(hole, 0, head())), image(hole), model=model)
        assert after[hole].mean() > 300

    def test_dilation_fills_more_and_says_so(self) -> None:
        result = neuromend.fill(image(head()), image(ball()), model="harmonic", dilate_mm=4)
        used = np.asarray(result.mask.dataobj) > 0
        assert used.sum() > ball().sum()
        assert used[ball()].all()
        changed = stored(result.image) != head()
        assert changed[used & ~ball()].mean() > 0.9
        assert not changed[~used].any()
        assert result.record["mask"]["used_voxels"] == used.sum()


class TestEmptyMask:
    def test_it_is_refused_unless_allowed(self) -> None:
        with pytest.raises(InputError) as refused:
            neuromend.fill(image(head()), image(np.zeros(SHAPE, np.bool_)), model="harmonic")
        assert (refused.value.code, refused.value.exit_status) == ("MA-01", 65)

    @pytest.mark.parametrize("samples", [0, 1, 2])
    def test_allowed_it_copies_the_scan_and_writes_every_file(
        self, tmp_path: Path, network: Path, samples: int
    ) -> None:
        scan, mask = save_pair(tmp_path, "scan.nii", mask=image(np.zeros(SHAPE, np.bool_)))
        result = neuromend.fill(scan, mask, tmp_path / "o", model=network, samples=samples, allow_empty=True)
        assert {path.name for path in result.outputs.values()} == set(contents(tmp_path / "o"))
        assert len(result.samples) == samples
        for role in ("filled", *(role for role in result.outputs if role.startswith("sample"))):
            assert result.outputs[role].read_bytes() == scan.read_bytes()
        if samples == 2:
            assert not np.asarray(nib.load(result.outputs["uncertainty"]).dataobj).any()


class TestOutputs:
    @pytest.mark.parametrize(
        ("name", "samples", "expected"),
        [
            ("scan.nii.gz", 0, {"", "_mask.nii.gz", ".png", "_report.html", ".json"}),
            ("scan.nii", 1, {"", "_mask.nii.gz", ".png", "_report.html", ".json", "_sample-01.nii"}),
            (
                "scan.mgz",
                2,
                {"", "_mask.mgz", ".png", "_report.html", ".json", "_sample-01.mgz", "_sample-02.mgz",
                 "_uncertainty.mgz"},
            ),
        ],
    )  # fmt: skip
    def test_every_file_that_is_listed_is_there_and_no_other(
        self, tmp_path: Path, network: Path, name: str, samples: int, expected: set[str]
    ) -> None:
        scan = nib.MGHImage(head(), AFFINE) if name.endswith("mgz") else image(head())
        files = save_pair(tmp_path, name, scan=scan)
        before = contents(tmp_path)
        result = neuromend.fill(*files, tmp_path / "o" / "p", model=network, samples=samples, steps=1)
        stem, suffix = name.split(".", 1)
        names = {f"{stem}_inpainted{ending or f'.{suffix}'}" for ending in expected}
        assert set(contents(tmp_path / "o" / "p")) == names
        assert {path.name for path in result.outputs.values()} == names
        assert all(path.is_absolute() for path in result.outputs.values())
        listed = {output["file"] for output in result.record["outputs"]}
        assert listed == names - {f"{stem}_inpainted.json"}
        assert {k: v for k, v in contents(tmp_path).items() if not k.startswith("o")} == before
        on_disk = stored(nib.load(result.outputs["filled"]))
        assert np.array_equal(on_disk, stored(result.image))

    def test_a_pair_gives_pairs_with_both_halves_listed(self, tmp_path: Path) -> None:
        scan, mask = save_pair(tmp_path, "scan.hdr", scan=nib.Nifti1Pair(head(), AFFINE))
        result = neuromend.fill(scan, mask, tmp_path / "o" / "f.img", model="harmonic")
        assert set(contents(tmp_path / "o")) == {path.name for path in result.outputs.values()}
        assert {"f.img", "f.hdr"} <= set(contents(tmp_path / "o"))
        assert (tmp_path / "o" / "f.hdr").read_bytes() == scan.read_bytes()
        after = stored(nib.load(tmp_path / "o" / "f.img"))
        assert np.array_equal(after[~ball()], head()[~ball()])

    def test_an_mgh_image_in_memory_is_named_after_its_format(self, tmp_path: Path) -> None:
        result = neuromend.fill(nib.MGHImage(head(), AFFINE), image(ball()), tmp_path, model="harmonic")
        assert result.outputs["filled"] == tmp_path / "scan_inpainted.mgz"
        nib.save(image(head()), tmp_path / "sub-01_T1w.nii")
        loaded = nib.load(tmp_path / "sub-01_T1w.nii")
        result = neuromend.fill(loaded, image(ball()), tmp_path, model="harmonic")
        assert result.outputs["filled"] == tmp_path / "sub-01_T1w_inpainted.nii.gz"

    def test_a_dry_run_writes_nothing_and_names_what_it_would_write(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scan, mask = save_pair(tmp_path)
        before = contents(tmp_path)

        def loaded(*_: object, **__: object) -> None:
            raise AssertionError("a model was loaded")

        monkeypatch.setattr(filling, "Painter", loaded)
        out = tmp_path / "new" / "folder"
        result = neuromend.fill(scan, mask, out, samples=2, model="harmonic", dry_run=True)
        assert contents(tmp_path) == before
        assert not (tmp_path / "new").exists()
        assert (result.image, result.record, result.samples) == (None, {}, ())
        assert np.array_equal(np.asarray(result.mask.dataobj) > 0, ball())
        assert result.outputs["filled"] == out / "scan_inpainted.nii.gz"
        assert set(result.outputs) == {
            "filled", "mask", "uncertainty", "sample-01", "sample-02", "picture", "report", "record",
        }  # fmt: skip

    def test_a_refused_input_leaves_no_new_folder_behind(self, tmp_path: Path) -> None:
        scan, mask = save_pair(tmp_path, mask=image(np.zeros(SHAPE, np.bool_)))
        with pytest.raises(InputError):
            neuromend.fill(scan, mask, tmp_path / "new" / "f.nii.gz", model="harmonic")
        assert not (tmp_path / "new").exists()

    def test_an_output_of_another_format_is_refused_before_any_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scan, mask = save_pair(tmp_path)
        monkeypatch.setattr(filling, "Painter", None)
        with pytest.raises(neuromend.NeuromendError, match=r"must end in \.nii\.gz or \.nii") as refused:
            neuromend.fill(scan, mask, tmp_path / "new" / "f.mgz", model="harmonic")
        assert (refused.value.code, refused.value.exit_status) == ("IN-34", 73)
        assert not (tmp_path / "new").exists()


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "code", "named"),
        [
            ({"samples": -1}, "UX-02", "--samples is -1"),
            ({"steps": 0}, "UX-01", "--steps is 0"),
            ({"threads": 0}, "RT-24", "--threads is 0"),
            ({"device": "gpu"}, "RT-10", "--device is 'gpu'"),
            ({"dilate_mm": -1.0}, "MA-20", "--dilate-mm is -1"),
            ({"labels": [1], "threshold": 0.5}, "MA-06", "--labels and --threshold"),
        ],
    )
    def test_impossible_settings_are_refused_before_anything_is_read(
        self, options: dict[str, Any], code: str, named: str
    ) -> None:
        with pytest.raises(UsageError, match=named) as refused:
            neuromend.fill("no.nii", "no.nii", model="harmonic", dry_run=True, **options)
        assert (refused.value.code, refused.value.exit_status) == (code, 2)

    def test_a_device_that_is_not_there_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """RT-10."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(DeviceError) as refused:
            neuromend.fill(image(head()), image(ball()), model="harmonic", device="cuda")
        assert (refused.value.code, refused.value.exit_status) == ("RT-10", 69)
        assert "--device auto" in refused.value.fix

    def test_steps_without_samples_are_told_to_be_without_effect(self, network: Path) -> None:
        result = neuromend.fill(image(head()), image(ball()), model=network, steps=4)
        assert result.record["settings"]["steps"] == 1
        assert [(f.code, f.level) for f in result.findings if f.code == "UX-01"] == [("UX-01", "note")]

    def test_progress_is_told_in_order_and_ends(self, network: Path) -> None:
        told: list[tuple[str, int, int]] = []
        neuromend.fill(
            image(head()), image(ball()), model=network, samples=2, steps=2,
            on_step=lambda *step: told.append(step),
        )  # fmt: skip
        stages = [stage for stage, _ in itertools.groupby(stage for stage, _, _ in told)]
        assert stages == ["reading", "loading the model", "filling", "saving"]
        shares = [done / of for stage, done, of in told if stage == "filling"]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0

    def test_check_finds_what_fill_finds(self) -> None:
        found = neuromend.check(image(head()), image(ball()))
        result = neuromend.fill(image(head()), image(ball()), model="harmonic")
        assert set(found) <= set(result.findings)
        with pytest.raises(InputError):
            neuromend.check(image(head()), image(np.zeros(SHAPE, np.bool_)))


class TestMemory:
    """RT-12: predicted before the work begins."""

    @pytest.fixture
    def small_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pretends that the first device has 1 GiB and the CPU enough."""

        def fits(needed: int, device: torch.device) -> Finding | None:
            if device.type == "cpu":
                return None
            raise DeviceError("RT-12", "about 9 GiB are needed, meta has 1 GiB in all", why="w", fix="f")

        monkeypatch.setattr(filling, "fits_in_memory", fits)
        monkeypatch.setattr(filling, "choose_device", lambda *_: torch.device("meta"))

    @pytest.mark.usefixtures("small_gpu")
    def test_a_gpu_that_is_too_small_gives_way_to_the_cpu(self, network: Path) -> None:
        result = neuromend.fill(image(head()), image(ball()), model=network)
        assert result.record["run"]["device"] == "cpu"
        [finding] = [finding for finding in result.findings if finding.code == "RT-12"]
        assert finding.level == "warning"
        assert "the CPU is used" in finding.message

    @pytest.mark.usefixtures("small_gpu")
    def test_unless_that_is_forbidden(self, network: Path) -> None:
        with pytest.raises(DeviceError, match="about 9 GiB") as refused:
            neuromend.fill(image(head()), image(ball()), model=network, fallback=False)
        assert (refused.value.code, refused.value.exit_status) == ("RT-12", 69)

    def test_a_cpu_that_is_too_small_is_refused(self, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("neuromend.device.memory_bytes", lambda device: (2**20, 2**21))
        with pytest.raises(DeviceError, match=r"cpu has 0\.0 GiB") as refused:
            neuromend.fill(image(head()), image(ball()), model=network)
        assert (refused.value.code, refused.value.exit_status) == ("RT-12", 69)

    def test_what_is_needed_is_what_the_method_says_of_itself(
        self, network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("neuromend.device.memory_bytes", lambda device: (2**30, 2**31))
        neuromend.fill(image(head()), image(ball()), model=network, dry_run=True)
        monkeypatch.setattr(FastWavelet3D, "memory_bytes", lambda *_: 5 * 2**30)
        with pytest.raises(DeviceError, match=r"about 5\.1 GiB are needed, cpu has 2\.0 GiB") as refused:
            neuromend.fill(image(head()), image(ball()), model=network, dry_run=True)
        assert (refused.value.code, refused.value.exit_status) == ("RT-12", 69)

    def test_little_free_memory_is_a_warning_that_equal_runs_do_not_record(
        self, network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("neuromend.device.memory_bytes", lambda device: (2**20, 2**40))
        result = neuromend.fill(image(head()), image(ball()), model=network)
        assert [f.level for f in result.findings if f.code == "RT-12"] == ["warning"]
        assert "RT-12" not in {f["code"] for f in result.record["findings"]}
