"""Every published file form at published size: imported by the command, compared bit for bit, timed.

`make bench-import`, or `python benchmarks/bench_import.py --help`. For each form a file of the authors' layout is made
of random numbers, with the names and shapes on record in ../shared/parity (for fastwdm3d, of which nothing is on
record, with ours). `neuromend import-weights` turns it into a model folder; that is loaded as a fill loads it, and
every tensor is compared with the numbers it was made of. For the models of `FILLS` a small synthetic head is filled
with it in two steps.

Each step is a process of its own: seconds and peak memory are those of the command alone. A tensor that differs ends
the run; times are only shown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARITY = Path(__file__).resolve().parents[1].parent / "shared" / "parity"
FILLS = ("slice2d", "wavelet3d")
UNUSED = ("image_discriminator.", "perceptual_model.", "video_discriminator.")

Shapes = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype by published name."""


@dataclass(frozen=True)
class Form:
    """A kind of published file.

    Attributes:
        method: of neuromend. file: its name as the authors' code writes it. kind: how it is laid out.
        options: of import-weights. folder: of ../shared/parity; None where there is no record.
        part: of the record.
    """

    method: str
    file: str
    kind: str = "raw"
    options: tuple[str, ...] = ()
    folder: str | None = None
    part: str | None = None


FORMS = (
    Form("slice2d", "savedmodel325000.pt", folder="DDPM_2D_slice_wise"),
    Form("slice2d", "emasavedmodel_0.9999_325000.pt", folder="DDPM_2D_slice_wise"),
    Form("sequential2d", "savedmodel325000.pt", folder="DDPM_2D_seq_pos"),
    Form("sequential2d", "emasavedmodel_0.9999_325000.pt", folder="DDPM_2D_seq_pos"),
    Form("pseudo3d", "savedmodel325000.pt", folder="DDPM_Pseudo3D"),
    Form("pseudo3d", "emasavedmodel_0.9999_325000.pt", folder="DDPM_Pseudo3D"),
    Form("full3d", "bratsimage325000.pt", folder="DDPM_3D_mem_eff"),
    Form("wavelet3d", "brats3dimage325000.pt", folder="WDM_3D"),
    Form(
        "wavelet3d", "brats3dimage325000.pt", "raw", ("--preset", "paper-wavelet-unet"),
        "WDM_3D", "alternative_WavUNetModel_ours_wnet_256",
    ),
    Form("latent3d", "model-325.pt", "ema", folder="LDM_3D", part="denoiser"),
    Form("latent3d", "model-vqgan.ckpt", "lightning", ("--stage", "autoencoder"), "LDM_3D", "autoencoder"),
    Form("latent3d", "model-325.pt", "two files", (), "LDM_3D", "denoiser"),
    Form("fastwdm3d", "brats3dimage120000.pt"),
    Form("fastwdm3d", "netG_120.pth", "parallel"),
)  # fmt: skip


def published(form: Form) -> Shapes:
    """What the authors' file of this form holds."""
    if form.folder is None:
        import torch

        from neuromend.methods import METHODS

        build: Any = METHODS[form.method]
        with torch.device("meta"):
            state = build(build.PRESETS["paper"]).state_dict()
        return {key.removeprefix("network."): (tuple(v.shape), "float32") for key, v in state.items()}
    facts = json.loads((PARITY / form.folder / "published_parameters.json").read_text())
    own = {e["key"]: (tuple(e["shape"]), e["dtype"]) for e in facts.get(form.part, facts)["state_dict"]}
    if form.part == "denoiser":
        coder = published(Form("latent3d", "", folder="LDM_3D", part="autoencoder"))
        own |= {f"vqgan.{key}": value for key, value in coder.items()}
    return own


def spoken(form: Form, name: str) -> str:
    """The name; of two names for the same weights, as the wavelet U-Net has on the way up, the first."""
    found = re.match(r"output_blocks\.(\d+)\.0\.", name)
    if found is None or int(found[1]) % 3 != 2 or "paper-wavelet-unet" not in form.options:
        return name
    return f"output_blocks.{int(found[1]) - 1}.0.{name[found.end() :]}"


def numbers(name: str, shape: tuple[int, ...], dtype: str, salt: str) -> Any:
    """The random tensor of a name, the same in each process."""
    import torch

    if dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{salt}{name}".encode()))
    return torch.randn(shape, generator=generator) / 50


def tensors(form: Form, shapes: Shapes, salt: str) -> dict[str, Any]:
    """All of them."""
    return {name: numbers(spoken(form, name), *facts, salt) for name, facts in shapes.items()}


def write(form: Form, folder: Path) -> None:
    """The file or the two files of the authors."""
    import torch

    shapes = published(form)
    kept = tensors(form, shapes, "kept")
    content: dict[str, Any] = kept
    if form.kind == "parallel":
        content = {f"module.{name}": value for name, value in kept.items()}
    elif form.kind == "lightning":
        moments = [
            {"exp_avg": value, "exp_avg_sq": value} for value in tensors(form, shapes, "other").values()
        ]
        content = {
            "epoch": 9,
            "state_dict": kept,
            "optimizer_states": [{"state": dict(enumerate(moments)), "param_groups": []}],
            "hyper_parameters": argparse.Namespace(lr=3e-4),
        }
    elif form.kind == "ema":
        content = {"step": 325000, "model": tensors(form, shapes, "other"), "ema": kept, "scaler": {}}
    elif form.kind == "two files":
        coder = {name[len("vqgan.") :]: v for name, v in kept.items() if name.startswith("vqgan.")}
        torch.save({"epoch": 9, "state_dict": coder}, folder / "model-vqgan.ckpt")
        content = {"ema": {name: v for name, v in kept.items() if not name.startswith("vqgan.")}}
    torch.save(content, folder / form.file)


