"""From a raw data set to the cache that training reads: find, check, split, compare, write.

Every case is checked by itself, in several processes; a bad one goes into quarantine and the rest goes on. Then
all are compared with all: a brain that stands on two sides, under whatever name, ends the preparation. The
manifest is written last, so a cache that can be opened is finished and leaks nobody.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from neuromend.corpus.cache import CASES, MANIFEST, CaseRow, write_manifest
from neuromend.corpus.layouts import Layout, Source, find_cases
from neuromend.corpus.preparing import PREPARED_AS, Outcome, Refused, prepare_case, record_path
from neuromend.corpus.splitting import split_subjects
from neuromend.corpus.summary import Summary, summarise, write_summary
from neuromend.corpus.tables import read_subjects_table
from neuromend.corpus.twins import alike_pairs, leak_error, twin_findings, write_pairs
from neuromend.data.atomic import write_atomically
from neuromend.data.outputs import check_output
from neuromend.errors import InputError, OutputError, TemporaryError, UsageError
from neuromend.findings import Finding
from neuromend.pairing import listed

ALLOWED_SHARE = 0.05
"""Share of bad cases above which something is wrong with the whole data set."""

STORED_PER_READ = 5
"""Bytes of the cache for a byte of a compressed scan, roughly: what the free space is compared with."""

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What a preparation leaves.

    Attributes:
        folder: the cache; ``CaseCache.open(folder)`` reads it.
        digest: SHA-256 of its manifest.
        summary: counts and sizes, as in prepare.json.
        refused: the cases in quarantine.
        findings: what was noticed, summed over the cases.
    """

    folder: Path
    digest: str
    summary: Summary
    refused: tuple[Refused, ...]
    findings: tuple[Finding, ...]


def prepare(
    dataset: str | Path,
    out: str | Path,
    *,
    split_seed: int = 0,
    dev_share: float = 0.1,
    test_share: float = 0.1,
    subjects: str | Path | None = None,
    workers: int = 1,
    allow: float = ALLOWED_SHARE,
    on_step: OnStep | None = None,
) -> Prepared:
    """Prepare a data set for training.

    A second run with the same ``out`` keeps every case whose files are the same and makes the others.

    Args:
        dataset: a folder (BraTS inpainting, BIDS, or plain images) or a table of cases.
        out: folder of the cache.
        split_seed, dev_share, test_share: how persons without a stated split are divided.
        subjects: table with the columns subject and split; goes before what the data set says.
        workers: processes that read and check.
        allow: share of bad cases that is left out without stopping; 0 stops at the first bad one.
        on_step: called with (stage, done, of).

    Raises:
        InputError: TR-06 (too many bad cases), TR-08 or TR-10 (a person, or a copied scan, on two sides).
        MissingInputError: IN-38 or TR-06, there is nothing to prepare. UsageError: shares or counts make no sense.
        StorageError, OutputError, OutputPermissionError: RT-01 to RT-07.
    """
    dataset, out, begun = Path(dataset), Path(out), time.perf_counter()
    tell = on_step or (lambda stage, done, total: None)
    _check_numbers(workers, allow)
    layout = find_cases(dataset)
    stated = {} if subjects is None else read_subjects_table(Path(subjects))
    splits = split_subjects(
        layout.sources, stated, seed=split_seed, dev_share=dev_share, test_share=test_share
    )
    created = _begin(out, layout)
    outcomes: list[Outcome] = []
    # Closed at once when a signal stops the loop, so that no process goes on alone.
    with closing(_outcomes(layout.sources, out, workers)) as coming:
        for outcome in coming:
            outcomes.append(outcome)
            tell("checking and caching cases", len(outcomes), len(layout.sources))
    outcomes.sort(key=lambda outcome: outcome.id)
    rows = [replace(o.row, split=splits[o.row.subject]) for o in outcomes if o.row is not None]
    refused = tuple(o.refused for o in outcomes if o.refused is not None)
    _write_quarantine(out, refused)
    _stop_at_too_many(out, refused, len(outcomes), allow)

    tell("looking for brains that are there twice", 0, 1)
    pairs = alike_pairs(rows, out)
    write_pairs(out, pairs)
    if (leak := leak_error(pairs, out)) is not None:
        raise leak
    config = {"prepared_as": PREPARED_AS, "layout": layout.name, "split_seed": split_seed}
    config |= {"dev_share": dev_share, "test_share": test_share}
    digest = write_manifest(out, rows, config)
    removed = _remove_others(out, rows)
    seconds = time.perf_counter() - begun
    summary = summarise(
        layout, rows, outcomes, pairs, digest=digest, config=config, seconds=seconds, removed=removed
    )
    write_summary(out, summary)
    noticed = (*_of_splits(rows), *_unmarked(layout), *_summed(outcomes), *twin_findings(pairs))
    return Prepared(out, digest, summary, refused, (*created, *noticed))


def _check_numbers(workers: int, allow: float) -> None:
    if workers >= 1 and 0 <= allow <= 1:
        return
    what = (
        f"--workers {workers}, expected 1 or more" if workers < 1 else f"--allow {allow:g}, expected 0 to 1"
    )
    raise UsageError(
        "TR-06",
        what,
        why="cases cannot be prepared so",
        fix="--workers 4 --allow 0.05 (a twentieth may be bad)",
    )


