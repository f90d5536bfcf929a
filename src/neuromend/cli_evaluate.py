"""``neuromend evaluate`` and ``neuromend submission check|make|pack``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuromend import cli_options as opt
from neuromend.errors import UsageError
from neuromend.terminal import Talk, error_json, finding_json

if TYPE_CHECKING:
    from neuromend.findings import Finding
    from neuromend.pairing import Pairing

app = typer.Typer(help="Submissions to the BraTS inpainting challenge: check, make, pack.")

_INPUT, _OUTPUT = "Input", "Output"

Pred = Annotated[
    Path | None,
    opt._path_option(
        _INPUT, "--pred", "DIR", "The predictions, ID-t1n-inference.nii.gz.", default="those of --pairs"
    ),
]
Truth = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--truth",
        "DIR",
        "The case folders, each with ID-t1n, ID-t1n-voided and ID-mask-healthy.",
        default="those of --pairs",
    ),
]
Pairs = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--pairs",
        "FILE.tsv",
        "Files of any name: a table with the columns id, prediction, truth, mask and, if wanted, voided, tissue, "
        "tumour, samples.",
        default="the names of the BraTS challenge",
    ),
]
AllowMissing = Annotated[
    bool,
    opt._flag(_INPUT, "Score the cases that have a prediction and report the others.", "--allow-missing"),
]
Jobs = Annotated[
    int,
    opt._option(_INPUT, "--jobs -j", "N", "Cases at the same time, each in a process of its own.", min=1),
]
ScoresOut = Annotated[
    Path, opt._path_option(_OUTPUT, "--out -o", "DIR", "Where scores.csv, summary.md and summary.json go.")
]
Predictions = Annotated[
    Path, typer.Argument(parser=opt._path, metavar="DIR", show_default=False, help="The predictions.")
]
Cases = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--cases",
        "DIR",
        "The case folders, each with ID-t1n-voided and ID-mask: also checks affines, values, and that there is "
        "one prediction a case.",
        default="names, grids and finite values only",
    ),
]
CasesToFill = Annotated[
    Path,
    opt._path_option(_INPUT, "--cases", "DIR", "The case folders, each with ID-t1n-voided and ID-mask."),
]
SubmissionOut = Annotated[
    Path,
    opt._path_option(
        _OUTPUT, "--out -o", "DIR", "Where fills, predictions and submission.zip go; a second run goes on."
    ),
]
ZipOut = Annotated[Path, opt._path_option(_OUTPUT, "--out -o", "FILE.zip", "The zip to write.")]


def evaluate(
    context: typer.Context,
    out: ScoresOut,
    pred: Pred = None,
    truth: Truth = None,
    pairs: Pairs = None,
    allow_missing: AllowMissing = False,
    jobs: Jobs = 1,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Score predictions against the truth: the BraTS challenge's metrics, and ours.

    Writes scores.csv (a row a case), summary.md and summary.json (by size and site, with bootstrap intervals).
    """
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.score_files import check_outputs, summary_json, write_scores
        from neuromend.scoring import evaluate_pairs

        pairing = _pairing(pred, truth, pairs)
        created = check_outputs(out, overwrite=overwrite)

        def case_done(done: int, of: int, row: Mapping[str, Any]) -> None:
            talk.step("scoring", done, of)
            scores = f"PSNR {row['psnr_01']:.2f} dB, SSIM {row['ssim']:.4f}"
            talk.say(f"[{done}/{of}] {row['id']} ({row['volume_ml']:.1f} ml): {scores}")

        found = evaluate_pairs(pairing, jobs=jobs, allow_missing=allow_missing, on_case=case_done)
        outputs = write_scores(found, out)
        talk.end_progress()
        talk.show_findings((*created, *found.findings))
        for role, path in outputs.items():
            talk.result(f"{role}: {path}")
        files = {role: str(path) for role, path in outputs.items()}
        talk.result_json({"outputs": files, **summary_json(found)})


@app.command("check")
def check_command(
    context: typer.Context,
    folder: Predictions,
    cases: Cases = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> int:
    """Check names, grids, affines and values of a submission; exit status 65 if anything is wrong."""
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.errors import EXIT_BAD_DATA, EXIT_OK
        from neuromend.submission_checks import check_submission

        checked = check_submission(folder, cases, on_step=talk.step)
        talk.end_progress()
        talk.show_findings(checked.findings)
        for fault in checked.faults:
            talk.result(f"FAIL {fault.render()}")
        talk.result(f"{len(checked.predictions)} predictions, {len(checked.faults)} faults")
        talk.result_json(
            {
                "predictions": len(checked.predictions),
                "faults": [error_json(fault)["error"] for fault in checked.faults],
                "findings": [finding_json(finding) for finding in checked.findings],
            }
        )
        return EXIT_BAD_DATA if checked.faults else EXIT_OK


@app.command("make")
def make_command(
    context: typer.Context,
    cases: CasesToFill,
    out: SubmissionOut,
    model: opt.Model = opt.DEFAULT_MODEL,
    samples: opt.Samples = 0,
    steps: opt.Steps = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Fill every case of the challenge with a model, check the predictions and pack the zip.

    Run again, it keeps every case that is complete.
    """
    arguments: list[str] = context.obj
    with Talk(arguments, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.submission import make_submission

        def case_done(done: int, of: int, name: str, findings: Sequence[Finding]) -> None:
            talk.say(f"[{done}/{of}] {name}: ready")
            for finding in findings:
                if finding.level == "warning" or finding.code in ("RT-05", "SU-03"):
                    talk.say(f"{name}: [{finding.code}] {finding.message}")

        target, findings = make_submission(
            cases, out, on_case=case_done, model=model, samples=samples, steps=steps, seed=seed, device=device,
            threads=threads, on_step=talk.step, command=["neuromend", *arguments],
        )  # fmt: skip
        talk.end_progress()
        talk.show_findings(findings)
        talk.result(f"submission: {target}")
        talk.result_json({"outputs": {"submission": str(target)}})


@app.command("pack")
def pack_command(
    context: typer.Context,
    folder: Predictions,
    out: ZipOut,
    cases: Cases = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Check predictions made elsewhere and pack them into the challenge's zip."""
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.submission import pack_folder

        findings = pack_folder(folder, out, cases, overwrite=overwrite, on_step=talk.step)
        talk.end_progress()
        talk.show_findings(findings)
        talk.result(f"submission: {out}")
        talk.result_json({"outputs": {"submission": str(out)}})


def _pairing(pred: Path | None, truth: Path | None, pairs: Path | None) -> Pairing:
    """Pair by the names of the challenge or by a table, whichever was given (UX-15)."""
    from neuromend.pairing import pair_brats, pair_table

    if pairs is not None and pred is None and truth is None:
        return pair_table(pairs)
    if pairs is None and pred is not None and truth is not None:
        return pair_brats(pred, truth)
    raise UsageError(
        "UX-15",
        "expected either --pred and --truth, or --pairs",
        why="it must be clear which prediction belongs to which truth",
        fix="neuromend evaluate --pred DIR --truth DIR --out DIR",
    )
