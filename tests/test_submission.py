from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend import submission, submission_checks
from neuromend.errors import InputError, MissingInputError, OutputError
from neuromend.findings import Finding
from neuromend.submission import make_submission, pack_folder
from neuromend.submission_checks import GRID, check_submission, require_sound

from .brats_cases import AFFINE, IDS, SHAPE, add_case, add_prediction, brain, hole, save, tumour

FIRST = sorted(IDS)[0]


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The challenge's grid takes a second a file; the rules are the same on a small one."""
    monkeypatch.setattr(submission_checks, "GRID", SHAPE)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    for seed, name in enumerate(IDS):
        add_case(tmp_path / "cases", name, seed)
    return tmp_path / "cases"


@pytest.fixture
def folder(cases: Path, tmp_path: Path) -> Path:
    """Sound predictions: the voided scan with 900 in the hole."""
    for name in IDS:
        voided = np.asarray(nib.load(cases / name / f"{name}-t1n-voided.nii.gz").dataobj)
        add_prediction(tmp_path / "pred", name, np.where(hole() | tumour(), 900, voided).astype(np.float32))
    return tmp_path / "pred"


def prediction(folder: Path, name: str = FIRST) -> Path:
    return folder / f"{name}-t1n-inference.nii.gz"


def codes(folder: Path, cases: Path | None = None) -> list[str]:
    return [fault.code for fault in check_submission(folder, cases).faults]


@pytest.mark.usefixtures("small_grid")
class TestCheck:
    def test_a_sound_submission_has_no_fault(self, folder: Path, cases: Path) -> None:
        steps: list[tuple[str, int, int]] = []
        checked = check_submission(folder, cases, on_step=lambda *step: steps.append(step))
        assert (checked.faults, checked.findings) == ((), ())
        assert list(checked.predictions) == sorted(IDS)
        assert steps == [("checking", 0, 3), ("checking", 1, 3), ("checking", 2, 3)]
        require_sound(checked, folder)

    @pytest.mark.parametrize(
        "name",
        ["BraTS-GLI-00001-01-t1n-inference.nii.gz", "BraTS-GLI-00001-001-t1n-inference.nii",
         "BraTS-GLI-00001-001-t1n-voided.nii.gz", "log.txt"],
    )  # fmt: skip
    def test_another_name_is_a_fault(self, folder: Path, name: str) -> None:
        (folder / name).write_text("")
        (fault,) = check_submission(folder).faults
        assert (fault.code, fault.exit_status, fault.path) == ("SU-04", 65, folder / name)

    def test_another_grid_is_a_fault(self, folder: Path) -> None:
        save(prediction(folder), brain()[1:])
        (fault,) = check_submission(folder).faults
        assert (fault.code, fault.exit_status, fault.path) == ("SU-02", 65, prediction(folder))
        assert "19x22x24 voxels, expected 20x22x24" in fault.what

    def test_values_that_are_not_finite_are_a_fault_anywhere(self, folder: Path) -> None:
        values = brain().astype(np.float32)
        values[0, 0, 0] = np.nan
        save(prediction(folder), values)
        (fault,) = check_submission(folder).faults
        assert (fault.code, fault.what) == ("IN-15", "1 voxels are not finite")

    def test_a_file_that_cannot_be_read_is_a_fault_and_the_others_are_checked(self, folder: Path) -> None:
        prediction(folder).write_bytes(b"")
        save(prediction(folder, sorted(IDS)[2]), brain()[1:])
        assert codes(folder) == ["IN-01", "SU-02"]

    def test_another_affine_is_a_fault(self, folder: Path, cases: Path) -> None:
        save(prediction(folder), brain(), AFFINE @ np.diag([-1, 1, 1, 1]))
        assert codes(folder) == []
        assert codes(folder, cases) == ["MA-10"]

    @pytest.mark.parametrize(
        ("value", "shown"), [(-1, "values from -1 to"), (2000, "to 2000, expected 0 to 1")]
    )
    def test_values_beyond_those_of_the_case_are_a_fault(
        self, folder: Path, cases: Path, value: float, shown: str
    ) -> None:
        values = np.asarray(nib.load(prediction(folder)).dataobj).copy()
        values[6, 7, 8] = value
        save(prediction(folder), values)
        assert codes(folder) == []
        (fault,) = check_submission(folder, cases).faults
        assert (fault.code, fault.exit_status, fault.path) == ("SU-03", 65, prediction(folder))
        assert shown in fault.what

    def test_missing_and_surplus_predictions_are_faults(self, folder: Path, cases: Path) -> None:
        prediction(folder).rename(prediction(folder, "BraTS-GLI-09999-000"))
        surplus, lacking = check_submission(folder, cases).faults
        assert (surplus.code, surplus.path) == ("EV-02", prediction(folder, "BraTS-GLI-09999-000"))
        assert (lacking.code, lacking.what) == ("EV-01", f"1 cases have no prediction: {FIRST}")

    def test_an_empty_folder_is_a_fault_and_no_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert codes(tmp_path / "empty") == ["EV-01"]
        with pytest.raises(MissingInputError) as caught:
            check_submission(tmp_path / "nowhere")
        assert caught.value.code == "IN-38"

    def test_changes_outside_the_mask_are_told(self, folder: Path, cases: Path) -> None:
        voided = np.asarray(nib.load(cases / FIRST / f"{FIRST}-t1n-voided.nii.gz").dataobj)
        save(prediction(folder), (voided / 1500).astype(np.float32))
        (finding,) = check_submission(folder, cases).findings
        assert (finding.code, finding.level) == ("SU-06", "warning")
        assert finding.message.startswith(f"{FIRST}: ")

    def test_all_faults_are_told_in_one_error(self, folder: Path) -> None:
        prediction(folder).write_bytes(b"")
        (folder / "log.txt").write_text("")
        with pytest.raises(InputError, match="2 faults in this submission") as caught:
            require_sound(check_submission(folder), folder)
        assert (caught.value.code, caught.value.exit_status) == ("SU-01", 65)
        assert "[SU-04]" in caught.value.what
        assert "[IN-01]" in caught.value.what


