"""Score the files of many cases: read, check that they belong together, compare with the truth.

What would make a score meaningless (another grid, voxels that are not finite, a voided scan that shows the
hidden tissue) is refused with the name of the case; what only may is a finding.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuromend.data.mask_values import binarise, voxel_ml
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import InputError, NeuromendError
from neuromend.evaluate import score_case, size_class
from neuromend.findings import Finding
from neuromend.metrics_samples import sample_scores
from neuromend.pairing import Pair, Pairing, listed
from neuromend.scoring_checks import (
    check_finite,
    check_grid,
    check_hole,
    check_range,
    check_tumour,
    check_voided,
    doubts,
    site_in,
)

Row = dict[str, Any]
OnCase = Callable[[int, int, Row], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """One case.

    Attributes:
        row: ``id``, the scores (``score_case``, then ``sample_scores`` where there are samples), then
            ``volume_ml``, ``size_class`` and ``site`` (empty without a tissue map).
        findings: what was noticed.
        files: role -> name and SHA-256 of every file that was read.
    """

    row: Row
    findings: tuple[Finding, ...]
    files: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Many cases, in the order of the pairs; attributes as in ``Scored`` and ``Pairing``."""

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    files: dict[str, dict[str, dict[str, str]]]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def evaluate_pairs(
    pairing: Pairing, *, jobs: int = 1, allow_missing: bool = False, on_case: OnCase | None = None
) -> Evaluation:
    """Score every pair.

    Args:
        pairing: which files belong together.
        jobs: cases at the same time, each in a process of its own.
        allow_missing: go on with the cases that have a prediction.
        on_case: called with (done, of, row) after each case.

    Raises:
        InputError: EV-01, cases without a prediction, or none has one; EV-06, several cases were refused;
            the error of the case, if one was. No case is left out in silence, so then there are no scores.
    """
    findings = _complete(pairing, allow_missing=allow_missing)
    done: dict[int, Scored] = {}
    refused: list[tuple[int, NeuromendError]] = []
    for count, (index, outcome) in enumerate(_outcomes(pairing.pairs, jobs), start=1):
        if isinstance(outcome, Scored):
            done[index] = outcome
            if on_case is not None:
                on_case(count, len(pairing.pairs), outcome.row)
        else:
            refused.append((index, outcome))
    if refused:
        raise _refusal(
            [error for _, error in sorted(refused, key=lambda entry: entry[0])], len(pairing.pairs)
        )
    cases = [done[index] for index in sorted(done)]
    return Evaluation(
        rows=tuple(case.row for case in cases),
        findings=(*findings, *(finding for case in cases for finding in case.findings)),
        files={case.row["id"]: case.files for case in cases},
        missing=pairing.missing,
        extra=tuple(path.name for path in pairing.extra),
    )


def score_pair(pair: Pair) -> Scored:
    """Read and score one case.

    Raises:
        NeuromendError: a file cannot be read (IN-, MA-), or one of ``neuromend.scoring_checks`` fails.
    """
    reader = _Reader(pair)
    truth, prediction = reader.truth, reader.read("prediction", pair.prediction)
    drawn = reader.read("mask", pair.mask)
    hole, _ = binarise(drawn, labels=None, threshold=None, invert=False)
    check_hole(pair, hole)
    check_finite(truth, hole, "the truth")
    check_finite(prediction, hole, "the prediction")
    voided = np.where(hole, 0, truth.values)
    if pair.voided is not None:
        voided = reader.read("voided", pair.voided).values
        check_voided(pair, voided, hole)
    if pair.tumour is not None:
        check_tumour(pair, reader.read("tumour", pair.tumour).values, hole)
    check_range(pair, voided)
    row: Row = {"id": pair.id, **score_case(prediction.values, truth.values, hole, voided)}
    if pair.samples:
        samples = [reader.read(f"sample-{n:02d}", path) for n, path in enumerate(pair.samples, start=1)]
        for path, sample in zip(pair.samples, samples, strict=True):
            check_finite(sample, hole, str(path.name))
        row |= sample_scores([sample.values for sample in samples], truth.values, voided, hole)
    volume = float(np.count_nonzero(hole)) * voxel_ml(truth.affine)
    row |= {"volume_ml": round(volume, 4), "size_class": size_class(volume), "site": ""}
    if pair.tissue is not None:
        row["site"] = site_in(pair, reader.read("tissue", pair.tissue), hole)
    findings = [*reader.findings, *doubts(prediction, truth, hole)]
    named = tuple(Finding(f.code, f.level, f"{pair.id}: {f.message}") for f in findings)
    return Scored(row, named, reader.files)


