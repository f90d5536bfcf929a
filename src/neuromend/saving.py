"""The end of the main job: put the fill into the scan, write every file, prove what was written.

Everything is staged under hidden names first; the filled file is read back and compared with the input;
then the files get their names in order, the JSON sidecar last. Where the sidecar is, everything else is.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from neuromend.data.atomic import OutputSet, Verify, hidden_name, storage_error
from neuromend.data.companion import companion
from neuromend.data.images import image_from_bytes
from neuromend.data.splice import (
    FAR,
    Spliced,
    encode,
    files_of,
    splice,
    spliced_image,
    verify_header_half,
    verify_identical_outside,
)
from neuromend.data.volume import Volume
from neuromend.errors import NeuromendError
from neuromend.findings import Finding
from neuromend.planning import HEADER_HALF, OutputPlan
from neuromend.provenance import OutputRecord, Sidecar, hash_file, read_sidecar
from neuromend.recording import Job, model_record, report_case_of, sidecar_of
from neuromend.report.page import render_page
from neuromend.report.picture import write_picture

CLIPPED_SHARE = 0.01
"""Of the filled voxels, the share cut far into the stored type's range from which on the result deserves a look."""

Stage = Callable[[str, Path, bytes, Verify | None], None]


@dataclass(frozen=True, eq=False, slots=True)
class Fills:
    """What the model painted, in the scan's units.

    Attributes:
        mean: the value of every in-mask voxel, in the order of ``values[mask]``.
        samples: each sample likewise; empty for the expected fill.
        spread: their standard deviation; None with fewer than two samples.
    """

    mean: NDArray[np.float64]
    samples: tuple[NDArray[np.float64], ...]
    spread: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False, slots=True)
class Saved:
    """The result as images, its sidecar and the findings that stand in it."""

    image: Any
    mask: Any
    samples: tuple[Any, ...]
    uncertainty: Any
    sidecar: Sidecar
    findings: tuple[Finding, ...]


def save(plan: OutputPlan, job: Job, fills: Fills, findings: Sequence[Finding]) -> Saved:
    """Splice, stage, verify, publish. With an empty plan nothing touches the disk.

    Args:
        findings: about the scan, the mask and the model, for the record.

    Raises:
        StorageError, OutputError, OutputPermissionError: nothing half-written is left, older files are intact.
    """
    scan, hole = job.scan, job.lesion.voxels
    filled = splice(scan, _full(fills.mean, job), hole)
    samples = [splice(scan, _full(values, job), hole) for values in fills.samples]
    spread = None if fills.spread is None else _full(fills.spread, job)
    written: list[OutputRecord] = []
    with OutputSet() as outputs:

        def stage(role: str, path: Path, payload: bytes, verify: Verify | None = None) -> None:
            sha256 = outputs.add(path, payload, verify=verify)
            written.append(OutputRecord(role=role, file=plan.recorded_name(role), sha256=sha256))

        if plan.files:
            outside = _stage_scan(stage, "filled", plan, filled, job)
            for number, sample in enumerate(samples, 1):
                _stage_scan(stage, f"sample-{number:02d}", plan, sample, job)
            for role, array, dtype in (("mask", hole, np.uint8), ("uncertainty", spread, np.float32)):
                if array is not None:
                    path = plan.files[role]
                    stage(role, path, encode(companion(scan, array, dtype), path.name))
        else:
            outside = _identical_outside(scan, filled, hole)
        noticed = (*findings, *_result_findings(job, filled, outside))
        sidecar = sidecar_of(job, clipped=filled.clipped, outside=outside, findings=noticed, outputs=written)
        if plan.files:
            title = scan.path.name if scan.path is not None else plan.files["filled"].name
            case = report_case_of(
                job, filled, samples, spread, title=title, findings=noticed, sidecar=sidecar
            )
            picture = io.BytesIO()
            write_picture(case, picture)
            stage("picture", plan.files["picture"], picture.getvalue())
            stage("report", plan.files["report"], render_page(case).encode())
            sidecar = sidecar.model_copy(update={"outputs": written})
            outputs.add(plan.files["record"], sidecar.to_json().encode())
            with older_sidecar_aside(plan):
                outputs.publish()
    return Saved(
        image=spliced_image(scan, filled),
        mask=companion_image(scan, hole, np.uint8),
        samples=tuple(spliced_image(scan, sample) for sample in samples),
        uncertainty=None if spread is None else companion_image(scan, spread, np.float32),
        sidecar=sidecar,
        findings=noticed,
    )