def test_the_grid_is_that_of_the_challenge(tmp_path: Path) -> None:
    assert GRID == (240, 240, 155)
    values = np.zeros(GRID, np.uint8)
    values[100:140, 90:130, 60:90] = 100
    save(prediction(tmp_path), values, np.eye(4))
    assert codes(tmp_path) == []


@pytest.mark.usefixtures("small_grid")
class TestPack:
    def test_the_zip_holds_the_files_themselves(self, folder: Path, cases: Path, tmp_path: Path) -> None:
        target = tmp_path / "out" / "mine.zip"
        assert [f.code for f in pack_folder(folder, target, cases, overwrite=False)] == ["RT-01"]
        with zipfile.ZipFile(target) as archive:
            assert archive.namelist() == [prediction(folder, name).name for name in sorted(IDS)]
            for name in archive.namelist():
                assert archive.read(name) == (folder / name).read_bytes()
        assert [path.name for path in target.parent.iterdir()] == ["mine.zip"]

    def test_the_same_predictions_give_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        sums = []
        for n in range(2):
            pack_folder(folder, tmp_path / f"{n}.zip", None, overwrite=False)
            sums.append(hashlib.sha256((tmp_path / f"{n}.zip").read_bytes()).hexdigest())
            prediction(folder).touch()
        assert sums[0] == sums[1]

    def test_a_zip_that_is_there_is_kept(self, folder: Path, tmp_path: Path) -> None:
        target = tmp_path / "mine.zip"
        target.write_bytes(b"precious")
        with pytest.raises(OutputError) as caught:
            pack_folder(folder, target, None, overwrite=False)
        assert (caught.value.code, target.read_bytes()) == ("RT-04", b"precious")
        (folder / "log.txt").write_text("")
        with pytest.raises(InputError, match="1 faults"):
            pack_folder(folder, target, None, overwrite=True)
        assert target.read_bytes() == b"precious"

    def test_a_full_disk_leaves_nothing_behind(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(submission.os, "fsync", full)
        (tmp_path / "out").mkdir()
        with pytest.raises(Exception, match="disk is full") as caught:
            pack_folder(folder, tmp_path / "out" / "mine.zip", None, overwrite=False)
        assert (caught.value.code, caught.value.exit_status) == ("RT-03", 74)  # type: ignore[attr-defined]
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("small_grid")
class TestMake:
    MODEL: dict[str, Any] = {"model": "ring-mean", "threads": 1}  # noqa: RUF012

    def test_every_case_is_filled_and_packed_and_a_second_run_keeps_them(
        self, cases: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        told: list[tuple[int, int, str, list[str]]] = []

        def case_done(done: int, of: int, name: str, findings: Any) -> None:
            told.append((done, of, name, [f.code for f in findings if f.code in ("RT-05", "SU-03")]))

        target, findings = make_submission(cases, out, on_case=case_done, **self.MODEL)
        assert (target, findings) == (out / "submission.zip", ())
        assert told == [(n, 3, name, []) for n, name in enumerate(sorted(IDS), start=1)]
        assert sorted(path.name for path in (out / "predictions").iterdir()) == [
            prediction(out, name).name for name in sorted(IDS)
        ]
        for name in IDS:
            voided = np.asarray(nib.load(cases / name / f"{name}-t1n-voided.nii.gz").dataobj)
            filled = np.asarray(nib.load(prediction(out / "predictions", name)).dataobj)
            union = hole() | tumour()
            assert np.array_equal(filled[~union], voided[~union])
            assert (filled[union] > 500).all()
        first = target.read_bytes()
        (out / "submission.zip").unlink()
        told.clear()
        make_submission(cases, out, on_case=case_done, **self.MODEL)
        assert [codes for *_, codes in told] == [["RT-05"]] * 3
        assert target.read_bytes() == first

    def test_values_are_cut_to_the_range_of_the_scan(
        self, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from neuromend import filling

        def bright(*arguments: Any, **options: Any) -> Any:
            fills = paint(*arguments, **options)
            fills.mean[0] += 1e5
            return fills

        paint = filling.paint
        monkeypatch.setattr(filling, "paint", bright)
        seen: list[Finding] = []
        make_submission(cases, tmp_path / "out", on_case=lambda *case: seen.extend(case[3]), **self.MODEL)
        cut = [f for f in seen if f.code == "SU-03"]
        assert [f.level for f in cut] == ["note"] * 3
        assert cut[0].message.startswith("1 of 180 filled voxels were cut to the scan's own range, 0 to 1")

    def test_a_case_that_cannot_be_filled_is_told_and_the_others_are_kept(
        self, cases: Path, tmp_path: Path
    ) -> None:
        save(cases / FIRST / f"{FIRST}-mask.nii.gz", np.zeros(SHAPE, np.float32))
        with pytest.raises(InputError, match=f"1 of 3 cases cannot be filled: {FIRST} ") as caught:
            make_submission(cases, tmp_path / "out", **self.MODEL)
        assert (caught.value.code, caught.value.exit_status) == ("SU-05", 65)
        assert "[MA-01]" in caught.value.what
        assert len(list((tmp_path / "out" / "predictions").iterdir())) == 2
        assert not (tmp_path / "out" / "submission.zip").exists()

    def test_a_case_without_its_mask_is_refused_before_anything_is_filled(
        self, cases: Path, tmp_path: Path
    ) -> None:
        (cases / FIRST / f"{FIRST}-mask.nii.gz").unlink()
        with pytest.raises(MissingInputError, match=f"no file {FIRST}-mask.nii.gz") as caught:
            make_submission(cases, tmp_path / "out", **self.MODEL)
        assert (caught.value.code, caught.value.exit_status) == ("EV-04", 66)
        assert not (tmp_path / "out").exists()
