"""``neuromend demo``: plant a lesion into a healthy scan, fill it, and compare with the truth it hides.

The scan is one that the user gives, or the MNI152 template that nilearn carries (the average of many brains,
and therefore blurred: an easy case). Nothing is fetched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.atomic import write_atomically
from neuromend.data.head import find_head
from neuromend.data.intensities import looks_skull_stripped
from neuromend.data.intensity import IntensityScale
from neuromend.data.lesions import random_blob
from neuromend.data.outputs import check_output
from neuromend.data.splice import encode
from neuromend.data.volume import Volume, read_volume, volume_from_image
from neuromend.errors import MissingInputError, UsageError
from neuromend.filling import fill
from neuromend.findings import Finding
from neuromend.methods.classical import harmonic
from neuromend.metrics import challenge_scores

Mask = NDArray[np.bool_]
Array = NDArray[np.floating[Any]]

UNITS = 1000
"""The stored value (int16) of bright tissue."""

SKIN_AND_SKULL_MM = 15.0
"""How much deeper a lesion must lie where the scan shows the whole head."""

DARKEST, RIM_MM = 0.25, 1.5
"""A cavity has a quarter of the brightness of the tissue around, reached over a rim of this thickness."""

TEMPLATE_NOTE = (
    "The MNI152 template is the average of many brains, blurred by that, and symmetric: an easy case. "
    "These figures show that the installation works, not how good the model is."
)


@dataclass(frozen=True)
class DemoResult:
    """What the demo did.

    Attributes:
        outputs: the files, by role: "scan" (with the lesion), "lesion", "healthy" (the truth); those of ``fill``.
        findings: those of ``fill``.
        lesion_ml: volume of the lesion planted.
        seconds: wall time of the fill, from reading to the last file.
        psnr_db, harmonic_psnr_db: how close the fill, and a harmonic fill, come to the truth inside the mask.
        is_template: whether the scan was the MNI152 template.
    """

    outputs: dict[str, Path]
    findings: tuple[Finding, ...]
    lesion_ml: float
    seconds: float
    psnr_db: float
    harmonic_psnr_db: float
    is_template: bool

    def story(self) -> list[str]:
        """The figures, in sentences."""
        lines = [
            f"filled {self.lesion_ml:.1f} ml in {self.seconds:.1f} s",
            f"likeness to the hidden truth inside the mask: PSNR {self.psnr_db:.2f} dB "
            f"(harmonic fill: {self.harmonic_psnr_db:.2f} dB)",
        ]
        return [*lines, TEMPLATE_NOTE] if self.is_template else lines

    def as_json(self) -> dict[str, Any]:
        """What ``demo --json`` prints."""
        return {
            "outputs": {role: str(path) for role, path in self.outputs.items()},
            "lesion_ml": round(self.lesion_ml, 3),
            "seconds": round(self.seconds, 3),
            "psnr_db": round(self.psnr_db, 3),
            "harmonic_psnr_db": round(self.harmonic_psnr_db, 3),
        }


def run_demo(
    image: Path | None,
    out: Path,
    *,
    lesion_ml: float,
    seed: int,
    model: str,
    device: str,
    threads: int | None,
    on_step: Callable[[str, int, int], None],
    command: Sequence[str],
) -> DemoResult:
    """Make the scan with its lesion, fill it, compare.

    Args:
        image: a healthy scan; None for the MNI152 template.
        out: folder for the files; those of an earlier demo are replaced.
        lesion_ml: volume of the lesion.
        seed: of its shape and place, and of the fill.
        model, device, threads, on_step, command: as for :func:`neuromend.fill`.

    Raises:
        MissingInputError: UX-13, no image was given and nilearn is not installed.
        UsageError: UX-14, the lesion does not fit into the head.
        NeuromendError: any fault of reading, filling or writing.
    """
    on_step("making the demo scan", 0, 1)
    names = {"scan": "demo_T1w.nii.gz", "lesion": "demo_lesion.nii.gz", "healthy": "demo_healthy_T1w.nii.gz"}
    files = {role: out.expanduser().absolute() / name for role, name in names.items()}
    for path in files.values():
        check_output(path, [] if image is None else [image], overwrite=True, needed_bytes=0)
    scan = volume_from_image(load_template()) if image is None else read_volume(image)
    rng = np.random.default_rng(seed % 2**63)
    scale = IntensityScale.estimate(scan.values, np.ones(scan.shape, np.bool_))
    healthy = _as_stored(scale.normalise(scan.values))
    mask = plant_lesion(scan, lesion_ml, rng)
    sick = _as_stored(paint_cavity(healthy / np.float32(UNITS), mask, scan.spacing_mm, rng))
    for role, array in (("scan", sick), ("lesion", mask.astype(np.uint8)), ("healthy", healthy)):
        payload = nib.Nifti1Image(array, scan.affine).to_bytes()  # type: ignore[no-untyped-call]
        write_atomically(files[role], encode(payload, files[role].name))

    start = time.perf_counter()
    result = fill(
        files["scan"], files["lesion"], files["scan"].parent, model=model, seed=seed, device=device,
        threads=threads, overwrite=True, on_step=on_step, command=command,
    )  # fmt: skip
    seconds = time.perf_counter() - start

    on_step("comparing with the truth", 0, 1)
    assert result.image is not None
    voxel_ml = float(abs(np.linalg.det(scan.affine[:3, :3]))) / 1000
    return DemoResult(
        outputs={**files, **result.outputs},
        findings=result.findings,
        lesion_ml=float(mask.sum()) * voxel_ml,
        seconds=seconds,
        psnr_db=_psnr(np.asarray(result.image.dataobj), healthy, mask),
        harmonic_psnr_db=_psnr(harmonic(healthy.astype(np.float32), mask), healthy, mask),
        is_template=image is None,
    )


def load_template() -> nib.Nifti1Image:
    """The MNI152 T1 template (1 mm, skull-stripped) from nilearn's own files.

    Raises:
        MissingInputError: UX-13, nilearn is not installed.
    """
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError as error:
        raise MissingInputError(
            "UX-13",
            f"the demo scan comes with nilearn, which cannot be imported ({error})",
            why="neuromend itself carries no brain scan",
            fix="pip install 'neuromend[demo]', or give a healthy scan: neuromend demo --image T1.nii.gz",
        ) from error
    template: nib.Nifti1Image = load_mni152_template(resolution=1)
    return template


def plant_lesion(scan: Volume, volume_ml: float, rng: np.random.Generator) -> Mask:
    """A tumour-like blob in the white matter and cortex of one hemisphere, (x, y, z).

    Its centre lies a little deeper under the surface of the brain than its radius, off the midline, and
    neither at the crown nor at the base.

    Raises:
        UsageError: UX-14, no such place in this scan.
    """
    radius_mm = (3 * volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)
    skull_mm = 0.0 if looks_skull_stripped(scan) else SKIN_AND_SKULL_MM
    head = find_head(scan, np.zeros(scan.shape, np.bool_))
    places, midline_mm = np.zeros((0, 3)), 0.0
    if head is not None:
        depth_mm = ndimage.distance_transform_edt(
            np.pad(head.tissue, 1), sampling=head.step * head.spacing_mm
        )
        depth_mm = depth_mm[1:-1, 1:-1, 1:-1] - skull_mm
        tissue = np.argwhere(head.tissue) * head.step
        world_mm = tissue @ scan.affine[:3, :3].T + scan.affine[:3, 3]
        midline_mm = float(np.median(world_mm[:, 0]))
        aside_mm = np.abs(world_mm[:, 0] - midline_mm)
        below_crown_mm = world_mm[:, 2].max() - skull_mm - world_mm[:, 2]
        depth_mm = depth_mm[head.tissue]
        fits = (depth_mm > 1.1 * radius_mm + 3) & (aside_mm > radius_mm) & (np.abs(below_crown_mm - 50) < 20)
        # The shallowest of those that fit, so that the lesion reaches the cortex.
        places = tissue[fits & (depth_mm < np.min(depth_mm[fits], initial=np.inf) + 6)]
    if not len(places):
        raise UsageError(
            "UX-14",
            f"a lesion of {volume_ml:g} ml (radius {radius_mm:.0f} mm) has no place in one hemisphere here",
            why="the demo needs a place for it in the upper half of the brain, away from the midline",
            fix="--lesion-ml 5, or a scan that shows the whole brain",
            path=scan.path,
        )
    centre = places[rng.integers(len(places))]
    edge_mm = float(np.prod(scan.spacing_mm)) ** (1 / 3)
    blob = random_blob(rng, scan.shape, (centre[0], centre[1], centre[2]), volume_ml, edge_mm)
    # What bulges over the midline is cut off.
    across_mm = np.argwhere(blob) @ scan.affine[0, :3] + scan.affine[0, 3] - midline_mm
    centre_mm = centre @ scan.affine[0, :3] + scan.affine[0, 3] - midline_mm
    blob[blob] = across_mm * centre_mm > 0
    return blob


def paint_cavity(
    image: Array, mask: Mask, spacing_mm: Sequence[float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Darken the mask like a fluid-filled cavity: a soft rim, a dark centre, a little noise.

    Args:
        image: (x, y, z), air about 0 and bright tissue about 1; voxels outside the mask come back unchanged.
        mask: (x, y, z).
        spacing_mm: voxel size along the three axes.
        rng: of the noise.
    """
    painted = np.array(image, dtype=np.float32)
    places = np.argwhere(mask)
    box = tuple(slice(max(0, a - 8), b + 9) for a, b in zip(places.min(0), places.max(0), strict=True))
    inside = mask[box]
    depth_mm = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    around = ndimage.gaussian_filter(painted[box], [2 / edge for edge in spacing_mm])
    dark = around * (DARKEST + (1 - DARKEST) * np.exp(-depth_mm / RIM_MM))
    dark += rng.normal(0, 0.01, dark.shape)
    painted[box][inside] = dark[inside]
    return painted


def _as_stored(normalised: Array) -> NDArray[np.int16]:
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(normalised * UNITS), limits.min, limits.max).astype(np.int16)


def _psnr(filled: NDArray[Any], truth: NDArray[np.int16], mask: Mask) -> float:
    """PSNR inside the mask in dB, with the range of the challenge."""
    true = truth.astype(np.float64)
    return float(challenge_scores(filled.astype(np.float64), true, np.where(mask, 0.0, true), mask)["psnr"])