def _begin(out: Path, layout: Layout) -> tuple[Finding, ...]:
    """Check that the cache can be written; take away the mark of an older one, which is about to change."""
    is_ours = (out / CASES).is_dir() or (out / MANIFEST).exists()
    if out.is_dir() and any(out.iterdir()) and not is_ours:
        raise OutputError(
            "RT-04",
            "the folder exists, is not empty and holds no cache",
            why="cases that no longer belong to the data set are removed from the folder of a cache",
            fix="choose another name for --out",
            path=out,
        )
    sizes = [0 if is_ours or not s.image.is_file() else s.image.stat().st_size for s in layout.sources]
    needed = STORED_PER_READ * sum(sizes)
    images = [source.image for source in layout.sources]
    created = check_output(out / MANIFEST, images[:1], overwrite=True, needed_bytes=needed)
    (out / MANIFEST).unlink(missing_ok=True)
    (out / CASES).mkdir(exist_ok=True)
    return created


def _outcomes(sources: Sequence[Source], out: Path, workers: int) -> Generator[Outcome]:
    """Prepare every case; with several processes, never more than twice as many are under way."""
    if workers == 1:
        for source in sources:
            yield prepare_case(source, out)
        return
    # Fresh processes: a fork of a process with threads (progress bars, OpenMP) may hang.
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(workers, context, _leave_ctrl_c) as pool:
        coming = iter(sources)
        running: set[Future[Outcome]] = set()
        try:
            while True:
                free = 2 * workers - len(running)
                running |= {pool.submit(prepare_case, source, out) for source in islice(coming, free)}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise TemporaryError(
                "RT-12",
                "a process that prepared a case was killed, most likely for want of memory",
                why="the cases under way are not finished; those that are stay",
                fix=f"run it again with fewer processes: --workers {max(1, workers // 2)}",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_ctrl_c() -> None:
    """In a worker: Ctrl-C reaches every process of the terminal, but only the first one decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile use one thread each: several would fight for the same cores."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _write_quarantine(out: Path, refused: Sequence[Refused]) -> None:
    lines = ["id\tfile\tcode\tmessage"]
    lines += [
        "\t".join(" ".join(cell.split()) for cell in (r.id, r.file, r.code, r.message)) for r in refused
    ]
    write_atomically(out / "quarantine.tsv", ("\n".join(lines) + "\n").encode())


def _stop_at_too_many(out: Path, refused: Sequence[Refused], count: int, allow: float) -> None:
    if len(refused) <= allow * count and len(refused) < count:
        return
    first = "; ".join(f"{r.id} [{r.code}] {r.file}: {r.message}" for r in refused[:3])
    raise InputError(
        "TR-06",
        f"{len(refused)} of {count} cases are bad ({len(refused) / count:.0%}, allowed {allow:.0%}): {first}",
        why="so many bad cases are a sign of a wrong copy or a wrong conversion of the whole data set",
        fix=f"repair what {out / 'quarantine.tsv'} lists and run it again (good cases are kept), or leave them out:"
        f" --allow {min(1.0, round(len(refused) / count + 0.005, 2)):g}",
        path=out / "quarantine.tsv",
    )


def _remove_others(out: Path, rows: Sequence[CaseRow]) -> int:
    """Remove finished cases that belong to the data set no more; return how many."""
    wanted = {row.id for row in rows}
    removed = 0
    for record in sorted((out / CASES).glob("*.json")):
        if record.stem not in wanted:
            record_path(out, record.stem).unlink()
            (out / CASES / f"{record.stem}.bin").unlink(missing_ok=True)
            removed += 1
    return removed


def _of_splits(rows: Sequence[CaseRow]) -> list[Finding]:
    """A warning where nobody trains or nobody is scored."""
    scans = {row.split for row in rows if row.kind == "scan"}
    lacking = [split for split in ("train", "dev") if split not in scans]
    return [
        Finding("TR-10", "warning", f"no scan is in the split '{split}'; --subjects can state the splits")
        for split in lacking
    ]


def _unmarked(layout: Layout) -> list[Finding]:
    """A warning where patients come without a mask of their tumour: it would be taught as healthy tissue."""
    unmarked = [source.id for source in layout.sources if source.lesion is None]
    if layout.name != "brats" or not unmarked:
        return []
    message = (
        f"{listed(unmarked, 3)}: no mask-unhealthy and no seg ({len(unmarked)} of {len(layout.sources)} cases);"
        " all of their tissue counts as healthy"
    )
    return [Finding("TR-11", "warning", message)]


def _summed(outcomes: Sequence[Outcome]) -> list[Finding]:
    """The findings of all cases, one line a code and level, with a count and the first as an example."""
    found: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    for outcome in outcomes:
        for finding in outcome.findings:
            found.setdefault((finding.code, finding.level), []).append((outcome.id, finding))
    summed = []
    for _, each in sorted(found.items()):
        count = len({name for name, _ in each})
        name, first = each[0]
        where = name if count == 1 else f"{count} cases, such as {name}"
        summed.append(replace(first, message=f"{where}: {first.message}"))
    return summed
