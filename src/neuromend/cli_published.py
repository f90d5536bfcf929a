"""``neuromend import-weights`` and ``neuromend parity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from neuromend import cli_options as opt
from neuromend.terminal import print_json, print_stdout

MISSED = 1
"""Exit status of ``parity`` where a number is not the published one: nothing is broken, but a claim does not hold."""


def import_weights(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The authors' file; with --from-hub its name on their page."),
    ],
    method: Annotated[
        str, opt._option("Input", "--method", "NAME", "Whose weights: slice2d, pseudo3d, full3d ...")
    ],
    out: Annotated[Path, opt._path_option("Output", "--out -o", "DIR", "The model folder to make.")],
    from_hub: Annotated[
        bool, opt._flag("Input", "Fetch FILE from the authors' page on the Hugging Face Hub.", "--from-hub")
    ] = False,
    preset: Annotated[str, opt._option("Input", "--preset", "NAME", "Size of the network.")] = "paper",
    autoencoder: Annotated[
        Path | None,
        opt._path_option(
            "Input",
            "--autoencoder",
            "FILE",
            "latent3d: the VQ-GAN's own file.",
            default="what FILE holds of it",
        ),
    ] = None,
    stage: Annotated[
        Literal["method", "autoencoder"],
        opt._option("Input", "--stage", "STAGE", "latent3d: autoencoder, if FILE is the VQ-GAN alone."),
    ] = "method",
    sampler: Annotated[
        str | None,
        opt._option(
            "Output",
            "--sampler",
            "NAME",
            "How the model samples: ddim, dpmpp, ddpm or published (1000 steps).",
            default="the method's own",
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Turn a published checkpoint into a model folder for --model; no pickle is ever run."""
    from neuromend.manifest import AUTOENCODER
    from neuromend.published import import_weights as convert
    from neuromend.published_hub import fetch_from_hub

    if from_hub:
        file = fetch_from_hub(str(file))
        autoencoder = autoencoder and fetch_from_hub(str(autoencoder))
    manifest = convert(
        method, file, out,
        preset=preset, stage=stage, autoencoder=autoencoder, sampler=sampler, overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        print_json({"folder": str(out), "manifest": manifest.model_dump(mode="json")})
        return
    print_stdout(
        f"{manifest.description}\nmodel: {out}\nlicence: {manifest.licence} (see LICENSE-WEIGHTS.md)"
    )
    if manifest.method == AUTOENCODER:
        print_stdout(f"neuromend train --method latent3d --init-from {out} ...")
    else:
        print_stdout(f"neuromend fill --model {out} ...")


def parity(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Fixtures, one folder a published method.")],
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Replay published numbers and print how far ours are from them; exit status 1 at a miss."""
    from neuromend.parity import TOLERANCE, replay

    rows = []
    if not as_json:
        print_stdout(
            f"{'method':<14}{'part':<28}{'parameters':>12}  max relative error (at most {TOLERANCE:g})"
        )
    for row in replay(folder):
        rows.append(row)
        if not as_json:
            size = "" if row.parameters is None else f"{row.parameters:,}"
            verdict = "" if row.tolerance == TOLERANCE else f"  (at most {row.tolerance:g})"
            verdict += "" if row.passed else "  MISS"
            print_stdout(f"{row.method:<14}{row.part:<28}{size:>12}  {row.error:.1e}{verdict}")
    if as_json:
        keys = ("method", "part", "parameters", "error", "tolerance", "passed")
        print_json({"rows": [{key: getattr(row, key) for key in keys} for row in rows]})
    return 0 if all(row.passed for row in rows) else MISSED
