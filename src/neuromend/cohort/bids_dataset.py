"""The files of a derivative dataset itself: its description, README, methods text and what validators ignore."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from neuromend.cite import bibtex
from neuromend.cohort.bids_outputs import DESC, write_if_changed
from neuromend.cohort.bids_tables import dataset_facts
from neuromend.cohort.cases import Settings
from neuromend.errors import OutputError
from neuromend.provenance import version_string

BIDS_VERSION = "1.10.0"

IGNORED = ("*.html", "figures", "cohort.tsv", "failures.tsv", "group_*", ".*.neuromend-lock", ".neuromend-*")
"""What BIDS has no name for: reports, figures, tables of the run and of the group, hidden files of running fills."""

DESCRIPTIONS = {
    DESC: "The scan with its lesion mask filled by plausible healthy tissue; all other voxels are the scan's own",
    f"{DESC}Uncertainty": "Voxel-wise standard deviation over samples of the filled tissue",
}


class DatasetNames:
    """Names for the datasets that files come from, and BIDS URIs with them.

    Args:
        raw: the dataset with the scans, called ``raw``.
        others: datasets with masks, called after their folders.
        out: the derivatives, from which links are told.
    """

    def __init__(self, raw: Path, others: Sequence[Path], out: Path) -> None:
        self._names: dict[Path, str] = {raw: "raw"}
        for path in others:
            plain = re.sub(r"[^a-zA-Z0-9]", "", path.resolve().name) or "masks"
            taken = set(self._names.values())
            number = next(n for n in range(1, len(others) + 2) if f"{plain}{n if n > 1 else ''}" not in taken)
            self._names.setdefault(path, f"{plain}{number if number > 1 else ''}")
        self._out = out

    def uri(self, path: Path, dataset: Path) -> str:
        """``bids:raw:sub-01/anat/sub-01_T1w.nii.gz``."""
        return f"bids:{self._names[dataset]}:{path.relative_to(dataset).as_posix()}"

    def links(self) -> dict[str, str]:
        """Name -> where the dataset is, relative to the derivatives (no folder of a person's home need be named)."""
        return {name: self._link(path) for path, name in self._names.items()}

    def _link(self, path: Path) -> str:
        try:
            return quote(Path(os.path.relpath(path.resolve(), self._out.resolve())).as_posix())
        except ValueError:  # another drive of Windows
            return path.resolve().as_uri()


def refuse_foreign(out: Path, raw: Path) -> None:
    """Refuse a folder for derivatives that holds another dataset.

    Raises:
        OutputError: BD-06, it is the raw dataset, lies in a subject of it, or was made by another program.
    """
    fix = f"another folder, such as '{raw / 'derivatives' / 'neuromend'}'"
    inside = any(part.startswith("sub-") for part in _below(out, raw))
    if out.resolve() == raw.resolve() or inside:
        what = (
            "the folder for derivatives is the dataset itself" if not inside else "it lies within a subject"
        )
        raise OutputError("BD-06", what, why="raw data and derivatives must not mix", fix=fix, path=out)
    makers = dataset_facts(out).makers
    if (out / "dataset_description.json").exists() and "neuromend" not in makers:
        by = f"made by {', '.join(makers)}" if makers else "not made by neuromend"
        raise OutputError(
            "BD-06",
            f"this folder holds a dataset {by}",
            why="derivatives of two programs would mix",
            fix=fix,
            path=out,
        )


def write_dataset_files(out: Path, raw: Path, names: DatasetNames, settings: Settings) -> None:
    """Write what describes the dataset; equal runs write equal files, so that many may do it side by side.

    A README that is there is left alone, because people add to it.

    Raises:
        OutputError, OutputPermissionError, StorageError: a file cannot be written.
    """
    facts = dataset_facts(raw)
    links = names.links()
    source = {"URL": links["raw"]} | ({"DOI": facts.doi} if facts.doi else {})
    description = {
        "Name": f"Lesions filled with plausible healthy tissue{f': {facts.name}' if facts.name else ''}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "neuromend", "Version": version_string(), **container(os.environ)}],
        "SourceDatasets": [source],
        "DatasetLinks": links,
        "HowToAcknowledge": "See logs/CITATION.md.",
    }
    (out / "logs").mkdir(parents=True, exist_ok=True)
    rows = dict(DESCRIPTIONS)
    for number in range(1, settings.samples + 1):
        rows[f"{DESC}Sample{number:02d}"] = f"Random sample {number} of the filled scan"
    table = "desc_id\tdescription\n" + "".join(f"desc-{key}\t{words}\n" for key, words in rows.items())
    files = {
        "dataset_description.json": json.dumps(description, indent=2, ensure_ascii=False) + "\n",
        "descriptions.tsv": table,
        ".bidsignore": "".join(f"{line}\n" for line in IGNORED),
        "logs/CITATION.md": methods_text(settings),
    }
    if not (out / "README.md").exists():
        files["README.md"] = _readme(facts.name)
    for name, text in files.items():
        write_if_changed(out / name, text.encode("utf-8", "replace"))


def container(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The container that this runs in, as ``GeneratedBy`` names it; empty outside of one."""
    image = environment.get("APPTAINER_CONTAINER") or environment.get("SINGULARITY_CONTAINER")
    if image:
        # Of the image's path only the name: folders can name persons.
        return {"Container": {"Type": "apptainer", "Tag": Path(image).name}}
    if Path("/.dockerenv").exists():
        return {"Container": {"Type": "docker", "Tag": f"neuromend:{version_string()}"}}
    return {}


def methods_text(settings: Settings) -> str:
    """A paragraph for a paper with the settings of this run, and how to cite."""
    if settings.samples == 0:
        how = "as the expected fill where the model knows one"
    elif settings.samples == 1:
        how = f"as one random sample (seed {settings.seed}, with an own seed for each scan derived from it)"
    else:
        how = (
            f"as the voxel-wise mean of {settings.samples} random samples (seed {settings.seed}, with an own seed for "
            "each scan derived from it), whose standard deviation is given beside it"
        )
    dilated = f" Masks were dilated by {settings.dilate_mm:g} mm." if settings.dilate_mm else ""
    small = f" Pieces below {settings.min_size_ml:g} ml were left out." if settings.min_size_ml else ""
    return (
        "# Methods\n\n"
        "Lesions of the T1-weighted scans were filled with plausible healthy tissue by neuromend "
        f"{version_string()}, model `{settings.model}`, {how}.{dilated}{small} Only voxels inside the lesion mask "
        "were replaced; all others were verified to be bit-identical to the input after writing. The filled tissue "
        "is synthetic: values inside the mask are not measurements. The JSON file beside each filled scan names its "
        "inputs, model, settings and software versions with their hashes.\n\n"
        "# References\n\n"
        f"```bibtex\n{bibtex().rstrip()}\n```\n"
    )


def _readme(name: str) -> str:
    of = f" of {name}" if name else ""
    return (
        f"# Filled scans{of}\n\n"
        "neuromend replaced the tissue inside the lesion mask of each T1-weighted scan by plausible healthy tissue, "
        "so that tools which expect healthy anatomy can be run. The filled tissue is synthetic: not measured, not for "
        "diagnosis. All voxels outside the mask are those of the original scan, bit for bit.\n\n"
        "- `*_desc-inpainted_T1w`: the filled scan; its JSON file says how it was made.\n"
        "- `*_label-lesion_desc-inpainted_mask`: the voxels that were filled.\n"
        "- `*_desc-inpaintedUncertainty_T1w`, `*_desc-inpaintedSample01_T1w` ...: with samples, their standard "
        "deviation and the samples themselves.\n"
        "- `sub-*/figures`: a picture and a report of each fill.\n"
        "- `group_inpainted.tsv` and `index.html`: all cases, after `neuromend bids ... group`.\n"
        "- `logs/CITATION.md`: a paragraph for the methods section.\n"
    )


def _below(path: Path, folder: Path) -> Sequence[str]:
    """The parts of a path below a folder; none if it lies elsewhere."""
    try:
        return path.resolve().relative_to(folder.resolve()).parts
    except ValueError:
        return ()
