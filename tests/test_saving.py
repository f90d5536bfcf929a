"""Saving: what an interruption leaves, when existing output is kept, and that the report shows what was stored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import neuromend
from neuromend import saving
from neuromend.data.volume import read_volume
from neuromend.errors import NeuromendError, StorageError
from neuromend.planning import OutputPlan, files_behind
from neuromend.report.case import ReportCase

from .filling_cases import AFFINE, ball, contents, head, image, save_network, save_pair, stored


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes time and is tested elsewhere."""
    monkeypatch.setattr(saving, "write_picture", lambda case, file: file.write(b"picture"))
    monkeypatch.setattr(saving, "render_page", lambda case: "report")
    monkeypatch.setattr("neuromend.provenance.git_commit", lambda: None)


class Killed(BaseException):
    """Stands for Ctrl-C: no ``except Exception`` catches it."""


FAULTS = [OSError(28, "No space left on device"), PermissionError(13, "Permission denied"), Killed()]
STAGES = [
    ("neuromend.saving.splice", 0),
    ("neuromend.data.atomic._write_through", 0),
    ("neuromend.data.atomic._write_through", 3),
    ("neuromend.data.atomic._compare", 1),
    ("neuromend.saving.verify_identical_outside", 0),
    ("neuromend.saving.write_picture", 0),
    ("neuromend.saving.render_page", 0),
    ("neuromend.data.atomic.os.replace", 0),
]


