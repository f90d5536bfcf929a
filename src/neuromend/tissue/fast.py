"""FSL's FAST, called where the user has installed it, in place of our own segmentation."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from neuromend.errors import MissingInputError, ModelFaultError
from neuromend.tissue.hmrf import check_brain

EXECUTABLE = "fast"


def segment_with_fast(
    values: NDArray[np.floating[Any]], brain: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Label every voxel of the brain by ``fast -t 1 -n 3`` (its own bias correction included).

    Args:
        values, brain: as for ``neuromend.tissue.segment``.
        affine: (4, 4), voxel index to RAS mm.

    Returns:
        (x, y, z) uint8, labels as ``segment``.

    Raises:
        InputError: TI-02.
        MissingInputError: TI-01, FSL is not installed.
        ModelFaultError: TI-04, it failed.
    """
    program = shutil.which(EXECUTABLE)
    if program is None:
        raise MissingInputError(
            "TI-01",
            f"--tool fast needs FSL's program {EXECUTABLE}, which is not on the PATH",
            why="neuromend only calls this tool; it does not bring it along",
            fix="install FSL (https://fsl.fmrib.ox.ac.uk), or leave --tool out",
        )
    check_brain(values, brain)
    with tempfile.TemporaryDirectory(prefix="neuromend-") as name:
        folder = Path(name)
        stripped = np.where(brain, values, 0).astype(np.float32)
        image = nib.Nifti1Image(stripped, affine)  # type: ignore[no-untyped-call]
        nib.save(image, folder / "brain.nii.gz")
        command = [program, "-t", "1", "-n", "3", "-o", str(folder / "out"), str(folder / "brain.nii.gz")]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "FSLOUTPUTTYPE": "NIFTI_GZ"}, capture_output=True, text=True,
            errors="replace", check=False,
        )  # fmt: skip
        result = folder / "out_seg.nii.gz"
        if done.returncode or not result.is_file():
            words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-3:]
            raise ModelFaultError(
                "TI-04",
                f"{EXECUTABLE} ended with status {done.returncode}: {' | '.join(words)[:400]}",
                why="without its result there is no segmentation",
                fix="run it by itself on this scan, or leave --tool out",
            )
        found = np.asarray(nib.load(result).dataobj).astype(np.uint8)  # type: ignore[attr-defined]
    return np.where(brain, found, np.uint8(0))
