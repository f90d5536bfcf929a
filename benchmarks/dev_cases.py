"""The fixed cases that `make score-dev` measures: healthy tissue of the dev persons under planted holes.

50 cases in 20 scans of 19 persons that no training has seen: 4 in each of the 5 scans at 1 mm, 2 in each
of the 15 at 2 mm. The list is a plan (size class x site x shape) and a seed a case; holes are made anew
from it on every machine, so nothing but this page is stored. Sizes are drawn log-uniformly inside five
classes of 10 cases each. Shapes: real stroke lesions and real multiple-sclerosis lesions, brought from MNI
space into the brain by the subject's affine, and tumour-like random blobs.

The site of a hole is the anatomy at its innermost voxel (neuromend.sites).
"""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from neuromend.data.lesions import LesionShape, random_blob
from neuromend.evaluate import SIZE_CLASSES
from neuromend.sites import SITES, site_map, site_of

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.float32]

SHARED = Path(__file__).resolve().parents[2] / "shared"
FOLDERS = {"malf": "healthy/oasis", "ixi2mm": "healthy/ixi-2mm"}
CASES_A_SCAN = {"malf": 4, "ixi2mm": 2}
SEED = 20240701

# (site, shape) of the cases of each size class: the first four at 1 mm, the other six at 2 mm.
# Only what anatomy allows: no stroke of 60 ml lies in the brainstem.
_PLAN: dict[str, str] = {
    "<1": "cortex stroke, deep-grey stroke, ventricle-border blob, brainstem blob, white-matter stroke, "
    "cerebellum stroke, brainstem stroke, cortex blob, ventricle-border blob, deep-grey blob",
    "1-5": "white-matter stroke, cerebellum stroke, deep-grey stroke, cortex blob, cortex stroke, "
    "white-matter blob, brainstem blob, ventricle-border blob, deep-grey blob, cerebellum stroke",
    "5-20": "ventricle-border ms, white-matter ms, cortex stroke, cerebellum blob, white-matter ms, "
    "ventricle-border ms, deep-grey stroke, cortex stroke, brainstem blob, cerebellum stroke",
    "20-60": "ventricle-border ms, white-matter stroke, cortex blob, cerebellum stroke, white-matter ms, "
    "white-matter ms, cortex stroke, white-matter stroke, deep-grey blob, cerebellum blob",
    ">60": "cortex stroke, white-matter stroke, ventricle-border blob, deep-grey blob, cortex stroke, "
    "white-matter stroke, cortex blob, white-matter blob, ventricle-border blob, cerebellum blob",
}

LEAST_INSIDE = 0.7  # of a shape must lie in the brain, else it is drawn again
# Every fourth of the thousand stroke masks and every second of the twenty MS masks are dev holes; training
# (make train) leaves these out, so that shapes, like persons, stay on one side of the split.
STRIDES = {"stroke": 4, "ms": 2}
TRIES = 200
LEAST_ML, MOST_ML = 0.1, 100.0


@dataclass(frozen=True)
class DevCase:
    """One planted hole.

    Attributes:
        id: unique, readable, safe in a file name.
        image: the healthy T1-weighted scan; ``tissue`` its map of tissue classes.
        subject_key: the subject's name in mni-to-subject.json.
        site: a key of ``SITES``; shape_kind: ``stroke``, ``ms`` or ``blob``.
        size_class: a key of ``SIZE_CLASSES``; target_ml: the volume wanted, inside that class.
        seed: of everything random in ``load``.
    """

    id: str
    image: Path
    tissue: Path
    subject_key: str
    site: str
    shape_kind: str
    size_class: str
    target_ml: float
    seed: int


