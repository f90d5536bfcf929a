"""The end of the main job: put the fill into the scan, write every file, prove what was written.

Everything is staged under hidden names first; the filled file is read back and compared with the input;
then the files get their names in order, the JSON sidecar last. Where the sidecar is, everything else is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from neuromend.data.atomic import OutputSet
from neuromend.data.companion import companion
from neuromend.data.frame import Frame
from neuromend.data.images import image_from_bytes
from neuromend.data.masks import LesionMask
from neuromend.data.outputs import check_output
from neuromend.data.splice import (
    Spliced,
    check_suffix,
    encode,
    files_of,
    splice,
    spliced_image,
    verify_header_half,
    verify_identical_outside,
)
from neuromend.data.volume import Volume
from neuromend.errors import InputError, MissingInputError
from neuromend.findings import Finding
from neuromend.models import ModelEntry
from neuromend.provenance import (
    GeneratedBy,
    ImageRecord,
    MaskRecord,
    ModelRecord,
    OutputRecord,
    ResultRecord,
    SettingsRecord,
    Sidecar,
    finding_records,
    hash_file,
    read_sidecar,
    run_record,
    version_string,
)
from neuromend.report.case import ReportCase
from neuromend.report.page import render_page
from neuromend.report.picture import write_picture

SUFFIXES = (".nii.gz", ".img.gz", ".hdr.gz", ".nii", ".img", ".hdr", ".mgz", ".mgh")

SMALL_FILES_BYTES = 6_000_000
"""Room for the report, the picture and the sidecar in the estimate of disk space."""


def split_suffix(name: str) -> tuple[str, str]:
    """``sub-01_T1w.nii.gz`` -> (``sub-01_T1w``, ``.nii.gz``); an unknown ending stays in the stem."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Which files will be written, by role; empty if nothing is to be written.

    The roles, in order: "filled", "mask", "uncertainty", "sample-01" ..., "picture", "report", "record".
    """

    files: dict[str, Path]

    @classmethod
    def of(cls, out: str | Path | None, image: object, *, samples: int) -> OutputPlan:
        """Name the files.

        Args:
            out: the filled file, or a folder (an existing one, or a name without the suffix of an image).
            image: the scan as given; its name is used if ``out`` is a folder.
            samples: number of samples that will be drawn.
        """
        if out is None:
            return cls({})
        target = Path(out).expanduser()
        stem, suffix = split_suffix(target.name)
        if not suffix or target.is_dir():
            name = Path(image).name if isinstance(image, (str, os.PathLike)) else "scan.nii.gz"
            stem, suffix = split_suffix(name)
            target = target / f"{stem}_inpainted{suffix or '.nii.gz'}"
            stem = f"{stem}_inpainted"
        target = target.absolute()
        other = ".mgz" if suffix.lower() in (".mgz", ".mgh") else ".nii.gz"
        files = {"filled": target, "mask": target.with_name(f"{stem}_mask{other}")}
        if samples > 1:
            files["uncertainty"] = target.with_name(f"{stem}_uncertainty{other}")
        for number in range(1, samples + 1):
            files[f"sample-{number:02d}"] = target.with_name(
                f"{stem}_sample-{number:02d}{suffix or '.nii.gz'}"
            )
        files["picture"] = target.with_name(f"{stem}.png")
        files["report"] = target.with_name(f"{stem}_report.html")
        files["record"] = target.with_name(f"{stem}.json")
        return cls(files)

    def check(self, inputs: Sequence[Path], *, overwrite: bool, create: bool) -> list[Finding]:
        """Refuse names that cannot be written, before anything is read (RT-01, RT-02, RT-04, RT-19).

        Args:
            inputs: files that are only read.
            overwrite: whether existing files may be replaced.
            create: make the folder if it is missing (not in a dry run).
        """
        findings: dict[str, Finding] = {}
        for path in self.files.values():
            if not create and not path.parent.exists():
                continue
            for finding in check_output(path, inputs, overwrite=overwrite, needed_bytes=0):
                findings.setdefault(finding.message, finding)
        return list(findings.values())

    def check_room(self, scan: Volume) -> list[Finding]:
        """Refuse a name of another format than the scan's (IN-34) and a disk that is too full (RT-03)."""
        if not self.files:
            return []
        target = self.files["filled"]
        check_suffix(scan, target)
        if not target.parent.exists():
            return []
        images = sum(role not in ("picture", "report", "record") for role in self.files)
        needed = images * scan.raw.size + SMALL_FILES_BYTES
        return list(check_output(target.parent, [], overwrite=True, needed_bytes=needed))


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
class Job:
    """Everything about a run but its result.

    Attributes:
        settings: what decides the result besides inputs and model.
        device, threads, started, command: how and when it ran.
        skull_stripped: whether the scan shows the brain only.
    """

    scan: Volume
    lesion: LesionMask
    mask_source: Volume
    entry: ModelEntry
    frame: Frame
    settings: SettingsRecord
    device: str
    threads: int
    started: datetime
    command: Sequence[str] | None
    skull_stripped: bool


