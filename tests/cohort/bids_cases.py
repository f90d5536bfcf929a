"""Small BIDS datasets on the disk, and the participant level without a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from neuromend.cohort.bids_app import BidsCases, find_cases
from neuromend.cohort.bids_dataset import write_dataset_files
from neuromend.cohort.bids_layout import Selection
from neuromend.cohort.bids_outputs import BidsSettings, finish_case
from neuromend.filling import FillResult, fill

from ..filling_cases import AFFINE, ball, head

SETTINGS = BidsSettings(model="ring-mean", threads=1, command=("neuromend", "bids"))

SCAN = head()[::2, ::2, ::2]
HOLE = ball()[::2, ::2, ::2]
GRID = AFFINE @ np.diag([2.0, 2.0, 2.0, 1.0])


def image(values: Any) -> Any:
    made = nib.Nifti1Image(values, GRID)
    made.header.set_xyzt_units("mm")
    return made


def write(root: Path, files: Mapping[str, str]) -> Path:
    """A dataset. ``files``: path -> what it is: "scan", "mask", "dseg" (lesion 7, rest 1), or the text of the file."""
    arrays = {
        "scan": SCAN,
        "mask": HOLE.astype(np.uint8),
        "dseg": np.where(HOLE, 7, np.where(SCAN > 0, 1, 0)).astype(np.uint8),
    }
    described = {"Name": "Heads", "BIDSVersion": "1.10.0", "DatasetDOI": "doi:10.0/x"}
    for name, what in {"dataset_description.json": json.dumps(described), **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if what in arrays:
            nib.save(image(arrays[what]), path)
        else:
            path.write_text(what, encoding="utf-8")
    return root


def cases_of(root: Path, out: Path, **chosen: Any) -> BidsCases:
    return find_cases(root, out, Selection(**chosen))


def run(root: Path, out: Path, settings: BidsSettings = SETTINGS, **chosen: Any) -> dict[str, FillResult]:
    """The participant level in this process: each case is filled and finished as a worker does."""
    cases = cases_of(root, out, **chosen)
    write_dataset_files(cases.out, cases.root, cases.names, settings)
    done = {}
    for case in cases:
        done[case.id] = fill(case.image, case.mask, case.out, **settings.arguments(case), skip_existing=True)
        finish_case(case, done[case.id])
    return done


def validate(root: Path) -> list[dict[str, Any]]:
    """The errors that the BIDS validator finds, without network."""
    beside = str(Path(sys.executable).parent)  # also where the environment is not activated
    command = shutil.which("bids-validator-deno", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    assert command is not None, "bids-validator-deno is among the development dependencies"
    done = subprocess.run(
        [command, str(root), "--format", "json"], capture_output=True, text=True, timeout=300, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue.get("severity", "error") == "error"]