def verify(form: Form, folder: Path) -> None:
    """Load the model as a fill does, and compare every tensor with the numbers that it was made of."""
    import torch

    from neuromend.checkpoint import load_manifest, load_weights
    from neuromend.models import load_method, resolve_model

    if form.kind == "lightning":
        found = load_weights(folder / "model", load_manifest(folder / "model"))
    else:
        found = load_method(resolve_model(folder / "model"), torch.device("cpu")).state_dict()
    ours = {key.removeprefix("network."): value for key, value in found.items()}
    made_by_us = [key for key in ours if key.endswith("codebook.initialised")]
    for name in made_by_us:
        assert bool(ours.pop(name)), name
    shapes = published(form)
    schedule = form.part == "denoiser"
    wanted = {
        name
        for name in shapes
        if not name.removeprefix("vqgan.").startswith(UNUSED)
        and (not schedule or name.startswith(("vqgan.", "denoise_fn.")))
    }
    assert ours.keys() == wanted, sorted(ours.keys() ^ wanted)[:9]
    for name, value in ours.items():
        assert torch.equal(value, numbers(spoken(form, name), *shapes[name], "kept")), name
    print(f"{len(ours)}\t{sum(value.numel() for value in ours.values())}", end="")


def head(folder: Path) -> None:
    """A synthetic head with voxels of 4 mm, and a lesion in it."""
    import nibabel as nib
    import numpy as np

    from neuromend.doctor import synthetic_head

    for image, name in zip(synthetic_head(), ("T1.nii.gz", "lesion.nii.gz"), strict=True):
        small = np.asarray(image.dataobj)[::2, ::2, ::2]
        coarse = nib.Nifti1Image(small, image.affine @ np.diag([2, 2, 2, 1]))  # type: ignore[no-untyped-call]
        nib.save(coarse, folder / name)


def same_outside(folder: Path) -> None:
    """The fill equals the scan outside the lesion, and differs inside."""
    import nibabel as nib
    import numpy as np

    images: list[Any] = [nib.load(folder / f"{name}.nii.gz") for name in ("T1", "lesion", "filled")]
    scan, mask, filled = (np.asarray(image.dataobj) for image in images)
    assert np.array_equal(scan[mask == 0], filled[mask == 0])
    assert not np.array_equal(scan[mask != 0], filled[mask != 0])


def alone(words: Iterable[str | Path], **more: Any) -> tuple[float, float, str]:
    """Run a command; CPU seconds, peak memory in GB and what it printed. Ends the run where it fails."""
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True, **more)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with {process.returncode}: {said}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9, said


def rows(forms: Iterable[Form], scratch: Path) -> Iterator[str]:
    """One line for each step of each form."""
    command = (sys.executable, "-m", "neuromend")
    for form in forms:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        ours = (sys.executable, __file__, "--form", FORMS.index(form), "--scratch", folder)
        alone([*map(str, ours), "--step", "write"])
        more = ("--autoencoder", folder / "model-vqgan.ckpt") if form.kind == "two files" else ()
        given = ("--method", form.method, folder / form.file, *form.options, *more)
        seconds, memory, _ = alone([*command, "import-weights", *given, "--out", folder / "model"])
        _, _, compared = alone([*map(str, ours), "--step", "verify"])
        size = sum(path.stat().st_size for path in folder.glob("*.[pc]*t*")) / 1e6
        what = " ".join((form.kind, *form.options))
        yield f"{form.method}\t{form.file}\t{what}\t{size:.0f}\t{compared}\t{seconds:.1f}\t{memory:.2f}"
        if form.method in FILLS and not form.options and not form.file.startswith("ema"):
            alone([*map(str, ours), "--step", "head"])
            names = (
                "-i",
                folder / "T1.nii.gz",
                "-m",
                folder / "lesion.nii.gz",
                "-o",
                folder / "filled.nii.gz",
            )
            seconds, memory, _ = alone(
                [*command, "fill", *names, "--model", folder / "model", "--steps", "2", "--quiet"]
            )
            alone([*map(str, ours), "--step", "same_outside"])
            yield f"{form.method}\tfill, 2 steps\t\t\t\t\t{seconds:.1f}\t{memory:.2f}"
        shutil.rmtree(folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=sorted({form.method for form in FORMS}))
    parser.add_argument("--scratch", type=Path, help="where files of about 1 GB may lie for a moment")
    parser.add_argument("--form", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=("write", "verify", "head", "same_outside"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step in ("head", "same_outside"):
        {"head": head, "same_outside": same_outside}[args.step](args.scratch)
    elif args.step:
        {"write": write, "verify": verify}[args.step](FORMS[args.form], args.scratch)
    else:
        print("method\tfile\tform\tfile_MB\ttensors\tnumbers\tcpu_s\tpeak_GB")
        with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
            for row in rows((form for form in FORMS if form.method in args.methods), Path(scratch)):
                print(row, flush=True)


if __name__ == "__main__":
    main()
