"""The job of ``neuromend simulate-lesions``: read a healthy scan, draw lesions, write them down, all or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.data.atomic import OutputSet
from neuromend.data.companion import companion
from neuromend.data.mask_grid import onto_image_grid
from neuromend.data.outputs import check_output
from neuromend.data.splice import encode, splice
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import InputError
from neuromend.findings import Finding
from neuromend.lesions.anatomy import SITES, Anatomy
from neuromend.lesions.appearance import paint_lesions
from neuromend.lesions.simulate import Lesions, simulate
from neuromend.lesions.statistics import load_statistics
from neuromend.provenance import run_record
from neuromend.tissue import CSF, GM, WM, segment
from neuromend.tissue.brain import brain_of

OnStep = Callable[[str, int, int], None]

# Classes of a map with more than three tissues (neuromend.sites) -> the three tissues; what none names stays out.
_TISSUE_OF = {CSF: (1,), GM: (2, 4, 5), WM: (3, 6, 7, 9)}


@dataclass(frozen=True)
class Simulated:
    """What was made: the lesions, the files by role, and what was noticed."""

    lesions: Lesions
    outputs: dict[str, Path]
    findings: tuple[Finding, ...]


def simulate_files(
    scan: Path,
    out: Path,
    *,
    tissue: Path | None = None,
    brain_mask: Path | None = None,
    count: int | None = None,
    load_ml: float | None = None,
    sites: Sequence[str] = SITES,
    seed: int = 0,
    paint: bool = False,
    overwrite: bool = False,
    on_step: OnStep,
    command: Sequence[str],
) -> Simulated:
    """Simulate lesions in a healthy scan.

    Args:
        scan: the healthy scan.
        out: folder; files are named after the scan.
        tissue: a label map on its grid, of three tissues (``neuromend tissue``) or of the classes of
            ``neuromend.sites``, with which the sites are surer; None segments the scan.
        brain_mask: see ``neuromend.tissue.brain.brain_of``; not needed with ``tissue``.
        count, load_ml, sites, seed: see ``simulate``.
        paint: also write the scan with the lesions painted in.

    Raises:
        NeuromendError: any foreseen fault of reading, segmenting, drawing (LE-01 to LE-03) or writing.
    """
    started = datetime.now(UTC)
    files = _plan(scan, out, paint=paint)
    inputs = [path for path in (scan, tissue, brain_mask) if path is not None]
    findings: list[Finding] = []
    for path in files.values():
        findings += check_output(path, inputs, overwrite=overwrite, needed_bytes=0)
    on_step("reading", 0, 1)
    volume = read_volume(scan)
    statistics = load_statistics()
    on_step("finding the white matter", 0, 1)
    anatomy, tissues = _anatomy(volume, tissue, brain_mask, statistics.infratentorial_plane)
    on_step("drawing lesions", 0, 1)
    lesions = simulate(anatomy, statistics, seed=seed, count=count, load_ml=load_ml, sites=sites)
    if lesions.not_placed:
        message = (
            f"{lesions.not_placed} lesions found no room in the white matter of their site and were left out."
        )
        findings.append(Finding("LE-02", "warning", message))
    payloads = {
        "mask": companion(volume, lesions.mask, np.uint8),
        "lesions": companion(volume, lesions.map, np.int16),
    }
    if paint:
        values = paint_lesions(volume.values, lesions, tissues, statistics, volume.spacing_mm, seed=seed)
        payloads["painted"] = splice(volume, values, lesions.mask).payload
    record = _record(lesions, inputs, volume, statistics.source) | {
        "settings": {"count": count, "load_ml": load_ml, "sites": list(sites), "seed": seed, "paint": paint},
        "run": run_record(device="cpu", threads=1, started=started, command=command).model_dump(mode="json"),
    }
    with OutputSet() as outputs:
        for role, payload in payloads.items():
            outputs.add(files[role], encode(payload, files[role].name))
        outputs.add(files["record"], (json.dumps(record, indent=2) + "\n").encode())
        outputs.publish()
    return Simulated(lesions, files, (*findings, *volume.findings))


def three_tissues(classes: NDArray[Any]) -> NDArray[np.uint8]:
    """Fluid, grey and white matter (x, y, z) of a map with the classes of ``neuromend.sites``."""
    found = np.zeros(classes.shape, np.uint8)
    for label, members in _TISSUE_OF.items():
        found[np.isin(classes, members)] = label
    return found


def _anatomy(
    volume: Volume, tissue: Path | None, brain_mask: Path | None, plane: Sequence[float]
) -> tuple[Anatomy, NDArray[np.uint8]]:
    """The anatomy, and the three tissues whose brightness the painting needs."""
    if tissue is None:
        labels = segment(volume.values, brain_of(volume, brain_mask))
        return Anatomy.of_tissues(labels, volume.affine, plane), labels
    drawn = read_volume(tissue)
    found = np.unique(drawn.values)
    if not np.isin(found, range(10)).all() or not np.isin((2, 3), found).all():
        raise InputError(
            "LE-03",
            f"values {', '.join(f'{value:g}' for value in found[:8])} in the tissue map, expected 0 to 9 with 2 and 3",
            why="2 is grey matter and 3 is white matter, where the lesions go",
            fix="give the label map that `neuromend tissue` writes, or leave --tissue out",
            path=tissue,
        )
    classes = np.zeros(volume.shape, np.uint8)
    for value in found[found > 0]:
        own, _ = onto_image_grid(drawn.values == value, drawn, volume, resample=False)
        classes[own] = int(value)
    if found.max() <= WM:
        return Anatomy.of_tissues(classes, volume.affine, plane), classes
    return Anatomy.of_map(classes, volume.spacing_mm), three_tissues(classes)


def _record(lesions: Lesions, inputs: Sequence[Path], volume: Volume, source: str) -> dict[str, Any]:
    return {
        "Description": "Simulated white-matter lesions of a healthy scan: synthetic",
        "Sources": [path.name for path in inputs],
        "image": {"file": inputs[0].name, "sha256": volume.sha256_file},
        "statistics": source,
        "volume_ml": round(lesions.volume_ml, 5),
        "not_placed": lesions.not_placed,
        "lesions": [
            {"number": one.number, "site": one.site, "volume_ml": round(one.volume_ml, 5)}
            for one in lesions.placed
        ],
    }


def _plan(scan: Path, out: Path, *, paint: bool) -> dict[str, Path]:
    name = scan.name
    for known in (".gz", ".nii", ".mgz", ".mgh", ".img", ".hdr"):
        name = name.removesuffix(known)
    suffix = ".mgz" if scan.name.lower().endswith((".mgz", ".mgh")) else ".nii.gz"
    files = {"mask": out / f"{name}_lesion-mask{suffix}", "lesions": out / f"{name}_lesion-map{suffix}"}
    if paint:
        files["painted"] = out / f"{name}_lesioned{suffix}"
    return {**files, "record": out / f"{name}_lesions.json"}
