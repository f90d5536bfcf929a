"""Healthy masks for files: one scan, or every case of a BraTS folder, and a page to look them over.

Read the lesions, gather the shapes, draw a mask a case, write it on the scan's own grid. A mask depends on the case's
name, its scan and lesion, the pool of shapes and the seed, so it is the same on every machine and in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.corpus.healthy_masks import (
    GROWN_MM,
    Matching,
    PoolShape,
    ShapePool,
    brain_of,
    case_seed,
    draw_healthy_mask,
    pieces_of,
)
from neuromend.corpus.shapes import ShapeSource, load_shapes
from neuromend.data.atomic import OutputSet, write_atomically
from neuromend.data.companion import companion
from neuromend.data.frame import Reorient
from neuromend.data.head import find_head
from neuromend.data.intensities import looks_skull_stripped
from neuromend.data.masks import MaskOptions
from neuromend.data.outputs import check_output
from neuromend.data.splice import encode
from neuromend.data.volume import Volume, read_volume
from neuromend.findings import Finding
from neuromend.pairing import case_file, case_folders, find_case_file
from neuromend.reading import ReadOptions, load_pair
from neuromend.report.mask_sheet import MOST_ROWS, SheetRow, render_row, render_sheet

Mask = NDArray[np.bool_]

PAGE = "healthy-masks.html"


@dataclass(frozen=True, slots=True)
class MaskCase:
    """A scan that is to get a healthy mask.

    Attributes:
        name: decides, with the seed, what is drawn.
        image: the scan.
        lesion: its lesion mask or segmentation (all labels count); None for a healthy scan.
        grown: the lesion mask has its margin already (``mask-unhealthy``).
        target: where the mask goes.
    """

    name: str
    image: Path
    lesion: Path | None
    grown: bool
    target: Path


@dataclass(frozen=True, slots=True)
class MadeMask:
    """A mask that was written.

    Attributes:
        volume_ml, lesion_ml: of the mask and of the lesion.
        brain_share: how much of the mask lies in the brain.
    """

    name: str
    path: str
    volume_ml: float
    lesion_ml: float
    brain_share: float

    def facts(self) -> str:
        """The numbers in words."""
        return (
            f"healthy mask {self.volume_ml:.1f} ml, {100 * self.brain_share:.0f} % of it in the brain;"
            f" lesion {self.lesion_ml:.1f} ml"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def single_case(image: Path, lesion: Path | None, out: Path) -> list[MaskCase]:
    """One scan; its mask is called ``NAME-mask-healthy.nii.gz``."""
    name = image.name.split(".")[0]
    return [MaskCase(name, image, lesion, False, out / f"{name}-mask-healthy.nii.gz")]


def brats_cases(folder: Path, out: Path) -> list[MaskCase]:
    """The cases of a BraTS folder: ``ID-t1n`` with ``ID-seg``, else with ``ID-mask-unhealthy``.

    Raises:
        MissingInputError: IN-38, EV-04: no such folder, no case in it, or a file of a case is not there.
    """
    cases = []
    for name, place in case_folders(folder).items():
        seg = find_case_file(place, name, "seg")
        lesion = seg or case_file(place, name, "mask-unhealthy")
        target = out / name / f"{name}-mask-healthy.nii.gz"
        cases.append(MaskCase(name, case_file(place, name, "t1n"), lesion, seg is None, target))
    return cases


def make_masks(
    cases: Sequence[MaskCase],
    out: Path,
    *,
    shapes: Sequence[Path] = (),
    matching: Matching = "inverse",
    seed: int = 0,
    overwrite: bool = False,
    on_case: Callable[[str, int, int], None] | None = None,
) -> tuple[list[MadeMask], list[Finding]]:
    """Draw and write a healthy mask for each case, then the page.

    Args:
        cases: from ``single_case`` or ``brats_cases``.
        out: the folder for masks and page.
        shapes: folders of lesion masks in MNI space to take shapes from. Without any, the lesions of the cases give
            the shapes, as in the challenge; of a single scan, blobs.
        matching: "inverse" or "random" (``ShapePool.draw``).
        seed: of all that is random.
        overwrite: whether masks that are there may be replaced.
        on_case: called with a stage, the cases done and the number of cases.

    Returns:
        What was written, and what was noticed about the output folder.

    Raises:
        NeuromendError: a file cannot be read or written; TR-34, nothing fits; TR-32, the shapes are of no use.
    """
    inputs = [path for case in cases for path in (case.image, case.lesion) if path is not None]
    findings: list[Finding] = []
    for target in (*(case.target for case in cases), out / PAGE):
        findings += check_output(target, inputs, overwrite=overwrite, needed_bytes=2**16)
    tell = on_case or (lambda stage, done, of: None)
    pool = _pool(cases, shapes, tell)
    made: list[MadeMask] = []
    rows: list[str] = []
    for number, case in enumerate(cases):
        tell("drawing healthy masks", number, len(cases))
        scan, lesion = _read(case)
        brain = _brain(scan, lesion)
        mask = draw_healthy_mask(
            case_seed(seed, case.name), brain, lesion, scan.spacing_mm, pool,
            matching=matching, grown_mm=0.0 if case.grown else GROWN_MM,
        )  # fmt: skip
        unit = abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000
        done = MadeMask(
            case.name,
            str(case.target),
            volume_ml=float(mask.sum()) * unit,
            lesion_ml=float(lesion.sum()) * unit,
            brain_share=float(brain[mask].mean()),
        )
        with OutputSet() as outputs:
            outputs.add(case.target, encode(companion(scan, mask, np.uint8), case.target.name))
            outputs.publish()
        made.append(done)
        if len(rows) < MOST_ROWS:
            rows.append(render_row(_sheet_row(done, scan, mask, lesion)))
    page = render_sheet(f"Healthy masks, seed {seed}, {matching} matching", rows, len(made) - len(rows))
    write_atomically(out / PAGE, page.encode("utf-8"))
    return made, list(dict.fromkeys(findings))


def _pool(
    cases: Sequence[MaskCase], shapes: Sequence[Path], tell: Callable[[str, int, int], None]
) -> ShapePool:
    if shapes:
        return ShapePool.of_book(load_shapes(*(ShapeSource(folder) for folder in shapes)))
    if len(cases) < 2:
        return ShapePool.of_blobs()

    def pieces() -> Iterator[PoolShape]:
        for number, case in enumerate(cases):
            tell("gathering shapes", number, len(cases))
            scan, lesion = _read(case)
            yield from pieces_of(lesion, _brain(scan, lesion), scan.spacing_mm)

    return ShapePool.of(pieces())


def _read(case: MaskCase) -> tuple[Volume, Mask]:
    if case.lesion is None:
        scan = read_volume(case.image)
        return scan, np.zeros(scan.shape, bool)
    options = MaskOptions(labels=None if case.grown else "all", allow_empty=True)
    scan, lesion, _ = load_pair(case.image, case.lesion, options, ReadOptions())
    return scan, lesion.voxels


def _brain(scan: Volume, lesion: Mask) -> Mask:
    """The brain of a skull-stripped scan; of any other scan, the head."""
    if looks_skull_stripped(scan):
        return brain_of(scan.values)
    head = find_head(scan, np.zeros(scan.shape, bool))
    if head is None:
        return np.zeros(scan.shape, bool)
    index = [
        np.minimum(np.arange(n) // s, c - 1)
        for n, s, c in zip(scan.shape, head.step, head.tissue.shape, strict=True)
    ]
    inside: Mask = head.tissue[np.ix_(*index)] | lesion
    return inside


def _sheet_row(made: MadeMask, scan: Volume, mask: Mask, lesion: Mask) -> SheetRow:
    turn = Reorient.of(scan.affine)
    x, y, z = (scan.spacing_mm[axis] for axis in turn.order)
    return SheetRow(
        made.name,
        made.facts(),
        turn.to_model(scan.values),
        turn.to_model(mask),
        turn.to_model(lesion),
        (x, y, z),
    )
