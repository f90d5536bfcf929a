"""The command ``neuromend``: one small function a command, and the place where errors become exit statuses.

Nothing heavy is imported before a command needs it, so that ``--help`` and usage errors are answered at once.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from neuromend import (
    cli_benchmark,
    cli_bids,
    cli_cohort,
    cli_evaluate,
    cli_lesions,
    cli_masks,
    cli_models,
    cli_prepare,
    cli_published,
    cli_relabel,
    cli_review,
    cli_tissue,
    cli_train,
)
from neuromend import cli_options as opt
from neuromend.cli_errors import as_error
from neuromend.errors import EXIT_DEVICE, EXIT_OK
from neuromend.interrupts import clean_stop
from neuromend.terminal import (
    Talk,
    describe,
    error_json,
    finding_json,
    print_json,
    print_stdout,
    show_error,
)

CITATION = "If this helps your work, please cite neuromend: neuromend cite"

app = typer.Typer(
    help="Paint plausible healthy tissue into the lesion of a brain MRI, and change nothing else.",
    epilog="To begin: neuromend fill -i T1.nii.gz -m lesion.nii.gz -o filled.nii.gz, or neuromend demo without "
    "a scan of your own. The tissue is synthetic: not measured, not for diagnosis.",
    context_settings={"token_normalize_func": opt.canonical_name, "help_option_names": ["--help", "-h"]},
    add_completion=False,
    rich_markup_mode="rich",
)


FILL, MANY, MEASURE, TRAIN = (
    "Fill a scan",
    "Many scans",
    "Measure",
    "Train, and compare with what is published",
)
"""The panels of ``neuromend --help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; ``argv`` defaults to the arguments of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _calm_openmp()
    debug = "--debug" in arguments
    if argv is None and not debug and not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' warnings are for developers; ours are findings
    try:
        with clean_stop():
            status = app(args=arguments, prog_name="neuromend", standalone_mode=False, obj=arguments)
        return int(status or EXIT_OK)
    except SystemExit:
        return EXIT_OK  # typer's answer to a reader of the help (such as `head`) that has gone
    except BaseException as problem:
        error = as_error(problem, arguments)
        if debug:
            traceback.print_exception(problem)
        show_error(error, color="--no-color" not in arguments)
        if "--json" in arguments:
            print_json(error_json(error))
        return error.exit_status


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            metavar=" ",
            callback=lambda wanted: _print_version(wanted),
            help="Print the version, with the commit in a checkout.",
        ),
    ] = False,
) -> None:
    """Paint plausible healthy tissue into the lesion of a brain MRI, and change nothing else."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from neuromend.provenance import version_string

        print_stdout(f"neuromend {version_string()}")
        raise typer.Exit


@app.command(rich_help_panel=FILL)
def fill(
    context: typer.Context,
    image: opt.Image,
    mask: opt.Mask,
    out: opt.Out,
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
    threads: opt.Threads = None,
    no_fallback: opt.NoFallback = False,
    overwrite: opt.Overwrite = False,
    skip_existing: opt.SkipExisting = False,
    dry_run: opt.DryRun = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Fill the lesion of a scan with plausible healthy tissue.

    Outside the mask the output equals the input bit for bit.
    """
    chosen_labels = opt.parse_labels(labels)
    opt.refuse_voxels(dilate)
    arguments: list[str] = context.obj
    start = time.perf_counter()
    with Talk(
        arguments, json_output=as_json, quiet=quiet, verbose=verbose, color=not no_color, log=log
    ) as talk:
        talk.step("starting", 0, 1)
        import neuromend

        result = neuromend.fill(
            image, mask, out, model=model, samples=samples, steps=steps, seed=seed, device=device,
            threads=threads, labels=chosen_labels, threshold=threshold, resample_mask=resample_mask,
            invert_mask=invert_mask, allow_empty=allow_empty, dilate_mm=dilate_mm, min_size_ml=min_size_ml,
            overwrite=overwrite, skip_existing=skip_existing, force_pair=force_pair, modality=modality,
            volume=volume, assume_orientation=assume_orientation, max_voxels=max_voxels,
            fallback=not no_fallback, dry_run=dry_run, on_step=talk.step, command=["neuromend", *arguments],
        )  # fmt: skip
        talk.end_progress()
        talk.show_findings(result.findings)
        for role, path in result.outputs.items():
            talk.result(f"{'would write ' if dry_run else ''}{role}: {path}")
        talk.result_json(fill_json(result, dry_run=dry_run))
        if result.kept:
            talk.say("kept the output that is there: nothing was done")
        else:
            talk.say(f"{'checked' if dry_run else 'done'} in {time.perf_counter() - start:.1f} s")
        talk.say(CITATION)


