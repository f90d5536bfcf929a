"""Does filling lesions repair a tissue segmentation? `make ms-experiment`; `python benchmarks/ms_experiment.py --help`.

Healthy scans of the dev persons (no training has seen them) get simulated lesions of multiple sclerosis, painted dark
as in T1 (neuromend.lesions; each scan has its own seed). Three tissues are segmented in the healthy scan, in the
scan with its lesions, and in the scan filled by each method; what counts is how near the last comes to the first,
in the whole brain and within 5 mm of the lesions, and to the scan's own tissue labels. On the real patient of
../shared/data there is no truth: how volumes agree between methods, the step at the border of the lesions, pictures.

Every case is written to OUT/rows.jsonl as soon as it is done; run again, the command goes on where it stopped. `--shard
0/2` and `--shard 1/2` share the work between two processes. The page docs/ms.md keeps the words between its marks.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ms_page
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

import neuromend
from neuromend.external import EXTERNAL, fill_with
from neuromend.lesions import Anatomy, load_statistics, paint_lesions, simulate
from neuromend.lesions.files import three_tissues
from neuromend.metrics import seam_score
from neuromend.models import DEFAULT_MODEL, resolve_model
from neuromend.tissue import segment, volumes_ml
from neuromend.tissue.compare import RING_MM, compare, regions_of

SHARED = Path(__file__).resolve().parents[2] / "shared"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "ms.md"
FOLDERS = {"malf": "healthy/oasis", "ixi2mm": "healthy/ixi-2mm"}
CLASSICAL = ("white-matter", "patch", "harmonic")
SEED = 20261123
UNLABELLED = 8  # sulcal fluid, meninges and vessels: no tissue label to compare with
ORDER = [5, 6, 7, 8, 9, 10, 0, 1]  # of the list of scans: both resolutions early, should the run be cut short

Row = dict[str, Any]


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    rows_file = options.out / "rows.jsonl"
    if not options.page_only:
        part, parts = (int(word) for word in options.shard.split("/"))
        todo = scans(options.shared / "data")[: options.limit][part::parts]
        done = {(row["case"], row["method"]) for row in read(rows_file, methods(options))}
        for scan in todo:
            started = time.perf_counter()
            for row in experiment(scan, options, done):
                with rows_file.open("a") as file:  # one short line: whole, also with two processes
                    file.write(json.dumps(row) + "\n")
            print(f"{scan['subject']}: {time.perf_counter() - started:.0f} s", flush=True)
        if part == 0:
            for row in real(options, done):
                with rows_file.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    words = [word for word in sys.argv[1:] if word != "--page-only"]
    command = "make ms-experiment" + (f" ARGS={shlex.quote(shlex.join(words))}" if words else "")
    ms_page.write(read(rows_file, methods(options)), options.page, methods(options), command)
    print(f"written: {options.page}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", default=[], help="more model folders: MS-tuned, pseudo-3D ...")
    parser.add_argument("--limit", type=int, help="only the first N scans")
    parser.add_argument("--shard", default="0/1", help="K/N: every N-th scan from the K-th")
    parser.add_argument(
        "--page-only", action="store_true", help="only write the page from the rows that are there"
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder that holds data/")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ms"), help="rows and pictures; never commit it"
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()


def methods(options: argparse.Namespace) -> list[str]:
    """All fills, the default first; other programs where they are installed."""
    tools = [name for name in ("fsl", "niftyseg") if _installed(name)]
    return [DEFAULT_MODEL, *options.models, *CLASSICAL, *tools]


def scans(data: Path) -> list[dict[str, str]]:
    """One scan of each dev person."""
    with (data / "subjects.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] == "dev"]
    first = list({row["person"]: row for row in reversed(rows)}.values())[::-1]
    early = [first[i] for i in ORDER]
    return early + [row for row in first if row not in early]


def experiment(
    scan: dict[str, str], options: argparse.Namespace, done: set[tuple[str, str]]
) -> Iterator[Row]:
    """The rows of one healthy scan that are not there yet."""
    wanted = ["lesioned", *methods(options)]
    case = scan["subject"]
    missing = [method for method in wanted if (case, name_of(method)) not in done]
    if not missing:
        return
    folder = options.shared / "data" / FOLDERS[scan["dataset"]]
    image: Any = nib.load(folder / f"{case}_T1w.nii.gz")
    healthy = np.asarray(image.dataobj, np.float32)
    tissue: Any = nib.load(folder / f"{case}_tissue.nii.gz")
    classes = np.asarray(tissue.dataobj).astype(np.uint8)
    spacing = tuple(float(edge) for edge in nib.affines.voxel_sizes(image.affine))
    seed = SEED + sum(case.encode())
    statistics = load_statistics()
    lesions = simulate(Anatomy.of_map(classes, spacing), statistics, seed=seed)
    brain = healthy > 0
    original = segment(healthy, brain)
    painted = paint_lesions(healthy, lesions, three_tissues(classes), statistics, spacing, seed=seed)
    lesioned = np.clip(np.rint(painted), 1, 255).astype(np.uint8) * brain
    regions = regions_of(lesions.mask, spacing, RING_MM)
    regions = {name: where & brain for name, where in regions.items()}
    known = np.isin(classes, (1, 2, 3, 4, 5, 6, 7, 9)) & (classes != UNLABELLED)
    truth = three_tissues(classes) * known
    one = float(np.prod(spacing)) / 1000
    facts = {
        "case": case, "person": scan["person"], "spacing_mm": spacing[0], "seed": seed,
        "lesions": len(lesions.placed), "load_ml": round(lesions.volume_ml, 3),
    }  # fmt: skip
    for method in missing:
        started = time.perf_counter()
        filled = lesioned if method == "lesioned" else fill(method, lesioned, lesions.mask, image.affine)
        seconds = time.perf_counter() - started
        labels = segment(filled.astype(np.float32), brain)
        yield facts | {
            "kind": "simulated",
            "method": name_of(method),
            "weights": weights_of(method),
            "seconds": round(seconds, 1),
            "against_original": compare(original, labels, one, regions),
            "against_labels": compare(truth, labels * known, one),
            "seam": None if method == "lesioned" else seam_score(filled, healthy, lesions.mask, brain),
        }


def real(options: argparse.Namespace, done: set[tuple[str, str]]) -> Iterator[Row]:
    """The rows of the real patient, and the pictures of the fills (beside the rows, not to be committed)."""
    folder = options.shared / "data" / "ms"
    patient = "patient26"
    for contrast in ("T1w", "T1wGd"):
        case = f"{patient}_{contrast}"
        wanted = ["lesioned", *methods(options)]
        missing = [method for method in wanted if (case, name_of(method)) not in done]
        if not missing:
            continue
        image: Any = nib.load(folder / f"{case}.nii.gz")
        values = np.asarray(image.dataobj, np.float32)
        mask_image: Any = nib.load(folder / f"{patient}_lesion.nii.gz")
        brain_image: Any = nib.load(folder / f"{patient}_brainmask.nii.gz")
        mask = np.asarray(mask_image.dataobj) > 0
        brain = (np.asarray(brain_image.dataobj) > 0) & (values > 0)
        one = float(abs(np.linalg.det(image.affine[:3, :3]))) / 1000
        for method in missing:
            out = options.out / f"{case}_{name_of(method)}"
            filled = values if method == "lesioned" else fill(method, values, mask, image.affine, out)
            labels = segment(filled, brain)
            inside = labels[mask & brain]
            yield {
                "kind": "real", "case": case, "method": name_of(method), "weights": weights_of(method),
                "load_ml": float(mask.sum() * one),
                "volumes_ml": volumes_ml(labels, image.affine),
                "white_share_of_lesion": float(np.mean(inside == 3)),
                "step": border_step(filled, mask, brain),
            }  # fmt: skip


def fill(
    method: str,
    values: NDArray[Any],
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    out: Path | None = None,
) -> NDArray[np.float32]:
    """The scan filled by one method; with ``out`` all its files are written there too."""
    image, hole = nib.Nifti1Image(values, affine), nib.Nifti1Image(mask.astype(np.uint8), affine)
    if method in EXTERNAL:
        return fill_with(EXTERNAL[method], image, hole)
    target = None if out is None else out / "filled.nii.gz"
    result = neuromend.fill(image, hole, target, model=method, threads=1, overwrite=True, modality="T1w")
    return np.asarray(result.image.dataobj, np.float32)


def border_step(values: NDArray[np.float32], mask: NDArray[np.bool_], brain: NDArray[np.bool_]) -> float:
    """Mean step across the border of the lesions, relative to that between neighbours just outside (1: no seam)."""
    near = regions_of(mask, (1, 1, 1), 3.0)["ring"] & brain
    across: list[NDArray[Any]] = []
    beside: list[NDArray[Any]] = []
    for axis in range(3):
        one = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        two = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        step = np.abs(values[two] - values[one])
        across.append(step[(mask[one] & near[two]) | (mask[two] & near[one])])
        beside.append(step[near[one] & near[two]])
    return float(np.concatenate(across).mean() / np.concatenate(beside).mean())


def name_of(method: str) -> str:
    """A model folder by its own name."""
    return Path(method).name


def read(path: Path, wanted: Sequence[str]) -> list[Row]:
    """The rows that are there, but for those of models whose weights have changed since."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    now = {name_of(method): weights_of(method) for method in wanted}
    return [row for row in rows if row.get("weights") == now.get(row["method"])]


def weights_of(method: str) -> str | None:
    """SHA-256 of a model's weights; None for what has none."""
    if method == "lesioned" or method in EXTERNAL:
        return None
    manifest = resolve_model(method).manifest
    return None if manifest is None else manifest.weights_sha256


def _installed(name: str) -> bool:
    try:
        EXTERNAL[name].find()
    except neuromend.NeuromendError:
        return False
    return True


if __name__ == "__main__":
    main()