@dataclass(frozen=True, eq=False, slots=True)
class Saved:
    """The result as images, its sidecar and the complete list of findings."""

    image: Any
    mask: Any
    samples: tuple[Any, ...]
    uncertainty: Any
    sidecar: Sidecar
    findings: tuple[Finding, ...]


def save(plan: OutputPlan, job: Job, fills: Fills, findings: Sequence[Finding]) -> Saved:
    """Splice, stage, verify, publish. With an empty plan nothing touches the disk.

    Raises:
        StorageError, OutputError, OutputPermissionError: nothing half-written is left, older files are intact.
    """
    scan, hole = job.scan, job.lesion.voxels
    filled = splice(scan, _full(fills.mean, job), hole)
    samples = [splice(scan, _full(values, job), hole) for values in fills.samples]
    spread = None if fills.spread is None else _full(fills.spread, job, background=0.0)
    outside = int(np.prod(scan.header.dims)) - int(hole.sum())
    noticed = [*findings, *_result_findings(job, filled, outside)]
    written: list[OutputRecord] = []
    with OutputSet() as outputs:

        def stage(role: str, payload: bytes, verify: Any = None, path: Path | None = None) -> None:
            target = path or plan.files[role]
            written.append(
                OutputRecord(role=role, file=target.name, sha256=outputs.add(target, payload, verify=verify))
            )

        if plan.files:
            for role, spliced in {
                "filled": filled,
                **{f"sample-{n:02d}": s for n, s in enumerate(samples, 1)},
            }.items():
                _stage_scan(stage, role, plan.files[role], spliced, job)
            stage("mask", encode(companion(scan, hole, np.uint8), plan.files["mask"].name))
            if spread is not None:
                stage(
                    "uncertainty", encode(companion(scan, spread, np.float32), plan.files["uncertainty"].name)
                )
        sidecar = _sidecar(job, filled, outside, noticed, written)
        if plan.files:
            case = _report_case(plan, job, filled, samples, spread, noticed, sidecar)
            picture = io.BytesIO()
            write_picture(case, picture)
            stage("picture", picture.getvalue())
            stage("report", render_page(case).encode())
            sidecar = sidecar.model_copy(update={"outputs": written})
            outputs.add(plan.files["record"], sidecar.to_json().encode())
            outputs.publish()
    return Saved(
        image=spliced_image(scan, filled),
        mask=companion_image(scan, hole, np.uint8),
        samples=tuple(spliced_image(scan, s) for s in samples),
        uncertainty=None if spread is None else companion_image(scan, spread, np.float32),
        sidecar=sidecar,
        findings=tuple(noticed),
    )


def why_redo(plan: OutputPlan, job: Job) -> str | None:
    """None if complete output of the same inputs, model and settings is there (RT-05); else what differs."""
    record = plan.files.get("record")
    if record is None or not record.exists():
        return "there is no sidecar, the mark of a finished run"
    try:
        found = read_sidecar(record)
    except (InputError, MissingInputError) as error:
        return f"its sidecar cannot be read ({error.what})"
    expected = {
        "the scan": (found.image.voxels_sha256, job.scan.sha256_voxels),
        "the mask": (found.mask.used_voxels_sha256, job.lesion.sha256_voxels),
        "the model": (found.model, _model_record(job.entry)),
        "the settings": (found.settings, job.settings),
    }
    for name, (old, new) in expected.items():
        if old != new:
            return f"{name} changed since"
    for output in found.outputs:
        path = record.with_name(output.file)
        if not path.is_file() or hash_file(path) != output.sha256:
            return f"{output.file} is missing or was changed"
    if {o.role for o in found.outputs} | {"record"} != set(plan.files):
        return "other files were asked for"
    return None


def load_saved(plan: OutputPlan, job: Job) -> Saved:
    """What an earlier, identical run has written (``skip_existing``)."""
    images = {
        role: nib.load(path)
        for role, path in plan.files.items()
        if role not in ("picture", "report", "record")
    }
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


def _full(values: NDArray[np.float64], job: Job, background: float = 0.0) -> NDArray[np.float64]:
    out = np.full(job.scan.shape, background)
    out[job.lesion.voxels] = values
    return out


def _stage_scan(stage: Any, role: str, path: Path, spliced: Spliced, job: Job) -> None:
    """Stage a filled scan (both halves of a pair), read back and compared outside the mask."""
    for target, payload in files_of(spliced, path):
        voxels = spliced.header_payload is None or target.name.lower().removesuffix(".gz").endswith(".img")
        verify = (
            partial(verify_identical_outside, job.scan, mask=job.lesion.voxels)
            if voxels
            else partial(verify_header_half, job.scan)
        )
        stage(role if voxels else f"{role}-header", payload, verify, target)


