"""Score models on the dev cases: `make score-dev`, or `python benchmarks/score_dev.py --help`.

Every case is voided by ``evaluate.blind_fill``: a model is handed the scan with noise in place of the hidden
tissue, so there is nothing to peek at; on the first case every model must prove that it does not look there.
All models go through the public ``neuromend.fill`` on the same files and are scored with the same limits.
Writes OUT.csv (a row a case and model) and OUT.md (the tables, which are also
printed). No score is asserted; the numbers are for people.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import score_tables
from dev_cases import SHARED, DevCase, dev_cases, load

import neuromend
from neuromend.evaluate import BlindFill, blind_fill, score_case
from neuromend.metrics_samples import sample_scores
from neuromend.models import DEFAULT_MODEL, resolve_model

CLASSICAL = ("ring-mean", "harmonic", "mirror")
Row = dict[str, Any]


def main() -> None:
    options = parse()
    cases = dev_cases(options.shared)
    if options.limit:  # drawn, so that both resolutions and all sizes are met; always the same ones
        cases = [cases[i] for i in sorted(np.random.default_rng(0).permutation(len(cases))[: options.limit])]
    for model in options.models:
        resolve_model(model)  # an unknown name should fail now, not after an hour
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for done, found in enumerate(scored(cases, options), start=1):
        rows += found
        print(progress(done, len(cases), found), flush=True)
    order = {case.id: number for number, case in enumerate(cases)}
    rows.sort(key=lambda row: order[row["id"]])
    write_csv(rows, options.out.with_suffix(".csv"))
    text = score_tables.report(rows, baselines=[m for m in options.models if m in CLASSICAL])
    options.out.with_suffix(".md").write_text(text)
    print(f"\n{text}\nwritten: {options.out.with_suffix('.csv')}, {options.out.with_suffix('.md')}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", default=[*CLASSICAL, DEFAULT_MODEL], help="names or model folders"
    )
    parser.add_argument("--samples", type=int, default=0, help="also score N random samples of each network")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's own)")
    parser.add_argument("--limit", type=int, help="only N of the cases, always the same")
    parser.add_argument("--jobs", type=int, default=1, help="cases at the same time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder that holds data/")
    parser.add_argument("--out", type=Path, default=Path("runs/score-dev"), help="stem of the files written")
    return parser.parse_args()


def scored(cases: Sequence[DevCase], options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of every case, as they come."""
    if options.jobs == 1:
        yield from (score(case, options, prove=case is cases[0]) for case in cases)
        return
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(score, case, options, prove=case is cases[0]) for case in cases]
        for future in as_completed(futures):
            yield future.result()


def score(case: DevCase, options: argparse.Namespace, *, prove: bool) -> list[Row]:
    """Fill one case with every model and score each fill; ``prove``: that the models are blind."""
    healthy, mask, affine = load(case)
    scan = nib.Nifti1Image(healthy.astype(np.uint8), affine)
    volume = float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)
    facts = {
        "id": case.id,
        "site": case.site,
        "shape": case.shape_kind,
        "size_class": case.size_class,
        "volume_ml": round(volume, 3),
        "spacing_mm": round(float(nib.affines.voxel_sizes(affine).mean()), 3),
    }
    rows: list[Row] = []
    for model in options.models:
        settings: dict[str, Any] = {
            "model": model,
            "steps": options.steps,
            "device": options.device,
            "threads": max(1, (os.cpu_count() or 1) // options.jobs),
        }
        fill = partial(neuromend.fill, **settings)
        expected = blind_fill(fill, scan, mask, seed=case.seed, prove=prove)
        name = resolve_model(model).name
        rows.append(
            {**facts, "model": name, "seconds": round(expected.seconds, 2)}
            | score_case(values(expected.result.image), healthy, mask)
        )
        if options.samples > 1 and not resolve_model(model).is_classical:
            draw = partial(fill, samples=options.samples)
            drawn = blind_fill(draw, scan, mask, seed=case.seed, prove=prove)
            rows += score_samples({**facts, "model": name}, healthy, mask, drawn)
    return rows


def score_samples(
    facts: Mapping[str, Any], healthy: np.ndarray, mask: np.ndarray, filled: BlindFill
) -> list[Row]:
    """Two rows more: one sample alone, and the mean of all with the scores of their spread."""
    drawn = [values(sample) for sample in filled.result.samples]
    single = {**facts, "model": f"{facts['model']}, 1 sample"} | score_case(drawn[0], healthy, mask)
    mean = {**facts, "model": f"{facts['model']}, mean of {len(drawn)}", "seconds": round(filled.seconds, 2)}
    mean |= score_case(values(filled.result.image), healthy, mask)
    return [single, mean | sample_scores(drawn, healthy, np.where(mask, 0, healthy), mask)]


def values(image: Any) -> np.ndarray:
    return np.asarray(image.dataobj, dtype=np.float32)


def progress(done: int, total: int, rows: Sequence[Row]) -> str:
    scores = "  ".join(f"{row['model']} {row['psnr_01']:.1f} dB" for row in rows)
    return f"[{done}/{total}] {rows[0]['id']} ({rows[0]['volume_ml']:.1f} ml)  {scores}"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One header for all: rows of samples have columns that the others leave empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(
            {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows
        )


if __name__ == "__main__":
    main()
