"""``neuromend bids`` and ``neuromend group``: a BIDS dataset, and all results together."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from neuromend import cli_cohort as cohort
from neuromend import cli_options as opt
from neuromend.errors import EXIT_OK
from neuromend.terminal import Talk

_INPUT = "Input"

MANY = ("--participant-label", "--session-label", "--derivatives")
"""Options that take several values after one name, as BIDS Apps do."""


class Level(StrEnum):
    """The levels of a BIDS App that there are here."""

    participant = "participant"
    group = "group"


class BidsCommand(TyperCommand):
    """A command some of whose options take several values: ``--participant-label 01 02``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every value its own option, as the parser wants it."""
        return super().parse_args(ctx, spread(args))


def spread(arguments: list[str]) -> list[str]:
    """``--participant_label 01 02`` -> ``--participant-label 01 --participant-label 02``."""
    found: list[str] = []
    many: str | None = None
    for word in arguments:
        if word.startswith("-") and word != "-":
            name = word.replace("_", "-")
            many = name if name in MANY else None
            if many is None:
                found.append(word)
        elif many is not None:
            found += [many, word]
        else:
            found.append(word)
    return found


BidsDir = Annotated[
    Path, typer.Argument(metavar="BIDS_DIR", parser=opt._path, show_default=False, help="The BIDS dataset.")
]
OutDir = Annotated[
    Path,
    typer.Argument(
        metavar="OUT_DIR",
        parser=opt._path,
        show_default=False,
        help="The derivatives, such as BIDS_DIR/derivatives/neuromend. What is finished here already is kept.",
    ),
]
AnalysisLevel = Annotated[
    Level,
    typer.Argument(
        metavar="participant|group",
        show_default=False,
        help="participant: fill the scans. group: a table and a page of all of them.",
    ),
]
Participants = Annotated[
    list[str] | None,
    opt._option(
        _INPUT, "--participant-label", "LABEL...", "Only these subjects, with or without sub-.", default="all"
    ),
]
Sessions = Annotated[
    list[str] | None,
    opt._option(
        _INPUT, "--session-label", "LABEL...", "Only these sessions, with or without ses-.", default="all"
    ),
]
Derivatives = Annotated[
    list[Path] | None,
    opt._path_option(
        _INPUT,
        "--derivatives -d",
        "DIR...",
        "More datasets with lesion masks.",
        default="BIDS_DIR/derivatives/*",
    ),
]
FilterFile = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--bids-filter-file",
        "FILE.json",
        "Entities that choose among scans and among masks, by the keys t1w and lesion.",
        default="none",
    ),
]
Segmentations = Annotated[
    str | None,
    opt._option(
        "Group",
        "--segmentations",
        "PATTERN",
        "Your segmentations of the filled scans, or of each sample: their regions' volumes go into the table. "
        "A path with {id}, {participant}, {session}, {sample} and wildcards.",
        default="none",
    ),
]
RegionNames = Annotated[
    Path | None,
    opt._path_option(
        "Group",
        "--region-names",
        "FILE",
        "Names of their labels: a table with index and name, or FreeSurferColorLUT.txt.",
        default="the table beside a segmentation",
    ),
]
Tissues = Annotated[
    bool,
    opt._flag(
        "Group",
        "Segment the filled scans, or each sample, into fluid, grey and white matter; their volumes go into the "
        "table.",
        "--tissues",
    ),
]
BrainMasks = Annotated[
    str | None,
    opt._option(
        "Group",
        "--brain-masks",
        "PATTERN",
        "Brain masks for --tissues, with {id} or {participant} as above.",
        default="what is not 0 in skull-stripped scans",
    ),
]


def bids(
    context: typer.Context,
    bids_dir: BidsDir,
    out_dir: OutDir,
    level: AnalysisLevel,
    participant_label: Participants = None,
    session_label: Sessions = None,
    derivatives: Derivatives = None,
    bids_filter_file: FilterFile = None,
    volume: opt.Volume = None,
    assume_orientation: opt.AssumeOrientation = None,
    max_voxels: opt.MaxVoxels = 512**3,
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
    threads: cohort.WorkerThreads = None,
    no_fallback: opt.NoFallback = False,
    workers: cohort.Workers = None,
    scheduler: cohort.Scheduler = None,
    cluster: cohort.Cluster = None,
    cluster_file: cohort.ClusterFile = None,
    slurm: cohort.Slurm = None,
    attempts: cohort.Attempts = 3,
    dashboard: cohort.Dashboard = "127.0.0.1:0",
    segmentations: Segmentations = None,
    region_names: RegionNames = None,
    tissues: Tissues = False,
    brain_masks: BrainMasks = None,
    fail_fast: cohort.FailFast = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> int:
    """A BIDS App: fill the T1-weighted scans of a dataset that have lesion masks, as BIDS derivatives.

    Exit status 79 if some cases failed; run it again to go on.
    """
    chosen_labels = opt.parse_labels(labels)
    opt.refuse_voxels(dilate)
    arguments: list[str] = context.obj
    with Talk(
        arguments, json_output=as_json, quiet=quiet, verbose=verbose, color=not no_color, log=log
    ) as talk:
        talk.step("starting", 0, 1)
        cohort.require_cohort_extra()
        from neuromend.cohort.bids_app import find_cases, read_filters, run_participants
        from neuromend.cohort.bids_layout import Selection
        from neuromend.cohort.bids_outputs import BidsSettings

        scan_filter, mask_filter = read_filters(bids_filter_file)
        selection = Selection(
            participants=frozenset(label.removeprefix("sub-") for label in participant_label or ()),
            sessions=frozenset(label.removeprefix("ses-") for label in session_label or ()),
            scan=scan_filter,
            mask=mask_filter,
            any_dseg=chosen_labels is not None,
            derivatives=tuple(derivatives or ()),
        )
        talk.step("looking for scans and masks", 0, 1)
        cases = find_cases(bids_dir, out_dir, selection)
        if level is Level.group:
            return _group(
                talk, out_dir, [case.id for case in cases], segmentations, region_names, tissues, brain_masks
            )
        engine = cohort.engine_options(workers, scheduler, cluster, cluster_file, slurm, attempts, dashboard)
        settings = BidsSettings(
            model=model, samples=samples, steps=steps, seed=seed, device=device, threads=threads,
            labels=tuple(chosen_labels) if isinstance(chosen_labels, list) else chosen_labels,
            threshold=threshold, resample_mask=resample_mask, invert_mask=invert_mask, allow_empty=allow_empty,
            dilate_mm=dilate_mm, min_size_ml=min_size_ml, volume=volume, assume_orientation=assume_orientation,
            max_voxels=max_voxels, fallback=not no_fallback, command=("neuromend", *arguments),
        )  # fmt: skip
        talk.say(f"{len(cases)} T1-weighted scans")
        talk.step("starting the workers", 0, 1)
        summary = run_participants(
            cases, settings, engine, fail_fast=fail_fast, on_event=lambda event: cohort.tell(talk, event)
        )
        return cohort.conclude(talk, summary)


def group(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", parser=opt._path, show_default=False, help="Outputs of neuromend batch or bids."
        ),
    ],
    segmentations: Segmentations = None,
    region_names: RegionNames = None,
    tissues: Tissues = False,
    brain_masks: BrainMasks = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> int:
    """Write a table and a page about all results of a folder, doubtful cases first."""
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        cohort.require_cohort_extra()
        return _group(talk, folder, [], segmentations, region_names, tissues, brain_masks)


def _group(
    talk: Talk,
    folder: Path,
    expected: list[str],
    segmentations: str | None,
    region_names: Path | None,
    tissues: bool,
    brain_masks: str | None,
) -> int:
    from neuromend.cohort.group import write_group
    from neuromend.cohort.regions import check_pattern, read_names

    if segmentations is not None:
        check_pattern(segmentations)
    names = None if region_names is None else read_names(region_names)
    extra = None
    if tissues:
        from neuromend.cohort.tissues import TissueVolumes

        extra = TissueVolumes(brain_masks)
    talk.step("reading results", 0, 1)
    done = write_group(
        folder, expected=expected, segmentations=segmentations, names=names, extra=extra,
        on_case=lambda count: talk.step("reading results", count, max(count, len(expected))),
    )  # fmt: skip
    talk.end_progress()
    talk.result(f"table: {done.table}")
    talk.result(f"page: {done.page}")
    counts = {"cases": done.cases, "failed": done.failed, "flagged": done.flagged}
    talk.result_json({**counts, "outputs": {"table": str(done.table), "page": str(done.page)}})
    talk.say(f"{done.cases} cases, {done.failed} failed or missing, {done.flagged} flagged")
    return EXIT_OK
