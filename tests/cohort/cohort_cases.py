"""A cohort on the disk, small enough that a fill takes a moment, and ways to spoil its cases."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

from neuromend.cohort.cases import Settings

from ..filling_cases import AFFINE, ball, head

QUICK = Settings(model="ring-mean", threads=1)


def write_cohort(folder: Path, count: int) -> Path:
    """``count`` scans (22 x 27 x 20 voxels, all different), their masks, and a list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    values, hole = head()[::2, ::2, ::2], ball()[::2, ::2, ::2].astype(np.uint8)
    affine = AFFINE @ np.diag([2.0, 2.0, 2.0, 1.0])
    lines = ["id\timage\tmask"]
    for number in range(count):
        values = values.copy()
        values[11, 13, 3] += 1
        name = f"case-{number:02d}"
        nib.save(nib.Nifti1Image(values, affine), folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(hole, affine), folder / f"{name}_mask.nii.gz")
        lines.append(f"{name}\t{name}.nii.gz\t{name}_mask.nii.gz")
    table = folder / "list.tsv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def rows(table: Path) -> list[dict[str, str]]:
    """A table of the engine."""
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def fills(out: Path) -> dict[str, bytes]:
    """The filled scans below a folder."""
    return {path.name: path.read_bytes() for path in sorted(out.glob("*/*_inpainted.nii.gz"))}