@dataclass
class _Reader:
    """Reads the files of one case onto the grid of its truth, and remembers what they were."""

    pair: Pair
    findings: list[Finding] = field(default_factory=list)
    files: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.truth = self._file("truth", self.pair.truth)

    def read(self, role: str, path: Path) -> Volume:
        volume = self._file(role, path)
        self.findings += check_grid(volume, self.truth, role)
        return volume

    def _file(self, role: str, path: Path) -> Volume:
        volume = read_volume(path)
        self.files[role] = {"file": path.name, "sha256": volume.sha256_file}
        return volume


def _complete(pairing: Pairing, *, allow_missing: bool) -> list[Finding]:
    """Report what has no partner; refuse missing predictions unless they are allowed."""
    findings = []
    total = len(pairing.pairs) + len(pairing.missing)
    if pairing.extra:
        names = listed(path.name for path in pairing.extra)
        message = f"{len(pairing.extra)} files among the predictions belong to no case: {names}"
        findings.append(Finding("EV-02", "warning", message))
    if pairing.missing:
        what = f"{len(pairing.missing)} of {total} cases have no prediction: {listed(pairing.missing)}"
        if not allow_missing or not pairing.pairs:
            raise InputError(
                "EV-01",
                what,
                why="a mean over the cases that a model could do flatters it",
                fix="add the predictions (ID-t1n-inference.nii.gz)"
                + (", or leave those cases out: --allow-missing" if pairing.pairs else ""),
            )
        findings.append(Finding("EV-01", "warning", f"{what}; left out, as allowed"))
    return findings


def _outcomes(pairs: tuple[Pair, ...], jobs: int) -> Iterator[tuple[int, Scored | NeuromendError]]:
    """Every pair's number and result, as they come."""
    if min(jobs, len(pairs)) <= 1:
        for index, pair in enumerate(pairs):
            yield index, _rebuilt(_attempt(pair))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(pairs)), context, initializer=_leave_signals_alone) as pool:
        futures = {pool.submit(_attempt, pair): index for index, pair in enumerate(pairs)}
        try:
            for future in as_completed(futures):
                yield futures[future], _rebuilt(future.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _attempt(pair: Pair) -> Scored | tuple[type[NeuromendError], dict[str, Any]]:
    """Score one case; an error comes back in parts, because it cannot be pickled whole."""
    try:
        return score_pair(pair)
    except NeuromendError as error:
        return type(error), {**vars(error), "what": f"case {pair.id}: {error.what}"}


def _rebuilt(outcome: Scored | tuple[type[NeuromendError], dict[str, Any]]) -> Scored | NeuromendError:
    if isinstance(outcome, Scored):
        return outcome
    kind, parts = outcome
    return kind(parts["code"], parts["what"], why=parts["why"], fix=parts["fix"], path=parts["path"])


def _leave_signals_alone() -> None:
    # Ctrl-C reaches the whole group of processes; the parent alone decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _refusal(errors: list[NeuromendError], total: int) -> NeuromendError:
    if len(errors) == 1:
        return errors[0]
    each = (f"[{error.code}] {error.what} ({error.path})" for error in errors)
    return InputError(
        "EV-06",
        f"{len(errors)} of {total} cases cannot be scored: {'; '.join(each)}",
        why="a table without them would be another table",
        fix="correct them, or take them out of the cases",
    )
