"""The options of the command line: each declared once, with its unit and default in the help text.

A usage error found here ends a command before anything is loaded. Names of neuroLIT's options and spellings
with underscores are accepted everywhere and shown nowhere (:func:`canonical_name`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from neuromend.errors import UsageError

#: What :data:`neuromend.models.DEFAULT_MODEL` says; repeated, because importing it would slow ``--help`` down.
DEFAULT_MODEL = "fastwavelet3d-default"

_INPUT, _MASK, _MODEL, _OUTPUT, _TALK = "Input", "Mask", "Model", "Output", "Terminal"

#: Other names of our options, most of them neuroLIT's; its --dilate is refused by :func:`refuse_voxels`.
ALIASES = {
    "output": "out",
    "input-image": "image",
    "t1": "image",
    "lesion-mask": "mask",
    "mask-image": "mask",
    "out-dir": "out",
    "output-directory": "out",
    "sd": "out",
}


def canonical_name(name: str) -> str:
    """``lesion_mask`` -> ``mask``; ``dilate_mm`` -> ``dilate-mm``; any other name unchanged."""
    name = name.replace("_", "-")
    return ALIASES.get(name, name)


def parse_labels(text: str | None) -> list[int] | Literal["all"] | None:
    """``"1,2,3"`` -> ``[1, 2, 3]``, ``"all"`` -> ``"all"``.

    Raises:
        UsageError: UX-12, anything else.
    """
    if text is None:
        return None
    if text == "all":
        return "all"
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            "UX-12",
            f"--labels is '{text}', expected whole numbers with commas between them, or all",
            why="they choose which labels of the mask are lesion",
            fix="--labels 1,2,3",
        ) from None


def refuse_voxels(dilate: int) -> None:
    """Refuse neuroLIT's ``--dilate``.

    Raises:
        UsageError: UX-11, with the option to use instead.
    """
    if dilate:
        raise UsageError(
            "UX-11",
            f"--dilate {dilate} counts voxels (as in neuroLIT); here dilation is in millimetres",
            why="the same number of voxels is another distance in every scan",
            fix=f"--dilate-mm {dilate}  (in a scan with 1 mm voxels, {dilate} voxels are {dilate} mm)",
        )


def _path(text: str) -> Path:
    # An empty name is an unset variable of a shell script; Path("") would mean the working directory.
    if not text:
        raise typer.BadParameter("the name is empty (an unset variable?)")
    return Path(text)


def _flag(panel: str, text: str, *names: str) -> Any:
    return typer.Option(
        *names, rich_help_panel=panel, metavar=" ", show_default=False, help=f"{text} (Default: off.)"
    )


def _option(panel: str, names: str, metavar: str, text: str, **more: Any) -> Any:
    """An option; ``default`` words a default that is not a value of its own."""
    default = more.pop("default", None)
    if default is not None:
        more["show_default"] = False
        text = f"{text} (Default: {default}.)"
    return typer.Option(*names.split(), metavar=metavar, rich_help_panel=panel, help=text, **more)


def _path_option(panel: str, names: str, metavar: str, text: str, **more: Any) -> Any:
    return _option(panel, names, metavar, text, parser=_path, **more)


Image = Annotated[
    Path, _path_option(_INPUT, "--image -i", "T1", "The scan: .nii, .nii.gz, .hdr/.img, .mgz or .mgh.")
]
Mask = Annotated[
    Path,
    _path_option(
        _INPUT,
        "--mask -m",
        "MASK",
        "The INPUT lesion mask: 1 where tissue is to be invented. Never an output, as -m is in some tools.",
    ),
]
Volume = Annotated[
    int | None,
    _option(
        _INPUT, "--volume", "N", "Which volume of a 4-D file to use, from 0.", default="4-D files are refused"
    ),
]
AssumeOrientation = Annotated[
    str | None,
    _option(
        _INPUT,
        "--assume-orientation",
        "CODE",
        "Where the axes point to, such as RAS, in a file that does not tell.",
        default="what the header says",
    ),
]
Modality = Annotated[
    str | None,
    _option(_INPUT, "--modality", "NAME", "The contrast, such as T1w.", default="from the file name"),
]
MaxVoxels = Annotated[
    int, _option(_INPUT, "--max-voxels", "N", "Refuse files with more voxels (512 x 512 x 512).", min=1)
]
ForcePair = Annotated[
    bool, _flag(_INPUT, "Accept a mask whose name says another sub- or ses- than the scan's.", "--force-pair")
]

Labels = Annotated[
    str | None,
    _option(
        _MASK,
        "--labels",
        "1,2,..|all",
        "Which labels of a label map are lesion.",
        default="label maps are refused",
    ),
]
Threshold = Annotated[
    float | None,
    _option(
        _MASK,
        "--threshold",
        "X",
        "Lesion is what is at or above X, in the mask's own units; 0.5 suits probabilities.",
        default="graded masks are refused",
    ),
]
ResampleMask = Annotated[
    bool,
    _flag(_MASK, "Bring a mask of another grid onto the scan's by nearest neighbour.", "--resample-mask"),
]
InvertMask = Annotated[bool, _flag(_MASK, "The mask is 0 in the lesion and 1 elsewhere.", "--invert-mask")]
AllowEmpty = Annotated[
    bool, _flag(_MASK, "An empty mask copies the scan instead of being refused.", "--allow-empty")
]
DilateMm = Annotated[
    float, _option(_MASK, "--dilate-mm", "MM", "Grow the mask by this distance in millimetres.")
]
MinSizeMl = Annotated[
    float,
    _option(
        _MASK,
        "--min-size-ml",
        "ML",
        "Leave out separate pieces of the mask smaller than this, in millilitres; how many is told.",
    ),
]
DilateVoxels = Annotated[int, typer.Option("--dilate", hidden=True)]

Model = Annotated[
    str, _option(_MODEL, "--model", "NAME", "A name that `neuromend models list` shows, or a model folder.")
]
Samples = Annotated[
    int,
    _option(
        _MODEL,
        "--samples",
        "N",
        "0: the expected fill (lowest error). N: the mean of N random samples, the samples, and from 2 on "
        "their voxel-wise standard deviation in the scan's units.",
    ),
]
Steps = Annotated[
    int | None,
    _option(_MODEL, "--steps", "N", "Denoising steps of each sample.", default="what the model was made for"),
]
Seed = Annotated[
    int,
    _option(_MODEL, "--seed", "N", "Seed of the samples; sample 3 is the same whether 3 or 30 are drawn."),
]
LesionSeed = Annotated[
    int, _option(_MODEL, "--seed", "N", "Another seed draws other lesions; the same seed, the same ones.")
]
Device = Annotated[
    str,
    _option(
        _MODEL,
        "--device",
        "DEVICE",
        "auto, cpu, cuda, cuda:N or mps; auto is the first CUDA GPU that works, else the CPU.",
    ),
]
Threads = Annotated[
    int | None,
    _option(_MODEL, "--threads", "N", "CPU threads.", default="every core that this process may use"),
]
NoFallback = Annotated[
    bool, _flag(_MODEL, "Stop when the GPU runs out of memory instead of using the CPU.", "--no-fallback")
]

Out = Annotated[
    Path,
    _path_option(
        _OUTPUT,
        "--out -o",
        "OUT",
        "The filled file (.nii, .nii.gz, .mgz); the other files stand beside it. Or a folder, made if "
        "needed; then the file is named after the scan, with _inpainted.",
    ),
]
Overwrite = Annotated[
    bool, _flag(_OUTPUT, "Replace outputs that are there, which are else refused.", "--overwrite")
]
SkipExisting = Annotated[
    bool,
    _flag(_OUTPUT, "Keep an output that is whole and from the same inputs and settings.", "--skip-existing"),
]
DryRun = Annotated[bool, _flag(_OUTPUT, "Check everything, load no model, write nothing.", "--dry-run")]

DemoImage = Annotated[
    Path | None,
    _path_option(
        _INPUT,
        "--image -i",
        "T1",
        "A healthy scan to plant the lesion in.",
        default="the MNI152 template that nilearn carries",
    ),
]
DemoOut = Annotated[
    Path,
    _path_option(_OUTPUT, "--out -o", "FOLDER", "Where to write; files of an earlier demo are replaced."),
]
LesionMl = Annotated[
    float, _option(_INPUT, "--lesion-ml", "ML", "Volume of the lesion in millilitres.", min=0.01)
]
Record = Annotated[
    Path | None,
    typer.Argument(
        metavar="RECORD",
        parser=_path,
        show_default=False,
        help="The .json beside a filled scan; adds a methods paragraph with its settings. (Default: none.)",
    ),
]
SyntheticRun = Annotated[
    bool,
    typer.Option("--run/--no-run", help="Also fill a small synthetic head from end to end (about 10 s)."),
]

AsJson = Annotated[bool, _flag(_TALK, "Print one JSON object on stdout.", "--json")]
Quiet = Annotated[bool, _flag(_TALK, "Only warnings and errors.", "--quiet", "-q")]
Verbose = Annotated[bool, _flag(_TALK, "Also the checks that passed.", "--verbose", "-v")]
NoColor = Annotated[bool, _flag(_TALK, "No colours; the variable NO_COLOR does the same.", "--no-color")]
Log = Annotated[
    Path | None,
    _path_option(
        _TALK, "--log", "FILE", "Append all that is said, with times, to this file.", default="none"
    ),
]
Debug = Annotated[bool, _flag(_TALK, "Show tracebacks, and the warnings of libraries.", "--debug")]