def dev_cases(shared: Path = SHARED) -> list[DevCase]:
    """All cases, in a fixed order (read from ``subjects.tsv`` and the plan; no image is opened)."""
    data = shared / "data"
    with (data / "subjects.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] == "dev"]
    plan = {size: [tuple(entry.split()) for entry in text.split(", ")] for size, text in _PLAN.items()}
    queues = {
        "malf": [(size, *plan[size][i]) for i in range(4) for size in plan],
        "ixi2mm": [(size, *plan[size][i]) for i in range(4, 10) for size in plan],
    }
    cases: list[DevCase] = []
    for row in rows:
        folder = data / FOLDERS[row["dataset"]]
        for _ in range(CASES_A_SCAN[row["dataset"]]):
            size, site, kind = queues[row["dataset"]].pop(0)
            seed = SEED + len(cases)
            low, high = SIZE_CLASSES[size]
            target = np.exp(
                np.random.default_rng(seed).uniform(np.log(max(low, LEAST_ML)), np.log(min(high, MOST_ML)))
            )
            cases.append(
                DevCase(
                    id=f"{len(cases) + 1:02d}-{row['subject']}-{site}-{kind}",
                    image=folder / f"{row['subject']}_T1w.nii.gz",
                    tissue=folder / f"{row['subject']}_tissue.nii.gz",
                    subject_key=f"{row['dataset']}/{row['subject']}",
                    site=site,
                    shape_kind=kind,
                    size_class=size,
                    target_ml=round(float(target), 3),
                    seed=seed,
                )
            )
    return cases


def load(case: DevCase) -> tuple[Image, Mask, npt.NDArray[np.float64]]:
    """Read the scan and plant the hole.

    Returns:
        The healthy image (x, y, z) as float32, the mask (x, y, z), True in the hole and nowhere outside the
        brain, and the (4, 4) affine from voxels to mm. The same on every call and machine.

    Raises:
        RuntimeError: no shape fits the plan (then the data differ from those the plan was made for).
    """
    scan: Any = nib.load(case.image)
    healthy = np.asarray(scan.dataobj, dtype=np.float32)
    tissue: Any = nib.load(case.tissue)
    spacing = float(np.mean(nib.affines.voxel_sizes(scan.affine)))
    sites = site_map(np.asarray(tissue.dataobj), spacing)
    brain = healthy > 0
    if case.shape_kind == "blob":
        mask = _plant_blob(case, brain, sites, spacing)
    else:
        mask = _plant_lesion(case, brain, sites, spacing, scan.affine)
    return healthy, mask, scan.affine


def _fits(case: DevCase, mask: Mask, sites: npt.NDArray[np.int_], spacing: float) -> bool:
    low, high = SIZE_CLASSES[case.size_class]
    volume = float(mask.sum()) * spacing**3 / 1000
    return max(low, LEAST_ML) <= volume < min(high, MOST_ML) and site_of(mask, sites) == case.site


def _plant_blob(case: DevCase, brain: Mask, sites: npt.NDArray[np.int_], spacing: float) -> Mask:
    """Draw blobs centred at the site until one is of the right size inside the brain."""
    rng = np.random.default_rng([case.seed, 1])
    centres = np.argwhere(brain & (sites == list(SITES).index(case.site)))
    for _ in range(TRIES):
        x, y, z = (float(c) for c in centres[rng.integers(len(centres))])
        shape = (brain.shape[0], brain.shape[1], brain.shape[2])
        blob = random_blob(rng, shape, (x, y, z), case.target_ml, spacing)
        inside = blob & brain
        if inside.sum() >= LEAST_INSIDE * blob.sum() and _fits(case, inside, sites, spacing):
            return inside
    raise RuntimeError(f"{case.id}: no blob of {case.target_ml} ml fits at the site")


def _plant_lesion(
    case: DevCase, brain: Mask, sites: npt.NDArray[np.int_], spacing: float, affine: npt.NDArray[np.float64]
) -> Mask:
    """Take the real lesion nearest in volume to the target that comes to lie at the site."""
    data = case.image.parents[2]
    to_subject = np.array(_affines(data)[case.subject_key]["mni_to_subject_ras"])
    to_mni = np.linalg.inv(to_subject) @ affine
    growth = float(abs(np.linalg.det(to_subject[:3, :3])))
    shapes = _lesions(data / case.shape_kind / "masks-mni", STRIDES[case.shape_kind])
    for shape in sorted(shapes, key=lambda s: abs(np.log(s.volume_ml * growth / case.target_ml))):
        placed = shape.placed((brain.shape[0], brain.shape[1], brain.shape[2]), to_mni)
        inside = placed & brain
        if inside.sum() > LEAST_INSIDE * placed.sum() and _fits(case, inside, sites, spacing):
            return inside
    raise RuntimeError(
        f"{case.id}: no {case.shape_kind} lesion of about {case.target_ml} ml lies at the site"
    )


@functools.lru_cache(maxsize=1)
def _affines(data: Path) -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = json.loads((data / "mni-to-subject.json").read_text())
    return loaded


@functools.lru_cache(maxsize=2)
def _lesions(folder: Path, stride: int) -> list[LesionShape]:
    """Every ``stride``-th lesion of a folder of masks in MNI space; the empty ones are left out."""
    shapes = []
    for path in sorted(folder.glob("*.nii.gz"))[::stride]:
        try:
            shapes.append(LesionShape.read(path))
        except ValueError:  # it holds no voxel: nothing to plant
            continue
    return shapes
