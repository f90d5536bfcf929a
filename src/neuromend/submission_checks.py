"""Would the BraTS inpainting challenge take these predictions?

A submission is a folder (later a zip) of files ``BraTS-GLI-XXXXX-XXX-t1n-inference.nii.gz``, one a case, each a
whole scan of 240 x 240 x 155 voxels on the grid and in the units of the case's ``t1n-voided``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuromend.data.mask_values import binarise
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import InputError, NeuromendError
from neuromend.findings import Finding
from neuromend.metrics import Mask
from neuromend.pairing import PREDICTION, case_file, case_folders, listed, need_folder
from neuromend.scoring_checks import check_grid

OnStep = Callable[[str, int, int], None]

GRID = (240, 240, 155)
NAME = re.compile(r"(BraTS-GLI-\d{5}-\d{3})" + PREDICTION + r"\.nii\.gz")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a folder of predictions.

    Attributes:
        predictions: case -> file, of those with a right name.
        faults: what the challenge would not take or could not score.
        findings: what is only odd.
    """

    predictions: dict[str, Path]
    faults: tuple[NeuromendError, ...]
    findings: tuple[Finding, ...]


def check_submission(folder: Path, cases: Path | None = None, *, on_step: OnStep | None = None) -> Checked:
    """Check every file of a submission; nothing is stopped by a fault, so that all are told at once.

    Args:
        folder: the predictions, with nothing else in it.
        cases: the case folders, with ``ID-t1n-voided`` and ``ID-mask``; without them only names, grid and finite
            values are checked, with them also affine, range of values, missing and extra predictions.
        on_step: called with (stage, done, of).

    Raises:
        MissingInputError: IN-38 or EV-04, a folder is missing or holds no case, or a case lacks a file.
    """
    faults: list[NeuromendError] = []
    findings: list[Finding] = []
    folders = case_folders(cases) if cases is not None else {}
    predictions: dict[str, Path] = {}
    for path in _files_in(folder):
        named = NAME.fullmatch(path.name)
        if named is None or not path.is_file():
            faults.append(_bad_name(path))
        elif folders and named[1] not in folders:
            faults.append(_no_case(path, named[1]))
        else:
            predictions[named[1]] = path
    lacking = [name for name in folders if name not in predictions]
    if lacking or not predictions:
        faults.append(_lacking(folder, lacking))
    for done, (name, path) in enumerate(predictions.items()):
        if on_step is not None:
            on_step("checking", done, len(predictions))
        try:
            findings += _check_file(name, path, folders.get(name))
        except InputError as error:
            faults.append(error)
    return Checked(predictions, tuple(faults), tuple(findings))


def require_sound(checked: Checked, folder: Path) -> None:
    """Raise InputError SU-01 if there is any fault."""
    if checked.faults:
        each = listed((f"[{fault.code}] {fault.path}: {fault.what}" for fault in checked.faults), 3)
        raise InputError(
            "SU-01",
            f"{len(checked.faults)} faults in this submission: {each}",
            why="the challenge would refuse it, or score it as zero",
            fix=f"correct them, then: neuromend submission check '{folder}'",
            path=folder,
        )


def known_range(voided: Volume, hole: Mask) -> tuple[float, float]:
    """Darkest and brightest value of the case where nothing is hidden."""
    known = voided.values[~hole]
    return float(known.min()), float(known.max())


def _files_in(folder: Path) -> list[Path]:
    """Everything in a folder but hidden files, sorted."""
    need_folder(folder)
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _check_file(name: str, path: Path, case: Path | None) -> Iterator[Finding]:
    volume = read_volume(path)
    if volume.shape != GRID:
        sizes = ["x".join(map(str, shape)) for shape in (volume.shape, GRID)]
        raise InputError(
            "SU-02",
            f"{sizes[0]} voxels, expected {sizes[1]}",
            why="the challenge compares voxel with voxel on its own grid",
            fix="write the prediction on the grid of the case's t1n-voided",
            path=path,
        )
    broken = int(np.count_nonzero(~np.isfinite(volume.values)))
    if broken:
        raise InputError(
            "IN-15",
            f"{broken} voxels are not finite",
            why="the challenge multiplies by the mask, and NaN times 0 is NaN: the case would have no score",
            fix="fill the case again",
            path=path,
        )
    if case is not None:
        yield from _check_against_case(name, volume, case)


def _check_against_case(name: str, volume: Volume, case: Path) -> Iterator[Finding]:
    voided = read_volume(case_file(case, name, "t1n-voided"))
    hole, _ = binarise(read_volume(case_file(case, name, "mask")), labels=None, threshold=None, invert=False)
    yield from check_grid(volume, voided, "prediction")
    low, high = known_range(voided, hole)
    found = float(volume.values.min()), float(volume.values.max())
    if found[0] < low or found[1] > high:
        raise InputError(
            "SU-03",
            f"values from {found[0]:g} to {found[1]:g}, expected {low:g} to {high:g} as in the case's t1n-voided",
            why="the fill is scaled by the intensities of the voided scan; what lies outside is cut off",
            fix="bring the prediction back to the units of the scan",
            path=volume.path,
        )
    changed = int(np.count_nonzero(volume.values[~hole] != voided.values[~hole]))
    if changed:
        message = (
            f"{name}: {changed} of {int((~hole).sum())} voxels outside the mask differ from t1n-voided; not scored, "
            "but a prediction in other units or turned over looks like this"
        )
        yield Finding("SU-06", "warning", message)


def _bad_name(path: Path) -> InputError:
    return InputError(
        "SU-04",
        f"the name is not BraTS-GLI-XXXXX-XXX{PREDICTION}.nii.gz",
        why="the challenge finds predictions by their names, and takes no other file",
        fix="rename it, or move it to another folder",
        path=path,
    )


def _no_case(path: Path, name: str) -> InputError:
    return InputError(
        "EV-02",
        f"there is no case {name}",
        why="the challenge expects one prediction for each case and no other",
        fix="move it to another folder, or give the folder with all cases",
        path=path,
    )


def _lacking(folder: Path, names: Sequence[str]) -> InputError:
    what = f"{len(names)} cases have no prediction: {listed(names)}" if names else "there is no prediction"
    return InputError(
        "EV-01",
        what,
        why="the challenge expects one prediction for each case",
        fix="add them, or make all of them: neuromend submission make --cases DIR --out DIR",
        path=folder,
    )
