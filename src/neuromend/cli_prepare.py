"""``neuromend prepare``: a raw data set -> the cache that training reads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from neuromend import cli_options as opt
from neuromend.terminal import Talk, finding_json

_INPUT, _SPLIT, _OUTPUT = "Input", "Split", "Output"

Dataset = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET",
        help="A folder (BraTS inpainting cases, a BIDS data set, or plain images), or a table (.tsv) with the "
        "columns id and image and, if wanted, subject, split, lesion, tissue, healthy_mask, mni and kind.",
        show_default=False,
    ),
]
Subjects = Annotated[
    Path | None,
    opt._path_option(
        _SPLIT,
        "--subjects",
        "TSV",
        "A table with the columns subject and split (train, dev or test); goes before what the data set says.",
        default="splits are drawn by subject",
    ),
]
SplitSeed = Annotated[int, opt._option(_SPLIT, "--split-seed", "N", "Seed of the drawn splits.")]
DevShare = Annotated[float, opt._option(_SPLIT, "--dev-share", "X", "Share of the subjects that tunes.")]
TestShare = Annotated[
    float, opt._option(_SPLIT, "--test-share", "X", "Share of the subjects kept for the last test.")
]
Workers = Annotated[
    int | None,
    opt._option(
        _INPUT,
        "--workers",
        "N",
        "Processes that read and check; each takes about half a GB.",
        default="one a core, at most 8",
    ),
]
Allow = Annotated[
    float,
    opt._option(_INPUT, "--allow", "X", "Share of bad cases that is left out without stopping (0 to 1)."),
]
Strict = Annotated[
    bool, opt._flag(_INPUT, "Stop if a single case is bad, the same as --allow 0.", "--strict")
]
Out = Annotated[
    Path,
    opt._path_option(
        _OUTPUT, "--out -o", "DIR", "Folder of the cache. A second run keeps the cases that are done."
    ),
]


def prepare(
    context: typer.Context,
    dataset: Dataset,
    out: Out,
    subjects: Subjects = None,
    split_seed: SplitSeed = 0,
    dev_share: DevShare = 0.1,
    test_share: TestShare = 0.1,
    workers: Workers = None,
    allow: Allow = 0.05,
    strict: Strict = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Check a data set, split it by person, refuse leaks, and cache it for training.

    Bad cases are listed in quarantine.tsv and left out; the rest goes on.
    """
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.device import usable_cpus
        from neuromend.prepare import prepare as run

        done = run(
            dataset.expanduser(), out, split_seed=split_seed, dev_share=dev_share, test_share=test_share,
            subjects=subjects, workers=min(usable_cpus(), 8) if workers is None else workers,
            allow=0.0 if strict else allow, on_step=talk.step,
        )  # fmt: skip
        talk.end_progress()
        talk.show_findings(done.findings)
        for bad in done.refused:
            talk.say(f"quarantined {bad.id} [{bad.code}] {bad.file}: {bad.message}")
        for line in done.summary.lines():
            talk.say(line)
        talk.result(f"cache: {done.folder}")
        talk.result(f"summary: {done.folder / 'prepare.md'}")
        content = {"cache": str(done.folder), "summary": asdict(done.summary)}
        talk.result_json({**content, "findings": [finding_json(finding) for finding in done.findings]})
