"""The two jobs of ``neuromend tissue``: label a scan and write it down; compare scans or label maps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuromend.data.atomic import OutputSet
from neuromend.data.companion import companion
from neuromend.data.mask_values import voxel_ml
from neuromend.data.outputs import check_output
from neuromend.data.splice import encode
from neuromend.data.volume import Volume, read_volume
from neuromend.findings import Finding
from neuromend.provenance import run_record
from neuromend.tissue.brain import brain_of, read_mask
from neuromend.tissue.compare import compare, regions_of, spread
from neuromend.tissue.fast import segment_with_fast
from neuromend.tissue.hmrf import TISSUES, segment, volumes_ml

Tool = Literal["hmrf", "fast"]
OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Segmented:
    """What ``segment_file`` did: volumes in ml by tissue, the files by role, and what was noticed."""

    volumes: dict[str, float]
    outputs: dict[str, Path]
    findings: tuple[Finding, ...]


def segment_file(
    scan: Path,
    out: Path,
    *,
    brain_mask: Path | None = None,
    tool: Tool = "hmrf",
    overwrite: bool = False,
    on_step: OnStep,
    command: Sequence[str],
) -> Segmented:
    """Label the tissues of a scan; write the labels, a table of volumes and a sidecar, all or none.

    Args:
        scan: a T1-weighted scan.
        out: the label map (.nii, .nii.gz, .mgz), or a folder; then it is named after the scan, with _dseg.
        brain_mask: see ``brain_of``.
        tool: our own segmentation, or FSL's FAST.

    Raises:
        NeuromendError: any foreseen fault of reading, segmenting (TI-01 to TI-04) or writing.
    """
    started = datetime.now(UTC)
    files = _plan(scan, out)
    inputs = [scan] if brain_mask is None else [scan, brain_mask]
    findings: list[Finding] = []
    for path in files.values():
        findings += check_output(path, inputs, overwrite=overwrite, needed_bytes=0)
    on_step("reading", 0, 1)
    volume = read_volume(scan)
    brain = brain_of(volume, brain_mask)
    on_step("segmenting", 0, 1)
    labels = label(volume, brain, tool)
    volumes = volumes_ml(labels, volume.affine)
    record = {
        "Description": "Tissue labels of a T1-weighted scan",
        "Sources": [path.name for path in inputs],
        "labels": TISSUES,
        "volumes_ml": {name: round(ml, 4) for name, ml in volumes.items()},
        "tool": tool,
        "image": {"file": scan.name, "sha256": volume.sha256_file},
        "run": run_record(device="cpu", threads=1, started=started, command=command).model_dump(mode="json"),
    }
    table = "tissue\tlabel\tvolume_ml\n" + "".join(
        f"{name}\t{TISSUES[name]}\t{ml:.4f}\n" for name, ml in volumes.items()
    )
    with OutputSet() as outputs:
        outputs.add(files["labels"], encode(companion(volume, labels, np.uint8), files["labels"].name))
        outputs.add(files["volumes"], table.encode())
        outputs.add(files["record"], (json.dumps(record, indent=2) + "\n").encode())
        outputs.publish()
    return Segmented(volumes, files, (*findings, *volume.findings))


def compare_files(
    reference: Path,
    others: Sequence[Path],
    *,
    lesions: Path | None = None,
    ring_mm: float,
    brain_mask: Path | None = None,
    tool: Tool = "hmrf",
    on_step: OnStep,
) -> dict[str, Any]:
    """Compare one or more scans or label maps with a reference.

    Args:
        reference, others: scans (they are segmented) or label maps of 0 to 3 (taken as they are), on one grid. Several
            others are samples of one fill: means and standard deviations over them.
        lesions: a mask; adds what is in it, and what is within ``ring_mm`` of it.
        brain_mask: for scans of whole heads; it counts for all of them.

    Returns:
        ``{"samples": n, "regions": region -> tissue -> score -> {"mean", "sd"}}``; None for what is not a number.

    Raises:
        NeuromendError: any foreseen fault of reading or segmenting; MA-09, other grids.
    """
    first = read_volume(reference)
    found = []
    regions = None
    truth = _labels_of(first, brain_mask, tool, on_step, 0, 1 + len(others))
    if lesions is not None:
        regions = regions_of(read_mask(lesions, first), first.spacing_mm, ring_mm)
    for number, path in enumerate(others, start=1):
        labels = _labels_of(read_volume(path), brain_mask, tool, on_step, number, 1 + len(others))
        found.append(compare(truth, labels, voxel_ml(first.affine), regions))
    return {"samples": len(found), "regions": _without_nan(spread(found))}


def label(volume: Volume, brain: NDArray[np.bool_], tool: Tool) -> NDArray[np.uint8]:
    """The labels of a scan by the chosen tool."""
    if tool == "fast":
        return segment_with_fast(volume.values, brain, volume.affine)
    return segment(volume.values, brain)


def is_label_map(volume: Volume) -> bool:
    """Whether a file holds labels of ``TISSUES`` and not intensities."""
    return bool(np.isin(volume.values[::2, ::2, ::2], (0, *TISSUES.values())).all()) and bool(
        np.isin(volume.values, (0, *TISSUES.values())).all()
    )


def _labels_of(
    volume: Volume, brain_mask: Path | None, tool: Tool, on_step: OnStep, done: int, of: int
) -> NDArray[np.integer[Any]]:
    on_step("segmenting", done, of)
    if is_label_map(volume):
        return volume.values.astype(np.uint8)
    return label(volume, brain_of(volume, brain_mask), tool)


def _plan(scan: Path, out: Path) -> dict[str, Path]:
    """The files by role, beside the label map."""
    suffix = next((s for s in (".nii.gz", ".nii", ".mgz") if out.name.lower().endswith(s)), None)
    if suffix is None:
        name = scan.name
        for known in (".gz", ".nii", ".mgz", ".mgh", ".img", ".hdr"):
            name = name.removesuffix(known)
        suffix = ".mgz" if scan.name.lower().endswith((".mgz", ".mgh")) else ".nii.gz"
        out = out / f"{name}_dseg{suffix}"
    stem = out.name[: -len(suffix)]
    return {"labels": out, "volumes": out.with_name(f"{stem}.tsv"), "record": out.with_name(f"{stem}.json")}


def _without_nan(tree: Any) -> Any:
    """NaN as None, which JSON knows."""
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
