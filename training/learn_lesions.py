"""Learn how lesions of multiple sclerosis are distributed: `python training/learn_lesions.py`.

From 10 of the 20 manual masks of ../shared/data (Lesjak et al. 2017, CC BY): every second one, those that are no
holes of the dev cases (benchmarks/dev_cases.py, STRIDES), as in training. Volumes are those of the masks in native
space. For the sites the masks in MNI space are brought, by the affine of each subject, into healthy brains of the
training split with tissue labels (IXI, CC BY-SA 3.0), and looked at there; an affine fits ventricles and cortex to a
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

from neuromend.lesions.anatomy import SITES, Anatomy
from neuromend.lesions.simulate import FEWEST_VOXELS, TOUCHING
from neuromend.lesions.statistics import LesionStatistics
from neuromend.tissue import segment

ROOT = Path(__file__).resolve().parents[1]
BRAINS = 8  # healthy anatomies that the masks are brought into
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
        for points, volume in zip(places, ml, strict=True):
            for anatomy, from_mni in brains:
                index = np.rint(points @ from_mni[:3, :3].T + from_mni[:3, 3]).astype(int)
                x, y, z = np.clip(index, 0, np.array(anatomy.white.shape) - 1).T
                sites.append(anatomy.site_of((x, y, z)))
                volumes[sites[-1]].append(volume * scale)
        print(f"{path.name}: {len(places)} lesions", flush=True)
    statistics = LesionStatistics(
        source="20 manual masks of MS patients by Lesjak et al. 2017 (doi 10.1007/s12021-017-9348-7, CC BY),"
        " 10 of them; sites with tissue labels of healthy brains of IXI (CC BY-SA 3.0); quantiles only",
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


def training_brains(data: Path) -> list[tuple[Anatomy, NDArray[np.float64]]]:
    """Anatomies of training scans, with the matrix from MNI mm to their voxels."""
    affines = json.loads((data / "mni-to-subject.json").read_text())
    found = []
    for name in training_subjects(data):
        tissue, affine = labels_of(data, name)
        to_subject = np.array(affines[f"ixi2mm/{name}"]["mni_to_subject_ras"])
        anatomy = Anatomy.of_map(tissue, nib.affines.voxel_sizes(affine))
        found.append((anatomy, np.linalg.inv(affine) @ to_subject))
    return found


def training_subjects(data: Path) -> list[str]:
    """The scans whose anatomy is used: of IXI, training split, evenly spaced in the list."""
    with (data / "subjects.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = [row["subject"] for row in rows if row["split"] == "train" and row["dataset"] == "ixi2mm"]
    return names[:: len(names) // BRAINS][:BRAINS]


def labels_of(data: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The tissue classes of a scan and its affine."""
    image: Any = nib.load(data / "healthy" / "ixi-2mm" / f"{name}_tissue.nii.gz")
    return np.asarray(image.dataobj).astype(np.uint8), image.affine


def plane(data: Path) -> tuple[float, float, float]:
    """The plane between the white matter above and below the tentorium (Fisher's linear discriminant)."""
    above: list[NDArray[Any]] = []
    below: list[NDArray[Any]] = []
    for name in training_subjects(data):
        tissue, _ = labels_of(data, name)
        box = np.argwhere(tissue > 0)
        low, size = box.min(axis=0), np.ptp(box, axis=0)
        for target, classes in ((above, (3,)), (below, (6, 7))):
            places = (np.argwhere(np.isin(tissue, classes)) - low) / size
            target.append(places[::5, 1:])
    one, two = np.concatenate(above), np.concatenate(below)
    normal = np.linalg.solve(np.cov(one.T) + np.cov(two.T), two.mean(axis=0) - one.mean(axis=0))
    borders = np.quantile(np.concatenate([one, two]) @ normal, np.linspace(0, 1, 201))
    wrong = [np.mean(one @ normal > border) + np.mean(two @ normal <= border) for border in borders]
    print(f"infratentorial plane: {min(wrong) / 2:.1%} of the white matter on the wrong side")
    scale = float(np.abs(normal).max())
    border = borders[int(np.argmin(wrong))] / scale
    return round(float(-border), 4), round(float(normal[0] / scale), 4), round(float(normal[1] / scale), 4)


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
