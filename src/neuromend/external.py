"""Other programs that fill lesions, run where the user has installed them, to be compared with ours.

Each is called with the command line that its own documentation gives, in a temporary folder, on a scan whose
hole holds nothing of the truth. Only the voxels of the mask are taken from what it returns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from neuromend.errors import GeometryError, MissingInputError, ModelFaultError
from neuromend.provenance import hash_file

AFFINE_TOLERANCE = 1e-3
"""Differences of the affine, in mm, that rewriting a header may leave."""


@dataclass(frozen=True)
class ExternalTool:
    """How a program is called.

    Attributes:
        name: what ``--models`` takes.
        executable: its file name, looked for on PATH.
        arguments: of the command line; ``{image}``, ``{mask}`` and ``{folder}`` are replaced.
        result: the filled scan, relative to ``{folder}``.
        rescales: whether it returns intensities on another linear scale.
        environment: variables that it needs and that may be missing.
        install: where it comes from.
    """

    name: str
    executable: str
    arguments: tuple[str, ...]
    result: str
    install: str
    rescales: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def find(self) -> Path:
        """The program on PATH.

        Raises:
            MissingInputError: BM-01, it is not installed.
        """
        found = shutil.which(self.executable)
        if found is None:
            raise MissingInputError(
                "BM-01",
                f"'{self.name}' needs the program {self.executable}, which is not on the PATH",
                why="neuromend only calls this tool; it does not bring it along",
                fix=f"install it ({self.install}), or leave '{self.name}' out of --models",
            )
        return Path(found)


EXTERNAL: dict[str, ExternalTool] = {
    tool.name: tool
    for tool in (
        ExternalTool(
            "fsl",
            "lesion_filling",
            ("-i", "{image}", "-l", "{mask}", "-o", "{folder}/filled.nii.gz"),
            "filled.nii.gz",
            "FSL, https://fsl.fmrib.ox.ac.uk",
            environment={"FSLOUTPUTTYPE": "NIFTI_GZ"},
        ),
        ExternalTool(
            "niftyseg",
            "seg_FillLesions",
            ("-i", "{image}", "-l", "{mask}", "-o", "{folder}/filled.nii.gz"),
            "filled.nii.gz",
            "NiftySeg, https://github.com/KCL-BMEIS/NiftySeg",
        ),
        ExternalTool(
            "neurolit",
            "lit-inpainting",
            ("-i", "{image}", "-m", "{mask}", "-o", "{folder}", "--keepgeom"),
            "inpainting_volumes/inpainting_result.nii.gz",
            "pip install neurolit",
            rescales=True,
        ),
    )
}
"""The tools by the name that ``--models`` takes."""


def identity(tool: ExternalTool) -> str:
    """SHA-256 of the program, so that results of another version are not mistaken for its own (BM-01)."""
    return hash_file(tool.find())


def fill_with(tool: ExternalTool, scan: Any, hole: Any) -> NDArray[np.float32]:
    """Let a tool fill a hole.

    Args:
        tool: one of ``EXTERNAL``.
        scan: nibabel image (x, y, z); what stands in the hole is handed on.
        hole: nibabel image on the same grid, 1 in the hole and 0 elsewhere.

    Returns:
        (x, y, z) in the scan's units, equal to the scan outside the hole.

    Raises:
        MissingInputError: BM-01, the program is not installed.
        ModelFaultError: BM-02, it failed or wrote no result.
        GeometryError: BM-03, its result lies on another grid.
    """
    program = tool.find()
    with tempfile.TemporaryDirectory(prefix="neuromend-") as name:
        folder = Path(name)
        nib.save(scan, folder / "scan.nii.gz")
        nib.save(hole, folder / "mask.nii.gz")
        places = {"image": folder / "scan.nii.gz", "mask": folder / "mask.nii.gz", "folder": folder / "out"}
        places["folder"].mkdir()
        command = [str(program), *(argument.format(**places) for argument in tool.arguments)]
        _call(tool, command, folder)
        returned = _read_result(tool, folder / "out" / tool.result, scan)
    mask = np.asarray(hole.dataobj) > 0
    given = np.asarray(scan.dataobj, np.float32)
    if tool.rescales:
        returned = _to_scale_of(given, returned, ~mask)
    return np.where(mask, returned, given)


def _call(tool: ExternalTool, command: list[str], folder: Path) -> None:
    environment = {**tool.environment, **os.environ}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode == 0 and (folder / "out" / tool.result).is_file():
        return
    words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-3:]
    ended = f"ended with status {done.returncode}" if done.returncode else f"did not write {tool.result}"
    raise ModelFaultError(
        "BM-02",
        f"{tool.executable} {ended}: {' | '.join(words)[:400]}",
        why="without its result there is nothing to score",
        fix=f"run the tool by itself on one case and follow what it says ({tool.install})",
    )


def _read_result(tool: ExternalTool, path: Path, scan: Any) -> NDArray[np.float32]:
    image: Any = nib.load(path)
    same = image.shape == scan.shape and np.allclose(image.affine, scan.affine, rtol=0, atol=AFFINE_TOLERANCE)
    if not same:
        raise GeometryError(
            "BM-03",
            f"{tool.executable} returned a scan of {image.shape} voxels on another grid, "
            f"expected the grid of its input, {scan.shape} voxels",
            why="bringing it back would blur it, and the score would measure that",
            fix=f"use a version that keeps the grid ({tool.install})",
        )
    return np.asarray(image.dataobj, np.float32)


def _to_scale_of(
    given: NDArray[np.float32], returned: NDArray[np.float32], known: Any
) -> NDArray[np.float32]:
    """Undo a linear change of intensities, fitted (least squares) to the tissue outside the hole.

    Only the middle 96 % of the tissue counts, because such tools clip the extremes.
    """
    tissue = known & (given != 0) & np.isfinite(returned)
    if not tissue.any():
        return returned
    low, high = np.percentile(given[tissue], [2, 98])
    middle = tissue & (given >= low) & (given <= high)
    x, y = returned[middle].astype(np.float64), given[middle].astype(np.float64)
    spread = float(np.var(x))
    gain = float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 0 else 1.0
    return np.asarray(gain * (returned - x.mean()) + y.mean(), np.float32)
