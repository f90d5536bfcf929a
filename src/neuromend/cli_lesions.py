"""``neuromend simulate-lesions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuromend import cli_options as opt
from neuromend.cli_tissue import BrainMask
from neuromend.terminal import Talk

_INPUT, _LESIONS, _OUTPUT = "Input", "Lesions", "Output"

#: What :data:`neuromend.lesions.SITES` says; repeated, because importing it would slow ``--help`` down.
SITES = "periventricular,juxtacortical,infratentorial,deep"

Scan = Annotated[
    Path, typer.Argument(parser=opt._path, metavar="SCAN", show_default=False, help="A healthy scan.")
]
LesionsOut = Annotated[Path, opt._path_option(_OUTPUT, "--out -o", "DIR", "Where the files go.")]
TissueMap = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--tissue",
        "LABELS",
        "Tissue labels of the scan, from `neuromend tissue` or with more classes.",
        default="the scan is segmented",
    ),
]
Count = Annotated[
    int | None, opt._option(_LESIONS, "--count", "N", "How many lesions.", default="drawn, as in patients")
]
LoadMl = Annotated[
    float | None,
    opt._option(_LESIONS, "--load-ml", "ML", "Volume of all lesions together.", default="as drawn"),
]
Sites = Annotated[str, opt._option(_LESIONS, "--sites", "SITE,..", "Where lesions may lie.")]
Paint = Annotated[
    bool, opt._flag(_OUTPUT, "Also write the scan with the lesions painted in, dark as in T1.", "--paint")
]


def simulate_lesions(
    context: typer.Context,
    scan: Scan,
    out: LesionsOut,
    tissue: TissueMap = None,
    brain_mask: BrainMask = None,
    count: Count = None,
    load_ml: LoadMl = None,
    sites: Sites = SITES,
    seed: opt.LesionSeed = 0,
    paint: Paint = False,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Draw white-matter lesions like those of multiple sclerosis into a healthy scan: a case with a known truth."""
    arguments: list[str] = context.obj
    with Talk(arguments, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.lesions.files import simulate_files

        done = simulate_files(
            scan, out, tissue=tissue, brain_mask=brain_mask, count=count, load_ml=load_ml,
            sites=tuple(word for word in sites.split(",") if word), seed=seed, paint=paint, overwrite=overwrite,
            on_step=talk.step, command=["neuromend", *arguments],
        )  # fmt: skip
        talk.end_progress()
        talk.show_findings(done.findings)
        talk.result(f"{len(done.lesions.placed)} lesions, {done.lesions.volume_ml:.2f} ml")
        for role, path in done.outputs.items():
            talk.result(f"{role}: {path}")
        files = {role: str(path) for role, path in done.outputs.items()}
        talk.result_json(
            {
                "outputs": files,
                "lesions": len(done.lesions.placed),
                "volume_ml": round(done.lesions.volume_ml, 5),
            }
        )
