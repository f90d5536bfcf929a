"""Completing a fill as a BIDS derivative: sources as URIs, and a sidecar beside each of its images.

This runs in the worker that filled the case, right after the fill, and again for a result that is kept: it writes
only what is not there or not right, so a run that was killed in between is completed by the next one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuromend.cohort.cases import Case, Settings
from neuromend.data.atomic import write_atomically
from neuromend.errors import NeuromendError
from neuromend.filling import FillResult
from neuromend.planning import split_suffix
from neuromend.provenance import Sidecar, read_sidecar
from neuromend.report.case import Lesion, ReportCase
from neuromend.report.statistics import lesion_statistics

DESC = "inpainted"
"""The ``desc-`` of a filled scan; ``inpaintedSample01`` is a sample, ``inpaintedUncertainty`` their spread."""


@dataclass(frozen=True, slots=True)
class BidsCase(Case):
    """A case of a BIDS dataset.

    Attributes:
        sources: BIDS URIs of the scan and of its mask.
        labels: the labels of a label map that are lesion, from its table; None where it is a mask.
        problem: why the case cannot be begun (no mask, two masks); the worker raises it.
    """

    sources: tuple[str, ...] = ()
    labels: tuple[int, ...] | None = None
    problem: NeuromendError | None = None


@dataclass(frozen=True, slots=True)
class BidsSettings(Settings):
    """The settings of a run over a BIDS dataset: lesion labels may differ from case to case."""

    def arguments(self, case: Case) -> dict[str, Any]:
        """As ``Settings.arguments``.

        Raises:
            NeuromendError: the problem of a case that cannot be begun.
        """
        found = Settings.arguments(self, case)
        if isinstance(case, BidsCase):
            if case.problem is not None:
                raise case.problem
            if case.labels is not None:
                found["labels"] = case.labels
        return found


def filled_path(out: Path, folder: Path, stem: str, scan: Path) -> Path:
    """Where the fill of a scan goes: ``OUT/sub-01/anat/sub-01_desc-inpainted_T1w.nii.gz``, in the scan's format."""
    return out / folder / f"{stem}_desc-{DESC}_T1w{split_suffix(scan.name)[1]}"


def sidecar_of_image(image: Path) -> Path:
    """The JSON file beside an image."""
    return image.with_name(split_suffix(image.name)[0] + ".json")


def finish_case(case: Case, result: FillResult) -> None:
    """Write what BIDS wants beside a fill; the ``finish`` of :func:`neuromend.cohort.engine.run_cases`.

    Raises:
        OutputError, OutputPermissionError, StorageError: a file cannot be written.
    """
    if not isinstance(case, BidsCase):
        raise TypeError(f"expected a case of a BIDS dataset, found {type(case).__name__}")
    outputs = result.outputs
    record = read_sidecar(outputs["record"])
    if record.Sources != list(case.sources):
        record = record.model_copy(update={"Sources": list(case.sources)})
        write_atomically(outputs["record"], record.to_json().encode())
    for role, path in outputs.items():
        if role.startswith("sample-"):
            words = f"Sample {int(role.removeprefix('sample-'))} of {record.settings.samples}: {record.Description}"
            _write_json(sidecar_of_image(path), _derived(record, words))
    if "uncertainty" in outputs:
        words = (
            f"Voxel-wise standard deviation over {record.settings.samples} samples of the filled tissue, in the "
            "units of the scan; 0 outside the lesion mask"
        )
        _write_json(sidecar_of_image(outputs["uncertainty"]), _derived(record, words))
    _write_mask_sidecar(sidecar_of_image(outputs["mask"]), record, result, case)


def lesion_facts(result: FillResult, volume: int) -> list[dict[str, Any]]:
    """Each lesion of a fill with its volume and place, and how its fill sits in the tissue around it.

    ``Seam`` and ``IntensityZ`` are those of :mod:`neuromend.report.statistics`: the step across the boundary by the
    texture of the tissue around (1 is as smooth as it), and how many standard deviations of the tissue around the
    mean of the fill lies from the tissue's mean. None where the tissue around has no texture.

    Args:
        result: the fill, as images.
        volume: which volume of a series was filled.
    """
    stored = np.asanyarray(result.image.dataobj)
    values = stored.reshape((*stored.shape[:3], -1), order="F")[..., volume]
    mask = np.asanyarray(result.mask.dataobj).reshape(values.shape) != 0
    case = ReportCase("", before=values, after=values, mask=mask, affine=result.image.affine)
    finite = values[np.isfinite(values)]
    window = (float(finite.min()), float(finite.max()) + 1e-6) if finite.size else (0.0, 1.0)
    return [_lesion_facts(case, lesion, window) for lesion in case.lesions]


def _lesion_facts(case: ReportCase, lesion: Lesion, window: tuple[float, float]) -> dict[str, Any]:
    found = lesion_statistics(case, lesion, window)
    shift = found.inside_after.mean - found.ring.mean
    deviation = found.ring.deviation
    return {
        "VolumeML": round(lesion.volume_ml, 4),
        "CentreMM": [round(value, 2) for value in lesion.centre_mm],
        "Seam": _finite(found.seam),
        "IntensityZ": _finite(shift / deviation) if deviation > 0 else None,
    }


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _derived(record: Sidecar, words: str) -> dict[str, Any]:
    return {
        "Description": words,
        "Sources": record.Sources,
        "SkullStripped": record.SkullStripped,
        "GeneratedBy": [maker.model_dump() for maker in record.GeneratedBy],
    }


def _write_mask_sidecar(path: Path, record: Sidecar, result: FillResult, case: BidsCase) -> None:
    """The mask's sidecar; it is up to date if it names the filled file that is there."""
    filled = next(output.sha256 for output in record.outputs if output.role == "filled")
    scan, mask = case.sources
    try:
        there = json.loads(path.read_bytes())
        if there.get("FilledSHA256") == filled and there.get("Sources") == [mask]:
            return
    except (OSError, ValueError, AttributeError):
        pass  # not there or not whole: it is written
    _write_json(
        path,
        {
            "Description": "The voxels that were filled: the lesion mask after labels, threshold, sizes and dilation",
            "Type": "Lesion",
            "Sources": [mask],
            "SpatialReference": scan,
            "GeneratedBy": [maker.model_dump() for maker in record.GeneratedBy],
            "VolumeML": record.mask.used_volume_ml,
            "Lesions": lesion_facts(result, int(str(record.settings.options.get("volume") or 0))),
            "FilledSHA256": filled,
        },
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_if_changed(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_if_changed(path: Path, payload: bytes) -> None:
    """Write a file whole, unless it holds just this: runs side by side then leave each other's files alone."""
    try:
        same = os.path.getsize(path) == len(payload) and path.read_bytes() == payload
    except OSError:
        same = False
    if not same:
        write_atomically(path, payload)
