"""Which files a fill will write, and whether it may: settled before anything is read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib

from neuromend.data.outputs import check_output
from neuromend.data.splice import check_suffix, halves_of
from neuromend.data.volume import Volume
from neuromend.errors import OutputError
from neuromend.findings import Finding

SUFFIXES = (".nii.gz", ".img.gz", ".hdr.gz", ".nii", ".img", ".hdr", ".mgz", ".mgh")

PAPERS = ("picture", "report", "record")
"""The roles of the files that are no images."""

PAPERS_BYTES = 6_000_000
"""Room for them in the estimate of disk space."""

HEADER_HALF = "-header"
"""Ending of the role of the header half of a pair; the role without it is the half with the voxels."""


_DERIVATIVE = re.compile(
    r"(sub-[a-zA-Z0-9+]+(?:_[a-zA-Z]+-[a-zA-Z0-9+]+)*)_desc-([a-zA-Z0-9+]+)_([a-zA-Z0-9]+)"
)


def split_suffix(name: str) -> tuple[str, str]:
    """``sub-01_T1w.nii.gz`` -> (``sub-01_T1w``, ``.nii.gz``); an unknown ending stays in the stem."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def files_behind(source: Any) -> list[Path]:
    """The files that a path (both halves of a pair) or a nibabel image reads from; none for one in memory."""
    if not isinstance(source, str | os.PathLike):
        holders = getattr(source, "file_map", {}).values()
        return [Path(holder.filename) for holder in holders if holder.filename is not None]
    path = Path(source)
    stem, suffix = split_suffix(path.name)
    if suffix.lower() not in (".hdr", ".img", ".hdr.gz", ".img.gz"):
        return [path]
    others = [path.with_name(stem + other) for other in (".hdr", ".img", ".hdr.gz", ".img.gz")]
    return [path, *(other for other in others if os.path.exists(other))]


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Which files will be written, by role; empty if nothing is to be written.

    The roles, in order: "filled", "mask", "uncertainty", "sample-01" ..., "picture", "report", "record". A
    scan that is a pair has its header halves too: "filled-header", "sample-01-header" ...
    """

    files: dict[str, Path]

    @classmethod
    def of(cls, out: str | Path | None, image: object, *, samples: int) -> OutputPlan:
        """Name the files.

        Args:
            out: the filled file, or a folder (an existing one, or a name without the suffix of an image). A file
                named as a BIDS derivative within its subject's folder
                (``sub-01/anat/sub-01_desc-inpainted_T1w.nii.gz``) gives the other files such names too.
            image: the scan as given; its name is used if ``out`` is a folder.
            samples: number of samples that will be drawn.
        """
        if out is None:
            return cls({})
        target = Path(out).expanduser()
        stem, suffix = split_suffix(target.name)
        if not suffix or target.is_dir():
            stem, suffix = split_suffix(_name_of(image))
            stem, suffix = f"{stem}_inpainted", suffix or ".nii.gz"
            target = target / f"{stem}{suffix}"
        target = target.absolute()
        derivative = _DERIVATIVE.fullmatch(stem)
        if derivative is not None and _subject_folder(target) is not None:
            return cls(_bids_files(target, suffix, *derivative.groups(), samples=samples))
        other = ".mgz" if suffix.lower() in (".mgz", ".mgh") else ".nii.gz"
        files = _scan_files("filled", target)
        files["mask"] = target.with_name(f"{stem}_mask{other}")
        if samples > 1:
            files["uncertainty"] = target.with_name(f"{stem}_uncertainty{other}")
        for number in range(1, samples + 1):
            role = f"sample-{number:02d}"
            files |= _scan_files(role, target.with_name(f"{stem}_{role}{suffix}"))
        files["picture"] = target.with_name(f"{stem}.png")
        files["report"] = target.with_name(f"{stem}_report.html")
        files["record"] = target.with_name(f"{stem}.json")
        return cls(files)

    def recorded_name(self, role: str) -> str:
        """The path of a file relative to the folder of the sidecar, as the sidecar names it: a bare name, or
        ``../figures/NAME`` in a BIDS dataset."""
        folder = self.files["record"].parent
        return Path(os.path.relpath(self.files[role], folder)).as_posix()

    @property
    def images(self) -> dict[str, Path]:
        """The files that hold voxels, by role."""
        return {
            role: path
            for role, path in self.files.items()
            if role not in PAPERS and not role.endswith(HEADER_HALF)
        }

    def check(self, inputs: Sequence[Path], *, overwrite: bool, create: bool) -> list[Finding]:
        """Refuse names that cannot be written, before anything is read (RT-01, RT-02, RT-04, RT-19).

        Args:
            inputs: files that are only read.
            overwrite: whether existing files may be replaced.
            create: make the folder if it is missing.
        """
        findings: dict[str, Finding] = {}
        for path in self.files.values():
            if path.is_dir():
                raise OutputError(
                    "RT-04",
                    "the output exists and is a folder",
                    why="A file of this name belongs to the result.",
                    fix="Choose another name for the output, or move the folder away.",
                    path=path,
                )
            if not create and not path.parent.exists():
                continue
            for finding in check_output(path, inputs, overwrite=overwrite, needed_bytes=0):
                findings.setdefault(finding.message, finding)
        return list(findings.values())

    def check_format(self, scan: Volume) -> None:
        """Refuse a name of another format than the scan's (IN-34)."""
        if self.files:
            check_suffix(scan, self.files["filled"])

    def check_room(self, scan: Volume) -> list[Finding]:
        """Refuse a disk that is too full (RT-03); the folder is there."""
        if not self.files:
            return []
        needed = len(self.images) * scan.raw.size + PAPERS_BYTES
        return list(check_output(self.files["filled"].parent, [], overwrite=True, needed_bytes=needed))


