"""List the healthy scans of the development data as a table that ``neuromend prepare`` reads.

    python training/dataset_tsv.py --data ../shared/data --out runs/dataset
    neuromend prepare runs/dataset/cases.tsv --out runs/prepared

The split is that of the data's subjects.tsv, by person: ``train`` and ``dev`` are listed, ``extra`` never is. Label
maps are listed for training, to draw synthetic images from. The registration of each scan to MNI space is written
beside the table, so that lesions of an atlas can be planted in sensible places.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDERS = {"malf": "oasis", "ixi2mm": "ixi-2mm"}
COLUMNS = ("id", "subject", "split", "image", "tissue", "mni", "kind")
SPLITS = ("train", "dev")


def write_table(data: Path, out: Path) -> Path:
    """Write ``cases.tsv`` and the matrices below ``out``; return the table."""
    data = data.resolve()
    (out / "mni").mkdir(parents=True, exist_ok=True)
    registrations = json.loads((data / "mni-to-subject.json").read_text())
    rows = []
    with (data / "subjects.tsv").open() as table:
        for row in csv.DictReader(table, delimiter="\t"):
            if row["split"] not in SPLITS or row["dataset"] not in FOLDERS:
                continue
            name = f"{row['dataset']}-{row['subject']}"
            image = data / "healthy" / FOLDERS[row["dataset"]] / f"{row['subject']}_T1w.nii.gz"
            tissue = image.with_name(f"{row['subject']}_tissue.nii.gz")
            matrix = out / "mni" / f"{name}.txt"
            np.savetxt(matrix, registrations[f"{row['dataset']}/{row['subject']}"]["mni_to_subject_ras"])
            cells = (str(image), str(tissue) if tissue.exists() else "", f"mni/{name}.txt", "scan")
            rows.append((name, row["person"], row["split"], *cells))
    for path in sorted((data / "labels").glob("*_tissue.nii.gz")):
        name = path.name.removesuffix("_tissue.nii.gz")
        rows.append((f"labels-{name}", f"labels-{name}", "train", str(path), "", "", "labels"))
    target = out / "cases.tsv"
    target.write_text("".join("\t".join(row) + "\n" for row in (COLUMNS, *sorted(rows))))
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with subjects.tsv, healthy/, labels/"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for cases.tsv and the matrices")
    args = parser.parse_args(argv)
    print(write_table(args.data, args.out))


if __name__ == "__main__":
    main()
