"""What is written about a fill: the facts of its sidecar, and what its report shows.

Two equal runs write the same bytes, so nothing here but ``Sidecar.run`` tells the time, the place or the user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from neuromend.cite import methods_paragraph
from neuromend.data.frame import Frame
from neuromend.data.masks import LesionMask
from neuromend.data.splice import Spliced
from neuromend.data.volume import Volume, intensities_of
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
    run_record,
    version_string,
)
from neuromend.report.case import ReportCase


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


def model_record(entry: ModelEntry) -> ModelRecord:
    """The model as the sidecar names it."""
    manifest = entry.manifest
    return ModelRecord(
        name=entry.name,
        method=manifest.method if manifest else entry.name,
        weights_sha256=manifest.weights_sha256 if manifest else None,
        config_sha256=manifest.config_sha256 if manifest else None,
        licence=entry.licence,
    )


def sidecar_of(
    job: Job, *, clipped: int, outside: int, findings: Sequence[Finding], outputs: list[OutputRecord]
) -> Sidecar:
    """The sidecar of a fill.

    Args:
        clipped: filled voxels cut to the range of the stored type.
        outside: voxels outside the mask that were compared and are identical.
        findings: about the scan, the mask, the model and the result.
        outputs: the files written so far.
    """
    volumes = (job.scan, job.mask_source)
    used = int(job.lesion.voxels.sum())
    return Sidecar(
        Description="Brain scan with synthetic tissue in the lesion mask: not measured, not for diagnosis",
        Sources=[volume.path.name for volume in volumes if volume.path is not None],
        SkullStripped=job.skull_stripped,
        GeneratedBy=[GeneratedBy(Version=version_string())],
        image=ImageRecord.model_validate(_image_record(job.scan)),
        mask=MaskRecord.model_validate(
            {
                **_image_record(job.mask_source),
                "used_voxels": used,
                "used_volume_ml": round(job.lesion.volume_ml, 4),
                "used_voxels_sha256": job.lesion.sha256_voxels,
            }
        ),
        model=model_record(job.entry),
        settings=job.settings,
        frame=job.frame.describe(),
        result=ResultRecord(
            filled_voxels=used,
            clipped_voxels=clipped,
            outside_identical_voxels=outside,
            outside_sha256=_hash_outside(job),
        ),
        findings=finding_records(findings),
        outputs=list(outputs),
        run=run_record(device=job.device, threads=job.threads, started=job.started, command=job.command),
    )


def report_case_of(
    job: Job,
    filled: Spliced,
    samples: Sequence[Spliced],
    spread: NDArray[np.float64] | None,
    *,
    title: str,
    findings: Sequence[Finding],
    sidecar: Sidecar,
) -> ReportCase:
    """What the picture and the report show; the scans are drawn as stored, rounding and clipping included."""
    facts = json.loads(sidecar.to_json())
    # The outputs are not complete without the report, and the time of day would make equal reports differ.
    del facts["outputs"], facts["run"]["started"], facts["run"]["ended"]
    result = sidecar.result
    shown = {
        "version": version_string(),
        "command": sidecar.run.command,
        "method": sidecar.model.method,
        "seed": sidecar.settings.seed,
        "steps": sidecar.settings.steps,
        "device": job.device,
        "outside_mask": {
            "identical": True,
            "voxels": result.outside_identical_voxels,
            "sha256": result.outside_sha256,
        },
    }
    return ReportCase(
        title=title,
        before=job.scan.values,
        after=_intensities(job.scan, filled),
        mask=job.lesion.voxels,
        affine=job.scan.affine,
        uncertainty=spread,
        samples=tuple(_intensities(job.scan, sample) for sample in samples),
        findings=findings,
        record={**facts, **shown, "model": {**facts["model"], "sha256": sidecar.model.weights_sha256}},
        boxes=[box.slices for box in job.lesion.boxes],
        methods=methods_paragraph(sidecar),
    )


def _image_record(volume: Volume) -> dict[str, JsonValue]:
    named = volume.path is not None
    return {
        "file": volume.path.name if volume.path is not None else None,
        "sha256": volume.sha256_file if named else None,
        "voxels_sha256": volume.sha256_voxels,
    }


def _hash_outside(job: Job) -> str:
    stored = job.scan.stored().reshape(-1, order="F")
    return hashlib.sha256(stored[~job.lesion.voxels.reshape(-1, order="F")].tobytes()).hexdigest()


def _intensities(scan: Volume, spliced: Spliced) -> NDArray[np.floating]:
    return intensities_of(scan.stored(np.frombuffer(spliced.payload, np.uint8)), scan.header)