def _name_of(image: Any) -> str:
    """A file name for the scan; an image in memory is called after the file it was loaded from, if any."""
    if isinstance(image, str | os.PathLike):
        return Path(image).name
    loaded = files_behind(image)
    stem = split_suffix(loaded[0].name)[0] if loaded else "scan"
    return stem + (".mgz" if isinstance(image, nib.MGHImage) else ".nii.gz")


def _scan_files(role: str, path: Path) -> dict[str, Path]:
    """The files of a filled scan by role: one, or the voxels and the header of a pair."""
    halves = halves_of(path)
    if halves is None:
        return {role: path}
    header, voxels = halves
    return {role: voxels, role + HEADER_HALF: header}


def _subject_folder(target: Path) -> Path | None:
    """The folder ``sub-X`` that holds ``anat/sub-X_...`` or ``ses-Y/anat/sub-X_...``; None elsewhere."""
    subject = target.name.partition("_")[0]
    return next((folder for folder in list(target.parents)[1:3] if folder.name == subject), None)


def _bids_files(
    target: Path, suffix: str, stem: str, desc: str, kind: str, *, samples: int
) -> dict[str, Path]:
    """Files by role as BIDS names derivatives; what BIDS has no name for goes to the subject's ``figures``.

    Args:
        target: the filled scan.
        suffix: of its name, ``.nii.gz``.
        stem, desc, kind: the parts of its name: ``sub-01_run-1``, ``inpainted``, ``T1w``.
        samples: number of samples.
    """
    files = {"filled": target, "mask": target.with_name(f"{stem}_label-lesion_desc-{desc}_mask.nii.gz")}
    if samples > 1:
        files["uncertainty"] = target.with_name(f"{stem}_desc-{desc}Uncertainty_{kind}.nii.gz")
    for number in range(1, samples + 1):
        files[f"sample-{number:02d}"] = target.with_name(
            f"{stem}_desc-{desc}Sample{number:02d}_{kind}{suffix}"
        )
    figures = (_subject_folder(target) or target.parent) / "figures"
    files["picture"] = figures / f"{stem}_desc-{desc}_{kind}.png"
    files["report"] = figures / f"{stem}_desc-{desc}_{kind}.html"
    files["record"] = target.with_name(f"{stem}_desc-{desc}_{kind}.json")
    return files
