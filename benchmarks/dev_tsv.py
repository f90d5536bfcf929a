"""Write the dev cases as files for ``neuromend benchmark``: the masks, and a table that names scans and masks.

python benchmarks/dev_tsv.py --out runs/dev-cases   # then: neuromend benchmark --cases runs/dev-cases/cases.tsv
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from dev_cases import SHARED, dev_cases, load

COLUMNS = ("id", "image", "mask", "tissue", "site")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder that holds data/")
    parser.add_argument("--out", type=Path, default=Path("runs/dev-cases"), help="folder of the files")
    parser.add_argument("--limit", type=int, help="only N of the cases, always the same")
    options = parser.parse_args()
    cases = dev_cases(options.shared)
    if options.limit:  # drawn, so that both resolutions and all sizes are met
        cases = [cases[i] for i in sorted(np.random.default_rng(0).permutation(len(cases))[: options.limit])]
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "cases.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for case in cases:
            _, mask, affine = load(case)
            name = f"{case.id}_mask.nii.gz"
            nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), options.out / name)
            paths = {"image": case.image, "tissue": case.tissue}
            relative = {role: os.path.relpath(path, options.out) for role, path in paths.items()}
            writer.writerow({"id": case.id, "mask": name, "site": case.site, **relative})
    print(f"{options.out / 'cases.tsv'}: {len(cases)} cases")


if __name__ == "__main__":
    main()
