"""How to cite: a bibliography entry, and a methods paragraph with the settings of a real run."""

from __future__ import annotations

from importlib.metadata import version

from neuromend.provenance import Sidecar


def bibtex() -> str:
    """A BibTeX entry for the installed version of the software."""
    release = version("neuromend")
    return (
        f"@software{{neuromend,\n"
        f"  title   = {{neuromend: filling brain lesions with plausible healthy tissue}},\n"
        f"  author  = {{{{The neuromend developers}}}},\n"
        f"  version = {{{release}}},\n"
        f"  license = {{Apache-2.0}}\n"
        f"}}\n"
    )


def methods_paragraph(sidecar: Sidecar) -> str:
    """One paragraph for the methods section of a paper, every number taken from the run's own record."""
    run, mask, result = sidecar.run, sidecar.mask, sidecar.result
    release = run.neuromend if run.commit is None else f"{run.neuromend} (commit {run.commit[:12]})"
    packages = ", ".join(f"{name} {found}" for name, found in run.packages.items())
    sentences = [
        f"The lesion was filled with neuromend {release}, {_model_words(sidecar)}.",
        f"The mask that was filled held {mask.used_voxels:,} voxels ({mask.used_volume_ml:.2f} ml).",
        f"Only voxels inside it were replaced: the {result.outside_identical_voxels:,} voxels outside were "
        "verified to be bit-identical to the input after writing.",
    ]
    if result.clipped_voxels:
        words = "filled voxel(s) were clipped to the range of the file's data type"
        sentences.append(f"{result.clipped_voxels:,} {words}.")
    sentences += [
        f"It ran on {run.device} with Python {run.python} and {packages}.",
        "The filled tissue is synthetic: values inside the mask are not measurements.",
    ]
    return " ".join(sentences)


def _model_words(sidecar: Sidecar) -> str:
    model, settings = sidecar.model, sidecar.settings
    if model.weights_sha256 is None:
        return f"classical fill '{model.name}' (no trained weights)"
    sampler = settings.options.get("sampler")
    method = f"method {model.method}, sampler {sampler}" if sampler else f"method {model.method}"
    words = f"model '{model.name}' ({method}, weights SHA-256 {model.weights_sha256[:16]}...)"
    steps = f"{settings.steps} step" if settings.steps == 1 else f"{settings.steps} steps"
    if settings.samples == 0 and settings.options.get("expected_fill", True):
        return f"{words}, as the expected fill in {steps}"
    if settings.samples < 2:
        return f"{words}, as one sample in {steps} with seed {settings.seed}"
    return f"{words}, as the mean of {settings.samples} samples in {steps} each with seed {settings.seed}"