def why_redo(plan: OutputPlan, job: Job) -> str | None:
    """None if complete output of the same inputs, model and settings is there (RT-05); else what differs."""
    record = plan.files["record"]
    if not record.exists():
        return "there is no sidecar, the mark of a finished run"
    try:
        found = read_sidecar(record)
    except NeuromendError as error:
        return f"its sidecar cannot be read ({error.what})"
    expected = {
        "the scan": (found.image.voxels_sha256, job.scan.sha256_voxels),
        "the mask": (found.mask.used_voxels_sha256, job.lesion.sha256_voxels),
        "the model": (found.model, model_record(job.entry)),
        "the settings": (found.settings, job.settings),
    }
    for name, (old, new) in expected.items():
        if old != new:
            return f"{name} changed since"
    for output in found.outputs:
        path = record.parent / output.file
        if not path.is_file() or hash_file(path) != output.sha256:
            return f"{output.file} is missing or was changed"
    wanted = {role: plan.recorded_name(role) for role in plan.files if role != "record"}
    if {output.role: output.file for output in found.outputs} != wanted:
        return "other files were asked for"
    try:  # the same voxels may have got another header since: affine, scaling, extensions
        verify_identical_outside(job.scan, plan.files["filled"], job.lesion.voxels)
        if "filled" + HEADER_HALF in plan.files:
            verify_header_half(job.scan, plan.files["filled" + HEADER_HALF])
    except NeuromendError:
        return "the header of the scan changed since"
    return None


def load_saved(plan: OutputPlan) -> Saved:
    """What an earlier, identical run has written (``skip_existing``)."""
    images: dict[str, Any] = {role: nib.load(path) for role, path in plan.images.items()}
    sidecar = read_sidecar(plan.files["record"])
    return Saved(
        image=images["filled"],
        mask=images["mask"],
        samples=tuple(image for role, image in images.items() if role.startswith("sample")),
        uncertainty=images.get("uncertainty"),
        sidecar=sidecar,
        findings=tuple(Finding(f.code, f.level, f.message) for f in sidecar.findings),
    )


def companion_image(scan: Volume, array: NDArray[Any], dtype: Any) -> Any:
    """An array on the scan's grid as a nibabel image."""
    container = (
        "mgh" if scan.container == "mgh" else "nifti2" if scan.container.startswith("nifti2") else "nifti1"
    )
    return image_from_bytes(companion(scan, array, dtype), container, None)


def _full(values: NDArray[np.float64], job: Job) -> NDArray[np.float64]:
    out = np.zeros(job.scan.shape)
    out[job.lesion.voxels] = values
    return out


def _stage_scan(stage: Stage, role: str, plan: OutputPlan, spliced: Spliced, job: Job) -> int:
    """Stage a filled scan (both halves of a pair); return how many voxels outside the mask were read back equal."""
    identical: list[int] = []

    def verify_voxels(path: Path) -> None:
        identical.append(verify_identical_outside(job.scan, path, job.lesion.voxels))

    for path, payload in files_of(spliced, plan.files[role]):
        if path == plan.files[role]:
            stage(role, path, payload, verify_voxels)
        else:
            stage(role + HEADER_HALF, path, payload, partial(verify_header_half, job.scan))
    return identical[0]


def _identical_outside(scan: Volume, filled: Spliced, hole: NDArray[np.bool_]) -> int:
    """How many voxels outside the mask are the scan's, bit for bit, in a fill that stays in memory."""
    bits = f"u{scan.stored_dtype.itemsize}"
    before, after = scan.stored().view(bits), scan.stored(np.frombuffer(filled.payload, np.uint8)).view(bits)
    others = int(np.prod(scan.header.dims)) - hole.size  # the other volumes of a series
    return int(np.count_nonzero((before == after) & ~hole)) + others


@contextmanager
def older_sidecar_aside(plan: OutputPlan) -> Iterator[None]:
    """Hide the sidecar of an older run while its files are replaced: a sidecar never stands beside other files.

    It comes back if nothing was replaced after all, and goes with the first file that was.
    """
    record = plan.files["record"].resolve()
    first = plan.files.get("filled" + HEADER_HALF, plan.files["filled"])
    if not record.is_file():
        yield
        return
    aside, before = record.with_name(hidden_name()), _identity(first)
    try:
        os.replace(record, aside)
    except OSError as error:
        raise storage_error(record, error) from error
    try:
        yield
    except BaseException:
        if _identity(first) == before and not record.exists():
            os.replace(aside, record)
        raise
    finally:
        aside.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    return (path.stat().st_dev, path.stat().st_ino) if path.exists() else None


def _result_findings(job: Job, filled: Spliced, outside: int) -> list[Finding]:
    found = [
        Finding("OK-01", "pass", f"voxels outside the mask are identical: {outside} compared bit for bit")
    ]
    if filled.clipped:
        found.append(_clipping(filled, int(np.count_nonzero(job.lesion.voxels)), job.scan.stored_dtype))
    return found


def _clipping(filled: Spliced, voxels: int, dtype: np.dtype[Any]) -> Finding:
    """IN-18, as loud as it matters: a few voxels, or values that nearly fit, change nothing that is seen."""
    cut = f"{filled.clipped:,} of {voxels:,} filled voxels were cut to the range that {dtype} can store"
    if filled.clipped_far <= CLIPPED_SHARE * voxels:
        return Finding("IN-18", "note", f"{cut}: too few, or by too little, to matter")
    far = f"{filled.clipped_far:,} of them by more than {FAR:.0%} of it"
    return Finding("IN-18", "warning", f"{cut}, {far}; store the scan in a wider type, such as float32")