@app.command(rich_help_panel=FILL)
def check(
    context: typer.Context,
    image: opt.Image,
    mask: opt.Mask,
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
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Do scan and mask belong together? All checks that `fill` makes before it starts; nothing is written."""
    chosen_labels = opt.parse_labels(labels)
    opt.refuse_voxels(dilate)
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        import neuromend

        talk.step("checking", 0, 1)
        findings = neuromend.check(
            image, mask, labels=chosen_labels, threshold=threshold, resample_mask=resample_mask,
            invert_mask=invert_mask, allow_empty=allow_empty, dilate_mm=dilate_mm, min_size_ml=min_size_ml,
            force_pair=force_pair, modality=modality, volume=volume, assume_orientation=assume_orientation,
            max_voxels=max_voxels,
        )  # fmt: skip
        talk.end_progress()
        for finding in findings:
            talk.result(describe(finding))
        talk.result_json({"findings": [finding_json(finding) for finding in findings]})
        talk.say("this scan and mask can be filled")


@app.command(rich_help_panel=FILL)
def demo(
    context: typer.Context,
    image: opt.DemoImage = None,
    out: opt.DemoOut = Path("neuromend-demo"),
    lesion_ml: opt.LesionMl = 20.0,
    seed: opt.LesionSeed = 0,
    model: opt.Model = opt.DEFAULT_MODEL,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Plant a lesion into a healthy scan, fill it, and compare with the truth."""
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.demo import run_demo

        done = run_demo(
            image, out, lesion_ml=lesion_ml, seed=seed, model=model, device=device,
            threads=threads, on_step=talk.step,
            command=["neuromend", *context.obj],
        )  # fmt: skip
        talk.end_progress()
        talk.show_findings(done.findings)
        for role, path in done.outputs.items():
            talk.result(f"{role}: {path}")
        talk.result_json(done.as_json())
        for line in done.story():
            talk.say(line)
        talk.say(f"to look at it, open {done.outputs['report'].name} in a browser")
        talk.say(CITATION)


@app.command(rich_help_panel=FILL)
def doctor(run: opt.SyntheticRun = True, as_json: opt.AsJson = False, debug: opt.Debug = False) -> int:
    """Can this installation fill a scan, and what would make it better? Exit status 69 if it cannot."""
    from neuromend.doctor import run_doctor

    findings = run_doctor(synthetic_run=run)
    if as_json:
        print_json({"findings": [finding_json(finding) for finding in findings]})
    else:
        for finding in findings:
            print_stdout(describe(finding))
    broken = any(finding.code == "DR-02" and finding.level == "warning" for finding in findings)
    return EXIT_DEVICE if broken else EXIT_OK


@app.command(rich_help_panel=FILL)
def cite(record: opt.Record = None, debug: opt.Debug = False) -> None:
    """Print how to cite neuromend (BibTeX), and a methods paragraph for one run."""
    from neuromend.cite import bibtex, methods_paragraph
    from neuromend.provenance import read_sidecar

    paragraph = None if record is None else methods_paragraph(read_sidecar(record))
    print_stdout(bibtex().rstrip())
    if paragraph is not None:
        print_stdout(f"\n{paragraph}")


app.command(rich_help_panel=FILL)(cli_review.review)
app.command(rich_help_panel=FILL)(cli_relabel.relabel)
app.add_typer(cli_models.app, name="models", rich_help_panel=FILL)
app.command(rich_help_panel=MANY)(cli_cohort.batch)
app.command(rich_help_panel=MANY, cls=cli_bids.BidsCommand)(cli_bids.bids)
app.command(rich_help_panel=MANY)(cli_bids.group)
app.command(rich_help_panel=MEASURE)(cli_evaluate.evaluate)
app.command(rich_help_panel=MEASURE)(cli_benchmark.benchmark)
app.add_typer(cli_evaluate.app, name="submission", rich_help_panel=MEASURE)
app.add_typer(cli_tissue.app, name="tissue", rich_help_panel=MEASURE)
app.command("simulate-lesions", rich_help_panel=MEASURE)(cli_lesions.simulate_lesions)
app.command(rich_help_panel=TRAIN)(cli_prepare.prepare)
app.command(rich_help_panel=TRAIN)(cli_masks.healthy_masks)
app.command(rich_help_panel=TRAIN)(cli_train.train)
app.command(rich_help_panel=TRAIN)(cli_train.export)
app.command(rich_help_panel=TRAIN)(cli_published.import_weights)
app.command(rich_help_panel=TRAIN)(cli_published.parity)


def fill_json(result: Any, *, dry_run: bool) -> dict[str, Any]:
    """What ``fill --json`` prints: the files by role, the findings and the record (empty after a dry run)."""
    return {
        "dry_run": dry_run,
        "outputs": {role: str(path) for role, path in result.outputs.items()},
        "findings": [finding_json(finding) for finding in result.findings],
        "record": result.record,
    }


def _calm_openmp() -> None:
    """Let idle OpenMP threads sleep: threads that spin beside a busy neighbour stall each other.

    Read by the OpenMP library when torch is imported, so it stands before that. The user's own choice wins.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