def _result_findings(job: Job, filled: Spliced, outside: int) -> list[Finding]:
    found = [
        Finding("OK-01", "pass", f"voxels outside the mask are identical: {outside} compared bit for bit")
    ]
    if filled.clipped:
        message = (
            f"{filled.clipped} filled voxels were cut to the range that {job.scan.stored_dtype} can store"
        )
        found.append(Finding("IN-18", "warning", message))
    return found


def _model_record(entry: ModelEntry) -> ModelRecord:
    manifest = entry.manifest
    return ModelRecord(
        name=entry.name,
        method=manifest.method if manifest else entry.name,
        weights_sha256=manifest.weights_sha256 if manifest else None,
        config_sha256=manifest.config_sha256 if manifest else None,
        licence=entry.licence,
    )


def _image_record(volume: Volume) -> dict[str, JsonValue]:
    named = volume.path is not None
    return {
        "file": volume.path.name if volume.path is not None else None,
        "sha256": volume.sha256_file if named else None,
        "voxels_sha256": volume.sha256_voxels,
    }


def _sidecar(
    job: Job, filled: Spliced, outside: int, findings: Sequence[Finding], written: list[OutputRecord]
) -> Sidecar:
    volumes = (job.scan, job.mask_source)
    return Sidecar(
        Description="Brain scan with synthetic tissue in the lesion mask: not measured, not for diagnosis",
        Sources=[volume.path.name for volume in volumes if volume.path is not None],
        SkullStripped=job.skull_stripped,
        GeneratedBy=[GeneratedBy(Version=version_string())],
        image=ImageRecord.model_validate(_image_record(job.scan)),
        mask=MaskRecord.model_validate(
            {
                **_image_record(job.mask_source),
                "used_voxels": int(job.lesion.voxels.sum()),
                "used_volume_ml": round(job.lesion.volume_ml, 4),
                "used_voxels_sha256": job.lesion.sha256_voxels,
            }
        ),
        model=_model_record(job.entry),
        settings=job.settings,
        frame=job.frame.describe(),
        result=ResultRecord(
            filled_voxels=int(job.lesion.voxels.sum()),
            clipped_voxels=filled.clipped,
            outside_identical_voxels=outside,
            outside_sha256=_hash_outside(job),
        ),
        findings=finding_records(findings),
        outputs=list(written),
        run=run_record(device=job.device, threads=job.threads, started=job.started, command=job.command),
    )


def _hash_outside(job: Job) -> str:
    stored = job.scan.stored().reshape(-1, order="F")
    return hashlib.sha256(stored[~job.lesion.voxels.reshape(-1, order="F")].tobytes()).hexdigest()


def _report_case(
    plan: OutputPlan,
    job: Job,
    filled: Spliced,
    samples: Sequence[Spliced],
    spread: NDArray[np.float64] | None,
    findings: Sequence[Finding],
    sidecar: Sidecar,
) -> ReportCase:
    flat = json.loads(sidecar.to_json())
    shown = {
        "version": version_string(),
        "command": " ".join(sidecar.run.command),
        "date": sidecar.run.started,
        "method": sidecar.model.method,
        "seed": sidecar.settings.seed,
        "steps": sidecar.settings.steps,
        "samples": sidecar.settings.samples,
        "device": job.device,
        "outside_mask": {
            "identical": True,
            "voxels": sidecar.result.outside_identical_voxels,
            "sha256": sidecar.result.outside_sha256,
        },
    }
    return ReportCase(
        title=job.scan.path.name if job.scan.path is not None else plan.files["filled"].name,
        before=job.scan.values,
        after=_values(job.scan, filled),
        mask=job.lesion.voxels,
        affine=job.scan.affine,
        uncertainty=spread,
        samples=tuple(_values(job.scan, s) for s in samples),
        findings=findings,
        record={**flat, **shown, "model": {**flat["model"], "sha256": sidecar.model.weights_sha256}},
        boxes=[box.slices for box in job.lesion.boxes],
    )


def _values(scan: Volume, spliced: Spliced) -> NDArray[np.floating[Any]]:
    """The filled scan as stored, in the scan's units: rounding and clipping included."""
    stored = scan.stored(np.frombuffer(spliced.payload, np.uint8))
    with np.errstate(all="ignore"):  # not finite voxels outside the mask are the scan's own affair
        scaled = stored if (scan.slope, scan.inter) == (1.0, 0.0) else stored * scan.slope + scan.inter
        return np.asarray(scaled, dtype=scan.values.dtype)
