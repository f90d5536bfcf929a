"""``neuromend healthy-masks``: masks of healthy tissue to train and to measure on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from neuromend import cli_options as opt
from neuromend.errors import UsageError
from neuromend.terminal import Talk

_INPUT, _MASKS, _OUTPUT = "Input", "Masks", "Output"

Cases = Annotated[
    Path | None,
    opt._path_option(
        _INPUT,
        "--cases",
        "DIR",
        "A BraTS folder: a folder a case, each with ID-t1n and ID-seg (or ID-mask-unhealthy).",
        default="one scan, --image",
    ),
]
Scan = Annotated[
    Path | None, opt._path_option(_INPUT, "--image -i", "T1", "One scan.", default="a folder, --cases")
]
Lesion = Annotated[
    Path | None,
    opt._path_option(
        _INPUT, "--lesion", "MASK", "Its lesion mask or segmentation; every label counts.", default="healthy"
    ),
]
Shapes = Annotated[
    list[Path] | None,
    opt._path_option(
        _MASKS,
        "--shapes",
        "DIR",
        "Lesion masks in MNI space to take shapes from, such as stroke or MS; may be given several times.",
        default="the lesions of the other cases; blobs for one scan",
    ),
]
Match = Annotated[
    Literal["inverse", "random"],
    opt._option(
        _MASKS,
        "--matching",
        "HOW",
        "inverse: a small lesion gets a large mask, as the challenge's paper intends. random: any size, as in its"
        " released code.",
    ),
]
Seed = Annotated[
    int,
    opt._option(_MASKS, "--seed", "N", "Another seed gives other masks; a case's does not depend on others."),
]
Out = Annotated[
    Path, opt._path_option(_OUTPUT, "--out -o", "DIR", "Where the masks and healthy-masks.html go.")
]


def healthy_masks(
    context: typer.Context,
    out: Out,
    cases: Cases = None,
    image: Scan = None,
    lesion: Lesion = None,
    shapes: Shapes = None,
    matching: Match = "inverse",
    seed: Seed = 0,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Draw masks of healthy tissue beside lesions, and a page to look them over.

    For training and measuring on brains that have a lesion: the tissue under such a mask is known.
    """
    if (cases is None) == (image is None) or (lesion is not None and image is None):
        raise UsageError(
            "UX-16",
            "expected --cases, or --image with --lesion if there is one",
            why="healthy masks are drawn for one scan, or for all cases of a folder",
            fix="neuromend healthy-masks --image T1.nii.gz --lesion lesion.nii.gz --out masks",
        )
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("starting", 0, 1)
        from neuromend.mask_making import PAGE, brats_cases, make_masks, single_case

        found = brats_cases(cases, out) if cases is not None else []
        found = single_case(image, lesion, out) if image is not None else found
        made, findings = make_masks(
            found,
            out,
            shapes=shapes or (),
            matching=matching,
            seed=seed,
            overwrite=overwrite,
            on_case=talk.step,
        )
        talk.end_progress()
        talk.show_findings(findings)
        for mask in made:
            talk.result(f"mask: {mask.path} ({mask.facts()})")
        talk.result(f"page: {out / PAGE}")
        talk.result_json({"masks": [mask.as_json() for mask in made], "page": str(out / PAGE)})
