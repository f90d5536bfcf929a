"""Run methods on cases, one at a time, and keep every finished run.

The truth stays in this process: a method runs in another one (``benchmark_worker``) and is handed the scan with
noise in the hole (``evaluate.blind_fill``). Every run is one line of ``runs.jsonl``, appended when it is done,
and the filled voxels stand in ``fills/``. A later benchmark in the same folder repeats no run whose scan, mask,
model and settings are the same.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

from neuromend.benchmark_cases import Case, LoadedCase, load
from neuromend.benchmark_runs import RUNS, Row, append_run, fill_path, read_runs, save_fill
from neuromend.benchmark_worker import Measured, Worker
from neuromend.errors import NeuromendError, UsageError
from neuromend.evaluate import EvaluationError, blind_fill, score_case, size_class
from neuromend.external import EXTERNAL, identity
from neuromend.methods import METHODS
from neuromend.metrics_samples import sample_scores
from neuromend.models import available_models, resolve_model

OnRun = Callable[[int, int, Row, bool], None]
"""Called with (done, of, row, whether it was kept from an earlier benchmark)."""

ORACLE = "oracle"
"""A method that is handed the truth and returns it: the best score that there is."""


@dataclass(frozen=True)
class Method:
    """One line of the leaderboard.

    Attributes:
        label: its name there.
        model: name or folder of a model, name of an external tool, or ``ORACLE``.
        samples: 0 for the expected fill; N for the mean of N samples.
        identity: what tells it from another version of itself.
    """

    label: str
    model: str
    samples: int
    identity: str


@dataclass(frozen=True)
class Settings:
    """Arguments of ``neuromend.fill`` that all runs share."""

    seed: int = 0
    steps: int | None = None
    device: str = "auto"
    threads: int | None = None


def default_names() -> list[str]:
    """Every model that can be used, the external tools that are installed, and the oracle."""
    usable = [entry.name for entry in available_models() if entry.problem is None]
    installed = [name for name, tool in EXTERNAL.items() if _is_installed(name)]
    return [*usable, *installed, ORACLE]


def methods_of(names: Sequence[str], samples: int) -> list[Method]:
    """The methods that these names stand for; with ``samples``, a network also draws one, and that many.

    A network that has no expected fill answers with one sample anyway.

    Raises:
        UsageError: BM-08, two methods would have one name; UX-02, ``samples`` is 1 or negative.
        CheckpointError: MO-, a model that is not there or cannot be used.
        MissingInputError: BM-01, a tool that is not installed.
    """
    if samples < 0 or samples == 1:
        raise UsageError(
            "UX-02",
            f"--samples is {samples}, expected 0, or 2 or more",
            why="the mean and the spread of samples are scored; one sample is scored beside them in any case",
            fix="--samples 8",
        )
    methods: list[Method] = []
    for name in names:
        if name == ORACLE:
            methods.append(Method(ORACLE, ORACLE, 0, ORACLE))
        elif name in EXTERNAL:
            methods.append(Method(name, name, 0, identity(EXTERNAL[name])))
        else:
            methods += _methods_of_model(name, samples)
    labels = [method.label for method in methods]
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double is not None:
        raise UsageError(
            "BM-08",
            f"--models names two methods that are called '{double}'",
            why="their lines in the leaderboard could not be told apart",
            fix="leave one out, or rename one in its manifest",
        )
    return methods


def run_benchmark(
    cases: Sequence[Case], methods: Sequence[Method], out: Path, settings: Settings, *, on_run: OnRun
) -> list[Row]:
    """Run every method on every case that is not done yet.

    Args:
        cases: holes in healthy scans.
        methods: what fills them.
        out: folder of the runs; those of an earlier benchmark are kept.
        settings: of all fills.
        on_run: told of every run.

    Returns:
        A row a run, by method and then by case. A method that failed on a case has a row with ``failed``, which
        a later benchmark tries again.

    Raises:
        EvaluationError: TR-12, a method looks at what it must not see.
        InputError: BM-09, ``runs.jsonl`` is something else; IN- and MA-, a case that cannot be used.
        StorageError: RT-, a run cannot be written.
    """
    kept = read_runs(out / RUNS)
    rows: list[Row] = []
    total = len(cases) * len(methods)
    for method in methods:
        digests = {case.id: run_digest(case, method, settings) for case in cases}
        fills = {case.id: fill_path(out, method.label, case.id) for case in cases}
        pending = {case.id for case in cases if not _is_done(kept.get(digests[case.id]), fills[case.id])}
        worker = Worker(method.model, {**asdict(settings), "samples": method.samples})
        proven = method.model in EXTERNAL  # such tools may be random, and see nothing either
        with worker if pending and method.model != ORACLE else nullcontext():
            for case in cases:
                if case.id not in pending:
                    rows.append(kept[digests[case.id]])
                    on_run(len(rows), total, rows[-1], True)
                    continue
                facts = {
                    "digest": digests[case.id],
                    "id": case.id,
                    "method": method.label,
                    "model": method.model,
                }
                row = facts | _run(case, method, worker, settings, fills[case.id], prove=not proven)
                proven = proven or "failed" not in row
                append_run(out / RUNS, row)
                rows.append(row)
                on_run(len(rows), total, row, False)
    return rows


def run_digest(case: Case, method: Method, settings: Settings) -> str:
    """SHA-256 of all that decides a run: the files, the model, the settings, the version of neuromend."""
    image, mask, tissue = case.digest
    decisive = {
        "image": image, "mask": mask, "site": case.site, "tissue": tissue,
        "method": method.label, "model": method.identity, "samples": method.samples, **asdict(settings),
        "neuromend": version("neuromend"),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _methods_of_model(name: str, samples: int) -> list[Method]:
    entry = resolve_model(name)
    manifest = entry.manifest
    identity = entry.name if manifest is None else manifest.weights_sha256 + manifest.config_sha256
    kinds = [(entry.name, 0)]
    kind = None if manifest is None else METHODS.get(manifest.method)
    if samples and manifest is not None and getattr(kind, "samples_are_anatomies", True):
        one = [(f"{entry.name}, 1 sample", 1)] if kind is None or kind.expected_steps is not None else []
        kinds += [*one, (f"{entry.name}, mean of {samples}", samples)]
    return [Method(label, name, count, identity) for label, count in kinds]


def _run(case: Case, method: Method, worker: Worker, settings: Settings, target: Path, *, prove: bool) -> Row:
    """One method on one case: the row without its name. A foreseen error becomes a row with ``failed``."""
    loaded = load(case)
    try:
        if method.model == ORACLE:
            made = _given(loaded)
        else:
            scan = nib.Nifti1Image(loaded.healthy, loaded.affine)  # type: ignore[no-untyped-call]
            seed = zlib.crc32(case.id.encode())
            made = blind_fill(worker, scan, loaded.mask, seed=seed, prove=prove).result
        filled = np.asarray(made.image.dataobj, np.float32)
        scores = score_case(filled, loaded.healthy, loaded.mask)
        if len(made.samples) > 1:
            drawn = [np.asarray(sample.dataobj, np.float32) for sample in made.samples]
            voided = np.where(loaded.mask, 0, loaded.healthy)
            scores |= sample_scores(drawn, loaded.healthy, voided, loaded.mask)
    except EvaluationError:
        raise
    except NeuromendError as error:
        return {"failed": f"[{error.code}] {error.what}"}
    save_fill(target, filled[loaded.mask])
    return {
        "volume_ml": round(loaded.volume_ml, 4),
        "largest_piece_ml": round(loaded.largest_piece_ml, 4),
        "size_class": size_class(loaded.volume_ml),
        "site": loaded.site,
        "spacing_mm": round(float(np.cbrt(abs(np.linalg.det(loaded.affine[:3, :3])))), 3),
        "seconds": round(made.seconds, 3),
        "peak_memory_mb": round(made.peak_memory_mb, 1),
        "gpu_memory_mb": made.gpu_memory_mb,
        "device": made.device,
        "steps": made.steps,
        "samples": method.samples,
        "seed": settings.seed,
        **scores,
    }


def _given(loaded: LoadedCase) -> Measured:
    truth = nib.Nifti1Image(loaded.healthy, loaded.affine)  # type: ignore[no-untyped-call]
    return Measured(truth, (), 0.0, 0.0, None, "none", None)


def _is_done(row: Row | None, fill: Path) -> bool:
    return row is not None and "failed" not in row and fill.is_file()


def _is_installed(name: str) -> bool:
    try:
        EXTERNAL[name].find()
    except NeuromendError:
        return False
    return True
