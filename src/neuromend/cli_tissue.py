"""``neuromend tissue SCAN`` and ``neuromend tissue compare A B``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from neuromend import cli_options as opt
from neuromend.terminal import Talk

_INPUT, _OUTPUT = "Input", "Output"


class _ScanOrCommand(typer.core.TyperGroup):
    """``tissue SCAN`` means ``tissue segment SCAN``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["segment", *args]
        return super().parse_args(ctx, args)


class Tool(StrEnum):
    """What labels the tissues."""

    hmrf = "hmrf"
    fast = "fast"


app = typer.Typer(
    cls=_ScanOrCommand,
    help="Label fluid, grey and white matter of a T1-weighted scan; compare such labels.",
)

Scan = Annotated[
    Path, typer.Argument(parser=opt._path, metavar="SCAN", show_default=False, help="The T1-weighted scan.")
]
Reference = Annotated[
    Path,
    typer.Argument(
        parser=opt._path, metavar="A", show_default=False, help="The reference: a scan, or its label map."
    ),
]
Others = Annotated[
    list[Path],
    typer.Argument(
        parser=opt._path,
        metavar="B...",
        show_default=False,
        help="What is compared with it; several are samples of one fill, and give error bars.",
    ),
]
BrainMask = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--brain-mask",
        "MASK",
        "The brain, for a scan of a whole head.",
        default="what is not 0, in a skull-stripped scan",
    ),
]
ToolOption = Annotated[
    Tool, opt._option(_INPUT, "--tool", "NAME", "hmrf (dipy's Markov random field), or FSL's fast.")
]
LesionMask = Annotated[
    Path | None,
    opt._path_option(
        _INPUT, "--mask -m", "LESIONS", "Also compare inside these lesions and around them.", default="none"
    ),
]
RingMm = Annotated[float, opt._option(_INPUT, "--ring-mm", "MM", "How far around.", min=0.1)]
TissueOut = Annotated[
    Path,
    opt._path_option(
        _OUTPUT,
        "--out -o",
        "OUT",
        "The label map (.nii, .nii.gz, .mgz), with a .tsv of volumes and a .json beside it; or a folder.",
    ),
]


@app.command("segment")
def segment_command(
    context: typer.Context,
    scan: Scan,
    out: TissueOut,
    brain_mask: BrainMask = None,
    tool: ToolOption = Tool.hmrf,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Label every voxel of the brain: 1 fluid, 2 grey matter, 3 white matter; volumes in ml."""
    arguments: list[str] = context.obj
    with Talk(arguments, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.tissue.files import segment_file

        done = segment_file(
            scan, out, brain_mask=brain_mask, tool=tool.value, overwrite=overwrite, on_step=talk.step,
            command=["neuromend", *arguments],
        )  # fmt: skip
        talk.end_progress()
        talk.show_findings(done.findings)
        for name, ml in done.volumes.items():
            talk.result(f"{name}: {ml:.1f} ml")
        for role, path in done.outputs.items():
            talk.result(f"{role}: {path}")
        files = {role: str(path) for role, path in done.outputs.items()}
        talk.result_json({"outputs": files, "volumes_ml": done.volumes})


@app.command("compare")
def compare_command(
    context: typer.Context,
    reference: Reference,
    others: Others,
    mask: LesionMask = None,
    ring_mm: RingMm = 5.0,
    brain_mask: BrainMask = None,
    tool: ToolOption = Tool.hmrf,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Dice and volume error per tissue, everywhere and near the lesions; scans are segmented first."""
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.tissue.files import compare_files

        found = compare_files(
            reference, others, lesions=mask, ring_mm=ring_mm, brain_mask=brain_mask, tool=tool.value,
            on_step=talk.step,
        )  # fmt: skip
        talk.end_progress()
        talk.result(f"{'region':8} {'tissue':7} {'Dice':>16} {'volume error ml':>20}")
        for region, tissues in found["regions"].items():
            for tissue, scores in tissues.items():
                cells = f"{_cell(scores['dice'], 4):>16} {_cell(scores['error_ml'], 3):>20}"
                talk.result(f"{region:8} {tissue:7} {cells}")
        talk.result_json(found)


def _cell(score: dict[str, float | None], digits: int) -> str:
    """``0.9123 ± 0.0012``, without what is not known."""
    mean, sd = score["mean"], score["sd"]
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" if sd is None else f"{mean:.{digits}f} ± {sd:.{digits}f}"
