"""Learn how lesions of multiple sclerosis are distributed: `python training/learn_lesions.py`.

From 10 of the 20 manual masks of ../shared/data (Lesjak et al. 2017, CC BY): every second one, those that are no
holes of the dev cases (benchmarks/dev_cases.py, STRIDES), as in training. Volumes are those of the masks in native
space. For the sites the masks in MNI space are brought, by the affine of each subject, into healthy brains of the
training split with tissue labels, and every lesion is looked at there; an affine fits ventricles and cortex to a
few millimetres only, so the shares of the sites are approximate. How dark lesions are in T1 is measured in the one
patient of those ten whose scans are there. Only the quantiles are written.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.lesions import LesionShape
from neuromend.lesions.anatomy import SITES, Anatomy
from neuromend.lesions.simulate import FEWEST_VOXELS, TOUCHING
from neuromend.lesions.statistics import LesionStatistics
from neuromend.tissue import segment

ROOT = Path(__file__).resolve().parents[1]
BRAINS = 6  # of the training split that the masks are brought into
LEVELS = np.linspace(0, 1, 21)
ELONGATION_ML = 0.03  # smaller lesions have no measurable shape
SCANNED = "patient26"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "src" / "neuromend" / "lesions" / "ms.json")
    options = parser.parse_args()
    masks = sorted((options.data / "ms" / "masks-mni").glob("*.nii.gz"))[1::2]
    brains = training_brains(options.data)
    sites: list[str] = []
    volumes: dict[str, list[float]] = {site: [] for site in SITES}
    numbers, elongations = [], []
    for path in masks:
        native = components(options.data / "ms" / "masks-native" / path.name)
        numbers.append(len(native[0]))
        elongations += [elongation(places) for places, ml in zip(*native, strict=True) if ml >= ELONGATION_ML]
        places, ml = components(path)
        scale = sum(native[1]) / sum(ml)  # the registration to MNI space enlarged the brain
        for number, shape in enumerate(pieces(path, places)):
            for anatomy, to_mni in brains:
                placed = shape.placed(anatomy.white.shape, to_mni)
                if placed.any():
                    sites.append(anatomy.site_of(placed))
                    volumes[sites[-1]].append(ml[number] * scale)
        print(f"{path.name}: {len(places)} lesions", flush=True)
    statistics = LesionStatistics(
        source="20 manual masks of MS patients by Lesjak et al. 2017 (doi 10.1007/s12021-017-9348-7, CC BY 4.0),"
        " 10 of them; sites with tissue labels of healthy brains; quantiles only",
        patients=len(masks),
        lesions=sum(numbers),
        number=quantiles(numbers),
        site_share={site: round(sites.count(site) / len(sites), 4) for site in SITES},
        volume_ml={site: quantiles(volumes[site]) for site in SITES},
        elongation=quantiles(elongations),
        darkness=darkness(options.data / "ms"),
        infratentorial_plane=plane(options.data),
    )
    options.out.write_text(json.dumps(statistics.model_dump(mode="json"), indent=1) + "\n")
    print(f"written: {options.out}")


def components(path: Path) -> tuple[list[NDArray[np.intp]], list[float]]:
    """The lesions of a mask, as voxel indices (n, 3) scaled to mm, and their volumes in ml; no specks."""
    image: Any = nib.load(path)
    labels, _ = ndimage.label(np.asarray(image.dataobj) > 0, TOUCHING)
    one = abs(np.linalg.det(image.affine[:3, :3]))
    found, volumes = [], []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        places = np.argwhere(labels[box] == label) + [part.start for part in box]
        if len(places) * one >= FEWEST_VOXELS:  # of 1 mm
            found.append(places @ image.affine[:3, :3].T + image.affine[:3, 3])
            volumes.append(float(len(places) * one / 1000))
    return found, volumes


def pieces(path: Path, places: list[NDArray[np.intp]]) -> list[LesionShape]:
    """Each lesion of an MNI mask as a shape of its own."""
    image: Any = nib.load(path)
    inverse, one = np.linalg.inv(image.affine), abs(np.linalg.det(image.affine[:3, :3]))
    shapes = []
    for points in places:
        index = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        low = index.min(axis=0)
        voxels = np.zeros(np.ptp(index, axis=0) + 1, bool)
        voxels[tuple((index - low).T)] = True
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ low
        shapes.append(LesionShape(voxels, affine, float(len(points) * one / 1000)))
    return shapes


def training_brains(data: Path) -> list[tuple[Anatomy, NDArray[np.float64]]]:
    """Anatomies of 1 mm training scans, with the matrix from their voxels to MNI mm."""
    affines = json.loads((data / "mni-to-subject.json").read_text())
    found = []
    for name in training_subjects(data):
        image: Any = nib.load(data / "healthy" / "oasis" / f"{name}_tissue.nii.gz")
        to_subject = np.array(affines[f"malf/{name}"]["mni_to_subject_ras"])
        anatomy = Anatomy.of_map(np.asarray(image.dataobj), nib.affines.voxel_sizes(image.affine))
        found.append((anatomy, np.linalg.inv(to_subject) @ image.affine))
    return found


def training_subjects(data: Path) -> list[str]:
    with (data / "subjects.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] == "train"]
    return [row["subject"] for row in rows if row["dataset"] == "malf"][:: 23 // BRAINS][:BRAINS]


def plane(data: Path) -> tuple[float, float, float]:
    """The plane between the white matter above and below the tentorium (Fisher's linear discriminant)."""
    above, below = [], []
    for name in training_subjects(data):
        image: Any = nib.load(data / "healthy" / "oasis" / f"{name}_tissue.nii.gz")
        tissue = np.asarray(image.dataobj)
        box = np.argwhere(tissue > 0)
        low, size = box.min(axis=0), np.ptp(box, axis=0)
        for target, classes in ((above, (3,)), (below, (6, 7))):
            places = (np.argwhere(np.isin(tissue, classes)) - low) / size
            target.append(places[::50, 1:])
    one, two = np.concatenate(above), np.concatenate(below)
    normal = np.linalg.solve(np.cov(one.T) + np.cov(two.T), two.mean(axis=0) - one.mean(axis=0))
    scores = np.sort(np.concatenate([one @ normal, two @ normal]))
    errors = [np.mean(one @ normal > s) + np.mean(two @ normal <= s) for s in scores[:: len(scores) // 200]]
    border = scores[:: len(scores) // 200][int(np.argmin(errors))]
    print(f"infratentorial plane: {min(errors) / 2:.1%} of the white matter on the wrong side")
    scale = float(np.abs(normal).max())
    return (
        round(float(-border / scale), 4),
        round(float(normal[0] / scale), 4),
        round(float(normal[1] / scale), 4),
    )


def darkness(folder: Path) -> tuple[float, ...]:
    """How far from white to grey matter each lesion of the scanned patient lies (median of its voxels)."""
    scan: Any = nib.load(folder / f"{SCANNED}_T1w.nii.gz")
    brain = np.asarray(nib.load(folder / f"{SCANNED}_brainmask.nii.gz").dataobj) > 0  # type: ignore[attr-defined]
    lesion = np.asarray(nib.load(folder / f"{SCANNED}_lesion.nii.gz").dataobj) > 0  # type: ignore[attr-defined]
    values = np.asarray(scan.dataobj, np.float32)
    tissues = segment(values, brain & (values > 0))
    grey, white = (float(np.median(values[(tissues == label) & ~lesion])) for label in (2, 3))
    labels, count = ndimage.label(lesion, TOUCHING)
    middle = ndimage.median(values, labels, range(1, count + 1))
    sizes = np.bincount(labels.reshape(-1))[1:]
    return quantiles((white - np.asarray(middle)[sizes >= 10]) / (white - grey))


def elongation(points: NDArray[Any]) -> float:
    """Longest over shortest axis, from the spread of the voxels (a voxel has a width itself)."""
    spread = np.linalg.eigvalsh(np.cov(points.T) + np.eye(3) / 12)
    return float(np.sqrt(spread[-1] / spread[0]))


def quantiles(values: Any) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in np.quantile(np.asarray(values, float), LEVELS))


if __name__ == "__main__":
    main()
