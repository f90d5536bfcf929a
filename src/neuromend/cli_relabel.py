"""``neuromend relabel``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuromend import cli_options as opt
from neuromend.terminal import Talk, finding_json


def relabel(
    context: typer.Context,
    segmentation: Annotated[
        Path, typer.Argument(metavar="SEG", help="Segmentation made on the filled scan.")
    ],
    mask: Annotated[Path, typer.Argument(metavar="MASK", help="The lesion mask that was filled.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The segmentation to write.")],
    label: Annotated[int, typer.Option("--label", metavar="N", help="Label of the lesion's voxels.")] = 99,
    labels: opt.Labels = None,
    threshold: opt.Threshold = None,
    resample_mask: opt.ResampleMask = False,
    force_pair: opt.ForcePair = False,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Put the lesion back into a segmentation made on a filled scan; no other voxel changes."""
    chosen_labels = opt.parse_labels(labels)
    with Talk(context.obj, json_output=as_json, quiet=quiet, color=not no_color, log=log) as talk:
        talk.step("reading", 0, 1)
        from neuromend.relabel import relabel as put_back

        done = put_back(
            segmentation, mask, out, label=label, labels=chosen_labels, threshold=threshold,
            resample_mask=resample_mask, force_pair=force_pair, overwrite=overwrite,
        )  # fmt: skip
        talk.end_progress()
        talk.show_findings(done.findings)
        for path in done.outputs:
            talk.result(f"segmentation: {path}")
        for number, millilitres in done.replaced.items():
            talk.say(f"{millilitres:.3g} ml of label {number} are now label {done.label}")
        talk.result_json(
            {
                "outputs": [str(path) for path in done.outputs],
                "label": done.label,
                "volume_ml": done.volume_ml,
                "replaced_ml": {str(number): ml for number, ml in done.replaced.items()},
                "findings": [finding_json(finding) for finding in done.findings],
            }
        )