def fail_at(monkeypatch: pytest.MonkeyPatch, place: str, calls_before: int, fault: BaseException) -> None:
    """Raise ``fault`` in the function ``place`` after so many good calls."""
    module, _, name = place.rpartition(".")
    owner: Any = os if module.endswith(".os") else __import__(module, fromlist=["x"])
    real, count = getattr(owner, name), [0]

    def failing(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == calls_before + 1:
            raise fault
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.usefixtures("light")
class TestCompleteOrAbsent:
    @pytest.mark.parametrize("fault", FAULTS, ids=["full", "refused", "stopped"])
    @pytest.mark.parametrize(("place", "calls_before"), STAGES)
    def test_a_fault_at_any_stage_leaves_nothing_new(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        place: str,
        calls_before: int,
        fault: BaseException,
    ) -> None:
        scan, mask = save_pair(tmp_path)
        (tmp_path / "out").mkdir()
        before = contents(tmp_path)
        fail_at(monkeypatch, place, calls_before, fault)
        with pytest.raises((NeuromendError, OSError, Killed)):
            neuromend.fill(scan, mask, tmp_path / "out" / "f.nii.gz", model="harmonic", samples=2)
        assert contents(tmp_path) == before

    @pytest.mark.parametrize("fault", FAULTS, ids=["full", "refused", "stopped"])
    @pytest.mark.parametrize(("place", "calls_before"), [*STAGES, ("neuromend.data.atomic.os.replace", 1)])
    def test_an_older_result_stays_whole(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        place: str,
        calls_before: int,
        fault: BaseException,
    ) -> None:
        """The second call of ``os.replace`` is the first file to appear: the old sidecar went before it."""
        scan, mask = save_pair(tmp_path)
        out = tmp_path / "out" / "f.nii.gz"
        neuromend.fill(scan, mask, out, model="ring-mean", samples=2)
        before = contents(tmp_path)
        fail_at(monkeypatch, place, calls_before, fault)
        with pytest.raises((NeuromendError, OSError, Killed)):
            neuromend.fill(scan, mask, out, model="harmonic", samples=2, overwrite=True)
        assert contents(tmp_path) == before

    @pytest.mark.parametrize("published", range(1, 8))
    def test_between_two_files_no_sidecar_stands_beside_what_it_does_not_describe(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: int
    ) -> None:
        scan, mask = save_pair(tmp_path)
        out = tmp_path / "out" / "f.nii.gz"
        neuromend.fill(scan, mask, out, model="ring-mean", samples=2)
        older = contents(tmp_path / "out")
        with monkeypatch.context() as patch:
            fail_at(patch, "neuromend.data.atomic.os.replace", 1 + published, Killed())
            with pytest.raises(Killed):
                neuromend.fill(scan, mask, out, model="harmonic", samples=2, overwrite=True)
        left = contents(tmp_path / "out")
        assert set(left) == set(older) - {"f.json"}
        neuromend.fill(scan, mask, out, model="harmonic", samples=2, overwrite=True)
        newer = contents(tmp_path / "out")
        assert set(newer) == set(older)
        for name, content in left.items():
            assert content in (older[name], newer[name]), name

    def test_a_full_disk_is_told_as_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        scan, mask = save_pair(tmp_path)
        fail_at(monkeypatch, "neuromend.data.atomic._write_through", 2, FAULTS[0])
        with pytest.raises(StorageError, match="the disk is full") as refused:
            neuromend.fill(scan, mask, tmp_path / "f.nii.gz", model="harmonic")
        assert (refused.value.code, refused.value.exit_status) == ("RT-03", 74)

    def test_a_file_that_comes_back_different_is_not_published(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RT-06: a voxel outside the mask that the disk changed."""
        scan, mask = save_pair(tmp_path, "scan.nii")
        before = contents(tmp_path)

        def careless(path: Path, payload: bytes) -> None:
            path.write_bytes(payload[:400] + bytes([payload[400] ^ 1]) + payload[401:])

        monkeypatch.setattr("neuromend.data.atomic._write_through", careless)
        monkeypatch.setattr("neuromend.data.atomic._compare", lambda *_: None)
        with pytest.raises(StorageError, match="1 voxels outside the mask differ") as refused:
            neuromend.fill(scan, mask, tmp_path / "f.nii", model="harmonic")
        assert (refused.value.code, refused.value.exit_status) == ("RT-06", 74)
        assert contents(tmp_path) == before

    def test_the_count_of_identical_voxels_was_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scan, mask = save_pair(tmp_path)
        monkeypatch.setattr(saving, "verify_identical_outside", lambda *_: 4711)
        result = neuromend.fill(scan, mask, tmp_path / "f.nii.gz", model="harmonic")
        assert result.record["result"]["outside_identical_voxels"] == 4711
        assert "4711 compared bit for bit" in next(f.message for f in result.findings if f.code == "OK-01")


@pytest.mark.usefixtures("light")
class TestSkipExisting:
    """RT-05."""

    @pytest.fixture
    def done(self, tmp_path: Path) -> tuple[Path, Path, Path]:
        scan, mask = save_pair(tmp_path)
        neuromend.fill(scan, mask, tmp_path / "o" / "f.nii.gz", model="harmonic", samples=1)
        return scan, mask, tmp_path / "o" / "f.nii.gz"

    def test_a_first_run_is_not_told_as_one_that_is_done_again(self, tmp_path: Path) -> None:
        result = neuromend.fill(
            *save_pair(tmp_path), tmp_path / "o" / "f.nii.gz", model="harmonic", skip_existing=True
        )
        assert "RT-05" not in {finding.code for finding in result.findings}

    def again(self, done: tuple[Path, Path, Path], **changes: Any) -> tuple[str, Any]:
        """What the finding says, and the result."""
        options = {"model": "harmonic", "samples": 1, "skip_existing": True} | changes
        result = neuromend.fill(*done[:2], options.pop("out", done[2]), **options)
        [finding] = [finding for finding in result.findings if finding.code == "RT-05"]
        return finding.message, result

    def test_complete_output_of_the_same_run_is_kept(
        self, done: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = contents(done[2].parent)
        first = json.loads((done[2].parent / "f.json").read_text())
        with monkeypatch.context() as patch:
            patch.setattr("neuromend.filling.paint", None)
            message, result = self.again(done, threads=1)
        assert "nothing was done" in message
        assert contents(done[2].parent) == before
        assert result.record == first
        assert {path.name for path in result.outputs.values()} == set(before)
        assert np.array_equal(stored(result.image), stored(nib.load(done[2])))
        assert len(result.samples) == 1

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"seed": 1}, "the settings changed since"),
            ({"dilate_mm": 3.0}, "the mask changed since"),
            ({"model": "ring-mean"}, "the model changed since"),
            ({"samples": 2}, "the settings changed since"),
        ],
    )
    def test_another_setting_or_model_is_done_again(
        self, done: tuple[Path, Path, Path], changes: dict[str, Any], reason: str
    ) -> None:
        before = contents(done[2].parent)
        message, _ = self.again(done, **changes)
        assert message == f"done again: {reason}"
        assert contents(done[2].parent) != before
        assert "nothing was done" in self.again(done, **changes)[0]

    def test_other_weights_under_the_same_name_are_done_again(
        self, done: tuple[Path, Path, Path], tmp_path: Path
    ) -> None:
        network = save_network(tmp_path / "model")
        assert "the model" in self.again(done, model=network)[0]
        assert "nothing was done" in self.again(done, model=network)[0]

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda folder: (folder / "f.json").unlink(), "there is no sidecar"),
            (lambda folder: (folder / "f.json").write_text("{}"), "its sidecar cannot be read"),
            (lambda folder: (folder / "f_mask.nii.gz").unlink(), "f_mask.nii.gz is missing or was changed"),
            (lambda folder: (folder / "f.nii.gz").write_bytes(b"x"), "f.nii.gz is missing or was changed"),
            (lambda folder: (folder / "f.png").write_bytes(b"x"), "f.png is missing or was changed"),
        ],
    )
    def test_incomplete_or_edited_output_is_done_again(
        self, done: tuple[Path, Path, Path], damage: Callable[[Path], object], reason: str
    ) -> None:
        files = set(contents(done[2].parent))
        damage(done[2].parent)
        assert self.again(done)[0].startswith(f"done again: {reason}")
        assert set(contents(done[2].parent)) == files
        assert "nothing was done" in self.again(done)[0]

    def test_another_scan_or_mask_under_the_same_name_is_done_again(
        self, done: tuple[Path, Path, Path]
    ) -> None:
        nib.save(image(ball(0.2)), done[1])
        assert self.again(done)[0] == "done again: the mask changed since"
        nib.save(image(head() // 2), done[0])
        assert self.again(done)[0] == "done again: the scan changed since"

    def test_the_same_voxels_under_another_header_are_done_again(self, done: tuple[Path, Path, Path]) -> None:
        moved = AFFINE.copy()
        moved[0, 3] += 7
        for array, path in ((head(), done[0]), (ball(), done[1])):
            nib.save(image(array, moved), path)
        message, result = self.again(done)
        assert message == "done again: the header of the scan changed since"
        np.testing.assert_allclose(nib.load(result.outputs["filled"]).affine, moved)

    def test_the_same_stem_in_another_format_is_done_again(self, done: tuple[Path, Path, Path]) -> None:
        message, result = self.again(done, out=done[2].with_name("f.nii"))
        assert message == "done again: other files were asked for"
        assert result.outputs["filled"].name == "f.nii"

    def test_a_pair_is_kept_too(self, tmp_path: Path) -> None:
        scan, mask = save_pair(tmp_path, "scan.img", scan=nib.Nifti1Pair(head(), AFFINE))
        done = scan, mask, tmp_path / "o" / "f.hdr"
        neuromend.fill(*done, model="harmonic", samples=1)
        message, result = self.again(done)
        assert "nothing was done" in message
        assert np.array_equal(stored(result.image)[~ball()], head()[~ball()])

    def test_without_output_there_is_nothing_to_skip(self) -> None:
        result = neuromend.fill(image(head()), image(ball()), model="harmonic", skip_existing=True)
        assert "RT-05" not in {finding.code for finding in result.findings}


class TestPlan:
    @pytest.mark.parametrize(
        ("out", "scan", "filled"),
        [
            ("f.nii.gz", "s.nii", "f.nii.gz"),
            ("F.NII.GZ", "s.nii", "F.NII.GZ"),
            ("new", "s.nii.gz", "new/s_inpainted.nii.gz"),
            ("new", "s.mgz", "new/s_inpainted.mgz"),
            ("sub-01.v2", "s.nii", "sub-01.v2/s_inpainted.nii"),
            ("new", "s.hdr", "new/s_inpainted.img"),
            ("f.hdr.gz", "s.hdr", "f.img.gz"),
            (".nii", "s.nii", ".nii/s_inpainted.nii"),
        ],
    )
    def test_names(self, tmp_path: Path, out: str, scan: str, filled: str) -> None:
        plan = OutputPlan.of(tmp_path / out, scan, samples=0)
        assert plan.files["filled"] == tmp_path / filled
        assert len({path.parent for path in plan.files.values()}) == 1

    def test_a_folder_in_the_place_of_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "f.json").mkdir()
        scan, mask = save_pair(tmp_path)
        with pytest.raises(NeuromendError, match="exists and is a folder") as refused:
            neuromend.fill(scan, mask, tmp_path / "f.nii.gz", model="harmonic", overwrite=True)
        assert (refused.value.code, refused.value.exit_status) == ("RT-04", 73)
        assert str(tmp_path / "f.json") in str(refused.value)

    def test_the_files_behind_a_source_are_both_halves_of_a_pair(self, tmp_path: Path) -> None:
        scan = nib.Nifti1Pair(head(), AFFINE)
        nib.save(scan, tmp_path / "s.img")
        both = {tmp_path / "s.img", tmp_path / "s.hdr"}
        assert set(files_behind(tmp_path / "s.hdr")) == both
        assert set(files_behind(str(tmp_path / "s.img"))) == both
        assert set(files_behind(nib.load(tmp_path / "s.hdr"))) == both
        assert files_behind(image(head())) == []
        assert files_behind(tmp_path / "s.nii") == [tmp_path / "s.nii"]


@pytest.mark.parametrize(
    ("dtype", "slope", "inter"), [("int16", 0.37, -12.5), ("float32", 1 / 3, 0.1), ("uint8", 1.0, 0.0)]
)
def test_the_report_shows_the_very_intensities_that_a_reader_of_the_file_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, slope: float, inter: float
) -> None:
    shown: list[ReportCase] = []
    monkeypatch.setattr(saving, "write_picture", lambda case, file: shown.append(case))
    scan = image((head() // 5).astype(dtype))
    scan.header.set_slope_inter(slope, inter)
    content = bytearray(scan.to_bytes())
    header = np.frombuffer(content, nib.nifti1.header_dtype, count=1)
    header["scl_slope"], header["scl_inter"] = slope, inter
    (tmp_path / "scan.nii").write_bytes(content)
    nib.save(image(ball()), tmp_path / "mask.nii")
    result = neuromend.fill(
        tmp_path / "scan.nii", tmp_path / "mask.nii", tmp_path / "f.nii", model="harmonic", samples=1
    )
    [case] = shown
    for drawn, role in ((case.after, "filled"), (case.samples[0], "sample-01")):
        written = read_volume(result.outputs[role]).values
        assert drawn.dtype == written.dtype
        assert np.array_equal(drawn, written)
    assert case.changed_outside == 0


def test_the_report_holds_the_methods_paragraph_of_cite_and_no_time_of_day(tmp_path: Path) -> None:
    from neuromend.cite import methods_paragraph
    from neuromend.provenance import read_sidecar

    scan, mask = save_pair(tmp_path)
    result = neuromend.fill(scan, mask, tmp_path / "f.nii.gz", model="harmonic")
    page = result.outputs["report"].read_text()
    paragraph = methods_paragraph(read_sidecar(result.outputs["record"]))
    assert paragraph.split(". ")[1] in page
    assert "outside were verified to be bit-identical" in page
    run = result.record["run"]
    assert run["started"] not in page
    assert run["ended"] not in page
