"""``neuromend batch``: many scans, on this machine or on a cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuromend import cli_options as opt
from neuromend.errors import EXIT_OK, EXIT_PARTIAL, UsageError
from neuromend.findings import Finding
from neuromend.terminal import Talk

if TYPE_CHECKING:
    from neuromend.cohort.clusters import EngineOptions
    from neuromend.cohort.engine import Event, Summary

_INPUT, _CLUSTER, _OUTPUT = "Input", "Cluster", "Output"


class BatchSystem(StrEnum):
    """The batch systems whose jobs can be workers."""

    slurm = "slurm"
    pbs = "pbs"
    lsf = "lsf"
    sge = "sge"


Cases = Annotated[
    Path,
    typer.Argument(
        metavar="LIST.tsv|DIR",
        parser=opt._path,
        show_default=False,
        help="A table with the columns id, image and mask, or a folder of scans and masks (BraTS folders too).",
    ),
]
Out = Annotated[
    Path,
    opt._path_option(
        _OUTPUT,
        "--out -o",
        "DIR",
        "Each case gets a folder here, and cohort.tsv and failures.tsv tell how it went. What is finished here "
        "already is kept.",
    ),
]
FailFast = Annotated[
    bool, opt._flag(_OUTPUT, "Begin no more cases after the first one that fails.", "--fail-fast")
]
Workers = Annotated[
    int | None,
    opt._option(
        _CLUSTER,
        "--workers",
        "N",
        "Processes that fill, one case each at a time; with --cluster the number of jobs.",
        default="one a GPU; without GPUs one a core, as far as the memory goes",
    ),
]
Scheduler = Annotated[
    str | None,
    opt._option(
        _CLUSTER,
        "--scheduler",
        "ADDRESS",
        "Use a Dask cluster that runs, such as tcp://node01:8786.",
        default="workers are started on this machine",
    ),
]
Cluster = Annotated[
    BatchSystem | None,
    opt._option(
        _CLUSTER, "--cluster", "SYSTEM", "Submit workers as jobs: slurm, pbs, lsf or sge.", default="none"
    ),
]
ClusterFile = Annotated[
    Path | None,
    opt._path_option(
        _CLUSTER, "--cluster-file", "FILE.toml", "What to ask the batch system for.", default="none"
    ),
]
Slurm = Annotated[
    Path | None,
    opt._path_option(
        _CLUSTER,
        "--slurm",
        "FILE.toml",
        "Short for --cluster slurm --cluster-file FILE.toml.",
        default="none",
    ),
]
Attempts = Annotated[
    int,
    opt._option(_CLUSTER, "--attempts", "N", "How many workers a case may kill before it counts as failed."),
]
Dashboard = Annotated[
    str,
    opt._option(
        _CLUSTER,
        "--dashboard",
        "ADDRESS",
        "Where Dask's dashboard listens; on 0.0.0.0 others can see it. Port 0 is any that is free.",
    ),
]
WorkerThreads = Annotated[
    int | None,
    opt._option(
        "Model",
        "--threads",
        "N",
        "CPU threads of each worker.",
        default="the cores shared out among the workers",
    ),
]


def batch(
    context: typer.Context,
    cases: Cases,
    out: Out,
    volume: opt.Volume = None,
    assume_orientation: opt.AssumeOrientation = None,
    modality: opt.Modality = None,
    max_voxels: opt.MaxVoxels = 512**3,
    force_pair: opt.ForcePair = False,
    labels: opt.Labels = None,
    threshold: opt.Threshold = None,
    resample_mask: opt.ResampleMask = False,
    invert_mask: opt.InvertMask = False,
    allow_empty: opt.AllowEmpty = False,
    dilate_mm: opt.DilateMm = 0.0,
    min_size_ml: opt.MinSizeMl = 0.0,
    dilate: opt.DilateVoxels = 0,
    model: opt.Model = opt.DEFAULT_MODEL,
    samples: opt.Samples = 0,
    steps: opt.Steps = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    threads: WorkerThreads = None,
    no_fallback: opt.NoFallback = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    cluster_file: ClusterFile = None,
    slurm: Slurm = None,
    attempts: Attempts = 3,
    dashboard: Dashboard = "127.0.0.1:0",
    fail_fast: FailFast = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> int:
    """Fill many scans; whatever happens to some of them, the others are filled. Exit status 79 if some failed.

    Run it again to go on after a stop, to repeat what failed, or with a longer list: finished cases are kept.
    """
    chosen_labels = opt.parse_labels(labels)
    opt.refuse_voxels(dilate)
    arguments: list[str] = context.obj
    with Talk(
        arguments, json_output=as_json, quiet=quiet, verbose=verbose, color=not no_color, log=log
    ) as talk:
        talk.step("starting", 0, 1)
        require_cohort_extra()
        from neuromend.cohort.cases import Settings
        from neuromend.cohort.engine import run_cases
        from neuromend.cohort.listing import find_cases, read_list

        engine = engine_options(workers, scheduler, cluster, cluster_file, slurm, attempts, dashboard)
        listed: Any = read_list(cases, out) if not cases.is_dir() else find_cases(cases, out)
        if cases.is_dir():
            talk.show_findings(listed.findings)
            if listed.label_maps and chosen_labels is None:
                chosen_labels = "all"
                talk.say("every label of the BraTS segmentations is taken as lesion (--labels all)")
            listed = listed.cases
        settings = Settings(
            model=model, samples=samples, steps=steps, seed=seed, device=device, threads=threads,
            labels=tuple(chosen_labels) if isinstance(chosen_labels, list) else chosen_labels,
            threshold=threshold, resample_mask=resample_mask, invert_mask=invert_mask, allow_empty=allow_empty,
            dilate_mm=dilate_mm, min_size_ml=min_size_ml, force_pair=force_pair, modality=modality,
            volume=volume, assume_orientation=assume_orientation, max_voxels=max_voxels,
            fallback=not no_fallback, command=("neuromend", *arguments),
        )  # fmt: skip
        talk.step("starting the workers", 0, 1)
        summary = run_cases(
            listed, settings, engine, out, fail_fast=fail_fast, on_event=lambda event: tell(talk, event)
        )
        return conclude(talk, summary)


def engine_options(
    workers: int | None,
    scheduler: str | None,
    cluster: BatchSystem | None,
    cluster_file: Path | None,
    slurm: Path | None,
    attempts: int,
    dashboard: str,
) -> EngineOptions:
    """The options of the engine; ``--slurm FILE`` stands for two of them.

    Raises:
        UsageError: CO-03, they contradict each other.
    """
    from neuromend.cohort.clusters import EngineOptions

    if slurm is not None:
        if cluster is not None or cluster_file is not None:
            what, fix = "--slurm is given together with --cluster or --cluster-file", "leave one of them out"
            raise UsageError("CO-03", what, why="--slurm FILE stands for both of them", fix=fix)
        cluster, cluster_file = BatchSystem.slurm, slurm
    system: Any = None if cluster is None else cluster.value
    return EngineOptions(workers, scheduler, system, cluster_file, attempts, dashboard)


def require_cohort_extra() -> None:
    """Refuse where the packages for cohorts are not installed (CO-06)."""
    from importlib.util import find_spec

    missing = [name for name in ("dask", "distributed", "psutil") if find_spec(name) is None]
    if missing:
        raise UsageError(
            "CO-06",
            f"the package {missing[0]} is not installed",
            why="Dask hands the cases to the workers",
            fix="pip install 'neuromend[cohort]'",
        )


def tell(talk: Talk, event: Event) -> None:
    """Say what happened in a run: a line a case, and a bar with the remaining time on a terminal."""
    if event.kind == "begun":
        where = f"; dashboard: {event.dashboard}" if event.dashboard else ""
        talk.say(f"{event.text}{where}")
        talk.step("filling", 0, 1)
    elif event.kind == "waiting":
        talk.show_findings([Finding("RT-18", "note", f"put off: {event.text}")])
    elif event.kind == "no-workers":
        talk.say(event.text)
    if event.outcome is None:
        return
    outcome = event.outcome
    came = f"FAILED [{outcome.code}] {outcome.message}" if outcome.status == "failed" else outcome.status
    if outcome.reason:
        came += f", because {outcome.reason}"
    if outcome.flags:
        came += f" (look at {', '.join(dict.fromkeys(flag.code for flag in outcome.flags))})"
    rest = "" if event.remaining_seconds is None else f"; {_duration(event.remaining_seconds)} left"
    of = "" if event.total is None else f"/{event.total}"
    talk.step("filling", event.finished, event.total or 1)
    talk.say(f"[{event.finished}{of}] {outcome.id}: {came}, {outcome.seconds:.1f} s{rest}")


def conclude(talk: Talk, summary: Summary) -> int:
    """Print how a run ended and where its tables are; return the exit status."""
    talk.end_progress()
    counts = {name: getattr(summary, name) for name in ("done", "kept", "redone", "failed")}
    talk.result(f"cohort: {summary.cohort}")
    talk.result(f"failures: {summary.failures}")
    tables = {"cohort": str(summary.cohort), "failures": str(summary.failures)}
    talk.result_json({**counts, "stopped_early": summary.stopped_early, "outputs": tables})
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    talk.say(f"{told} in {_duration(summary.seconds)}")
    if not summary.failed:
        return EXIT_OK
    more = " (--fail-fast: others were not begun)" if summary.stopped_early else ""
    cases = "1 case" if summary.failed == 1 else f"{summary.failed} cases"
    what = f"{cases} failed{more}; {summary.failures.name} says why and what to do"
    talk.show_findings([Finding("RT-16", "warning", what)])
    return EXIT_PARTIAL


def _duration(seconds: float) -> str:
    """``8 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
