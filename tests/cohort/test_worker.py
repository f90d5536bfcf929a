"""One case in a worker: every fault an outcome, finished work kept, one model for all cases."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import neuromend
from neuromend import painting
from neuromend.cohort import worker
from neuromend.cohort.cases import Case, Outcome, Settings
from neuromend.cohort.listing import read_list
from neuromend.cohort.state import case_lock
from neuromend.cohort.worker import Busy, failed, fill_case, stop_run
from neuromend.errors import UsageError
from neuromend.painting import LoadedModel, Painter
from neuromend.provenance import read_sidecar

from ..filling_cases import contents, save_network
from .cohort_cases import QUICK, write_cohort

pytestmark = pytest.mark.usefixtures("plain_papers")


def outcome(case: Case, settings: Settings = QUICK, **more: Any) -> Outcome:
    answer = fill_case(case, settings, "run", more.get("finish"))
    assert isinstance(answer, Outcome)
    return answer


@pytest.fixture
def case(tmp_path: Path) -> Case:
    (found,) = read_list(write_cohort(tmp_path / "in", 1), tmp_path / "out")
    return found


def test_a_case_is_filled_and_its_facts_are_told(case: Case) -> None:
    told = outcome(case)
    assert (told.status, told.code, told.exit_status, told.reason) == ("done", "", 0, "")
    assert told.record is not None
    record = read_sidecar(told.record)
    assert told.volume_ml == record.mask.used_volume_ml
    assert told.filled_sha256 == next(o.sha256 for o in record.outputs if o.role == "filled")
    assert told.worker.endswith(f":{os.getpid()}")
    assert told.peak_bytes > 1_000_000
    assert not list(case.out.parent.glob(".*")), "neither lock nor hidden files are left"


def test_a_finished_case_is_kept_and_nothing_is_written(case: Case) -> None:
    outcome(case)
    before = contents(case.out.parent)
    assert outcome(case).status == "kept"
    assert contents(case.out.parent) == before


def spoil_output(case: Case) -> None:
    with case.out.open("r+b") as file:
        file.write(b"\0\0\0")


def change_mask(case: Case) -> None:
    image = nib.load(case.mask)
    values = np.asarray(image.dataobj).copy()
    values[tuple(np.argwhere(values)[0])] = 0
    nib.save(nib.Nifti1Image(values, image.affine), case.mask)


def change_scan(case: Case) -> None:
    image = nib.load(case.image)
    values = np.asarray(image.dataobj).copy()
    values[11, 13, 4] += 1
    nib.save(nib.Nifti1Image(values, image.affine), case.image)


def remove_sidecar(case: Case) -> None:
    next(case.out.parent.glob("*.json")).unlink()


def remove_picture(case: Case) -> None:
    next(case.out.parent.glob("*.png")).unlink()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil_output, "missing or was changed"),
        (remove_picture, "missing or was changed"),
        (remove_sidecar, "there is no sidecar"),
        (change_mask, "the mask changed"),
        (change_scan, "the scan changed"),
    ],
)
def test_what_is_not_the_result_of_this_run_is_done_again(case: Case, change: Any, reason: str) -> None:
    outcome(case)
    change(case)
    again = outcome(case)
    assert again.status == "redone"
    assert reason in again.reason
    assert outcome(case).status == "kept"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "harmonic"}, "the model changed"),
        ({"seed": 1}, "the settings"),
        ({"dilate_mm": 8.0}, "changed since"),
    ],
)
def test_other_settings_are_done_again(case: Case, changes: dict[str, Any], reason: str) -> None:
    outcome(case)
    again = outcome(case, replace(QUICK, **changes))
    assert again.status == "redone"
    assert reason in again.reason


def test_a_case_that_fails_names_its_code_and_leaves_nothing(case: Case) -> None:
    case.mask.unlink()
    told = outcome(case)
    assert (told.status, told.code, told.exit_status) == ("failed", "IN-38", 66)
    assert case.mask.name in told.message
    assert told.fix
    assert told.record is None
    assert not case.out.parent.exists()


def test_what_nobody_foresaw_is_an_outcome_too(case: Case) -> None:
    def finish(case: Case, result: neuromend.FillResult) -> None:
        raise ZeroDivisionError("one over nought")

    told = outcome(case, finish=finish)
    assert (told.status, told.code, told.exit_status) == ("failed", "UX-70", 70)
    assert "ZeroDivisionError: one over nought (test_worker.py, line" in told.message


def test_lack_of_memory_may_pass(case: Case) -> None:
    told = failed(case, MemoryError())
    assert (told.code, told.exit_status) == ("RT-12", 75)


def test_finish_is_called_after_a_fill_and_for_a_kept_result(case: Case) -> None:
    seen: list[tuple[str, bool]] = []
    for _ in range(2):
        outcome(case, finish=lambda case, result: seen.append((case.id, result.kept)))
    assert seen == [(case.id, False), (case.id, True)]


def test_a_case_that_another_run_is_filling_is_left_to_it(case: Case) -> None:
    with case_lock(case.out):
        answer = fill_case(case, QUICK, "run", None)
    assert isinstance(answer, Busy)
    assert str(os.getpid()) in answer.holder
    assert not case.out.exists()


def test_a_run_that_was_stopped_fills_nothing_more(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_stopped_runs", set())
    real = neuromend.filling.paint

    def paint(*arguments: Any, **named: Any) -> Any:
        stop_run("stopped")
        return real(*arguments, **named)

    monkeypatch.setattr("neuromend.filling.paint", paint)
    assert fill_case(case, QUICK, "stopped", None) is None, "stopped in the middle of a fill"
    assert not case.out.parent.exists(), "nothing half-written is left"
    assert fill_case(case, QUICK, "stopped", None) is None, "and before one"
    assert outcome(case).status == "done", "another run goes on"


def test_the_seed_of_a_case_depends_on_the_run_and_its_id_alone(tmp_path: Path) -> None:
    first, second, third = read_list(write_cohort(tmp_path / "in", 3), tmp_path / "out")
    seeds = [Settings(seed=4).seed_of(case) for case in (first, second, third)]
    assert len(set(seeds)) == 3
    moved = Case(second.id, Path("x"), Path("y"), Path("z"))
    assert Settings(seed=4, model="other").seed_of(moved) == seeds[1]
    assert Settings(seed=5).seed_of(second) != seeds[1]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert Settings().seed_of(Case("A", *(Path("x"),) * 3)) == 4668414425050641119, "for ever the same"


def test_settings_are_refused_before_any_case(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="UX-02"):
        Settings(samples=-1).check()
    with pytest.raises(UsageError, match="MA-"):
        Settings(labels=(1,), threshold=0.5).check()


def test_a_worker_loads_its_model_once_and_fills_as_fill_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    class Counted(Painter):
        def __init__(self, entry: Any, *more: Any, **named: Any) -> None:
            made.append(entry.name)
            super().__init__(entry, *more, **named)

    monkeypatch.setattr(painting, "Painter", Counted)
    monkeypatch.setattr(worker, "_model", LoadedModel())
    settings = Settings(
        model=str(save_network(tmp_path / "tiny")), samples=1, steps=1, threads=1, device="cpu"
    )
    for case in read_list(write_cohort(tmp_path / "in", 2), tmp_path / "out"):
        assert outcome(case, settings).status == "done"
        alone = neuromend.fill(
            case.image, case.mask, tmp_path / "alone" / case.out.name, **settings.arguments(case)
        )
        assert alone.outputs["filled"].read_bytes() == case.out.read_bytes()
    assert made == ["tiny"]
