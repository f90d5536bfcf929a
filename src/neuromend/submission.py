"""Submissions to the BraTS inpainting challenge: make them with any model, pack them."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuromend.data.atomic import hidden_name, resolve_output, storage_error, write_atomically
from neuromend.data.outputs import check_output
from neuromend.data.splice import encode, splice
from neuromend.data.volume import read_volume
from neuromend.errors import InputError, NeuromendError, StorageError
from neuromend.filling import fill
from neuromend.findings import Finding
from neuromend.pairing import PREDICTION, case_file, case_folders, listed
from neuromend.submission_checks import Checked, OnStep, check_submission, known_range, require_sound

ZIP_NAME = "submission.zip"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: the same files give the same zip

OnCase = Callable[[int, int, str, Sequence[Finding]], None]


def make_submission(
    cases: Path,
    out: Path,
    *,
    on_case: OnCase | None = None,
    **settings: Any,
) -> tuple[Path, tuple[Finding, ...]]:
    """Fill every case and pack the zip.

    Every fill stands complete in ``out/fills/ID`` (report and record beside it) and is kept by a second run with
    the same inputs and settings. ``out/predictions`` holds what goes into the zip: the fill, its values cut to
    the range of the case's own voxels.

    Args:
        cases: the case folders, with ``ID-t1n-voided`` (blank in the mask) and ``ID-mask`` (the union of what is to
            be filled).
        out: folder for everything that is written; made if it is missing.
        on_case: called with (done, of, name of the case, its findings) after each case.
        settings: of :func:`neuromend.fill`: model, samples, steps, seed, device, threads, on_step, command.

    Returns:
        The zip, and what the last check noticed.

    Raises:
        InputError: SU-05, cases that could not be filled (all others were); SU-01.
        NeuromendError: any fault of the model, the device or the disk.
    """
    folders = case_folders(cases)
    sources = {
        name: (case_file(folder, name, "t1n-voided"), case_file(folder, name, "mask"))
        for name, folder in folders.items()
    }
    predictions = out / "predictions"
    target = out / ZIP_NAME
    check_output(target, [path for pair in sources.values() for path in pair], overwrite=True, needed_bytes=0)
    check_output(predictions / ZIP_NAME, [], overwrite=True, needed_bytes=0)
    refused: dict[str, InputError] = {}
    for done, (name, (scan, mask)) in enumerate(sources.items(), start=1):
        try:
            findings = _make_one(name, scan, mask, out / "fills" / name, predictions, settings)
        except InputError as error:
            refused[name] = error
            continue
        if on_case is not None:
            on_case(done, len(sources), name, findings)
    if refused:
        each = listed((f"{name} [{error.code}] {error.what}" for name, error in refused.items()), 3)
        raise InputError(
            "SU-05",
            f"{len(refused)} of {len(sources)} cases cannot be filled: {each}",
            why="a submission needs every case; the others are filled and will be kept",
            fix="repair these cases, then run the same command again",
            path=cases,
        )
    checked = check_submission(predictions, cases)
    require_sound(checked, predictions)
    pack(checked, target)
    return target, checked.findings


def pack_folder(
    folder: Path, target: Path, cases: Path | None, *, overwrite: bool, on_step: OnStep | None = None
) -> tuple[Finding, ...]:
    """Check a folder of predictions and pack it.

    Args:
        folder, cases, on_step: as in ``check_submission``.
        target: the zip.
        overwrite: whether it may be there already.

    Returns:
        What was noticed.

    Raises:
        InputError: SU-01. OutputError: RT-04 and others of ``check_output``.
    """
    created = check_output(target, [], overwrite=overwrite, needed_bytes=0)
    checked = check_submission(folder, cases, on_step=on_step)
    require_sound(checked, folder)
    pack(checked, target)
    return (*created, *checked.findings)


def pack(checked: Checked, target: Path) -> None:
    """Write the zip, complete or not at all; the same predictions give the same bytes.

    Raises:
        StorageError, OutputPermissionError, OutputError: RT-01 to RT-07.
    """
    target = resolve_output(target)
    hidden = target.with_name(hidden_name())
    try:
        # The files are compressed already.
        with zipfile.ZipFile(hidden, "w", zipfile.ZIP_STORED) as archive:
            for path in checked.predictions.values():
                entry = zipfile.ZipInfo(path.name, ZIP_DATE)
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                entry.file_size = path.stat().st_size
                with path.open("rb") as source, archive.open(entry, "w") as packed:
                    shutil.copyfileobj(source, packed, 1 << 22)
        _flush(hidden)
        with zipfile.ZipFile(hidden) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise StorageError(
                "RT-06",
                f"what was read back differs from what was written ({broken})",
                why="the disk returned other bytes than it was given",
                fix="check the disk and write to another one",
                path=target,
            )
        os.replace(hidden, target)
    except OSError as error:
        if isinstance(error, NeuromendError):
            raise
        raise storage_error(target, error) from error
    finally:
        hidden.unlink(missing_ok=True)


def _make_one(
    name: str, scan: Path, mask: Path, folder: Path, predictions: Path, settings: dict[str, Any]
) -> tuple[Finding, ...]:
    """Fill one case, or keep its fill, and write its prediction."""
    target = folder / f"{name}{PREDICTION}.nii.gz"
    begun = target.exists()
    result = fill(scan, mask, target, **settings, skip_existing=begun, overwrite=not begun)
    voided = read_volume(scan)
    hole = np.asarray(result.mask.dataobj) != 0
    filled = read_volume(result.outputs["filled"])
    low, high = known_range(voided, hole)
    cut = np.clip(filled.values, low, high)
    changed = int(np.count_nonzero(cut[hole] != filled.values[hole]))
    path = predictions / result.outputs["filled"].name
    write_atomically(path, encode(splice(voided, cut, hole).payload, path.name))
    if not changed:
        return result.findings
    message = (
        f"{changed} of {int(hole.sum())} filled voxels were cut to the scan's own range, {low:g} to {high:g}"
    )
    return (*result.findings, Finding("SU-03", "note", message))


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
