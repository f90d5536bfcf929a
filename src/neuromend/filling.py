"""The main job, told from top to bottom: load, frame, sample, paste, save.

A scan and a lesion mask go in. The lesion is replaced by tissue that a model paints, and every stored voxel
outside the mask stays as it was, bit for bit. Nothing inside the mask is ever read, so what the lesion looked
like has no influence on the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from neuromend.data.frame import Frame, Reorient
from neuromend.data.head import find_head
from neuromend.data.intensities import looks_skull_stripped
from neuromend.data.intensity import IntensityScale
from neuromend.data.masks import LesionMask, MaskOptions
from neuromend.data.volume import MAX_VOXELS, Volume
from neuromend.device import choose_device, fits_in_memory, set_threads
from neuromend.errors import DeviceError, UsageError
from neuromend.findings import Finding
from neuromend.forecast import memory_needed
from neuromend.models import DEFAULT_MODEL, resolve_model
from neuromend.painting import Painter
from neuromend.planning import OutputPlan, files_behind
from neuromend.provenance import SettingsRecord
from neuromend.reading import ReadOptions, Source, findings_of, load_pair
from neuromend.recording import Job
from neuromend.saving import Fills, Saved, companion_image, load_saved, save, why_redo

Labels = Sequence[int] | Literal["all"] | None
OnStep = Callable[[str, int, int], None]

CONTEXT_MM = 6.0
"""Air kept around the head, so that tissue never touches the border of the model's volume."""

MODEL_MULTIPLE = 16
"""Sides of the model's volume: what the networks here need, and no more than 16 mm of padding."""


@dataclass(frozen=True, eq=False)
class FillResult:
    """What a fill gives.

    Attributes:
        image: the filled scan as a nibabel image: own grid, own storage type; None with ``dry_run``.
        mask: what was really filled (1) and what was kept (0), same grid.
        samples: the single samples, if any were asked for.
        uncertainty: voxel-wise standard deviation over the samples in the scan's units (0 outside the mask);
            None with fewer than two samples.
        record: the JSON sidecar; empty with ``dry_run``.
        findings: everything that was checked and noticed; what is about this computer and this moment (folders
            made, memory, devices) comes first and is not part of the record, which equal runs share.
        outputs: the files written, by role ("filled", "mask", "uncertainty", "sample-01", "picture", "report",
            "record"); with ``dry_run`` those that would be; empty without ``out``.
        kept: True if nothing was done, because ``skip_existing`` found the result of the same run.
        redone: why ``skip_existing`` found no such result; None without it, and where the result was kept.
    """

    image: Any
    mask: Any
    samples: tuple[Any, ...]
    uncertainty: Any
    record: dict[str, Any]
    findings: tuple[Finding, ...]
    outputs: dict[str, Path] = field(default_factory=dict)
    kept: bool = False
    redone: str | None = None


def fill(
    image: Source,
    mask: Source,
    out: str | Path | None = None,
    *,
    model: str | Path = DEFAULT_MODEL,
    samples: int = 0,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    labels: Labels = None,
    threshold: float | None = None,
    resample_mask: bool = False,
    invert_mask: bool = False,
    allow_empty: bool = False,
    dilate_mm: float = 0.0,
    min_size_ml: float = 0.0,
    force_pair: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
    modality: str | None = None,
    volume: int | None = None,
    assume_orientation: str | None = None,
    max_voxels: int = MAX_VOXELS,
    fallback: bool = True,
    dry_run: bool = False,
    on_step: OnStep | None = None,
    command: Sequence[str] | None = None,
    painter_for: Callable[..., Painter] = Painter,
) -> FillResult:
    """Paint plausible healthy tissue into the mask of a brain scan and change nothing else.

    Args:
        image, mask: paths (.nii, .nii.gz, .hdr/.img, .mgz, .mgh) or nibabel images.
        out: the filled file, or a folder (then the file is named after the scan); None writes nothing.
        model: a name that ``neuromend models list`` shows, or a model folder.
        samples: 0 for the expected fill (lowest error); N for the mean of N random samples, the samples
            themselves and, from 2 on, their voxel-wise standard deviation.
        steps: denoising steps of each sample; by default what the model was made for.
        seed: of the samples; sample k is the same however many are drawn.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: CPU threads of torch, from now on; by default those that this process may use.
        labels: the labels of a label map that are lesion, or "all".
        threshold: values at or above it are lesion, for probabilities.
        resample_mask: accept a mask on another grid (nearest neighbour in world space).
        invert_mask: the mask has 0 for lesion.
        allow_empty: an empty mask copies the scan instead of being refused.
        dilate_mm: grow the mask by this distance.
        min_size_ml: leave out pieces of the mask smaller than this.
        force_pair: accept file names of different subjects.
        overwrite: replace output that is there.
        skip_existing: keep output that is complete and from the same inputs, model and settings; redo other.
        modality: the contrast of the scan, if its name does not tell ("T1w").
        volume: which volume of a 4-D file, from 0.
        assume_orientation: where the axes point to, for files that do not tell ("RAS").
        max_voxels: refuse larger files.
        fallback: on lack of GPU memory go on, on the CPU.
        dry_run: check everything, load no model, write nothing.
        on_step: called with (stage, done, of).
        command: the command line, for the record.
        painter_for: gives the painter for (model, device, fallback=...); one that is kept from fill to fill
            spares loading the model again.

    Returns:
        The filled image and all that belongs to it.

    Raises:
        NeuromendError: any foreseen fault, with its code, exit status and what to do (docs/errors.md).
    """
    started = datetime.now(UTC)
    tell = on_step or _silent
    require_counts(samples, steps)
    options = mask_options(
        labels, threshold, resample_mask, invert_mask, allow_empty, dilate_mm, force_pair, min_size_ml
    )
    reading = ReadOptions(volume, assume_orientation, max_voxels, modality)
    entry = resolve_model(model)
    here: list[Finding] = []  # about this computer and this moment: told, but not recorded
    place, threads = choose_device(device, here), set_threads(threads)
    plan = OutputPlan.of(out, image, samples=samples)
    inputs = [*files_behind(image), *files_behind(mask)]
    may_replace = overwrite or skip_existing
    here += plan.check(inputs, overwrite=may_replace, create=False)

    tell("reading", 0, 1)
    scan, lesion, mask_source = load_pair(image, mask, options, reading)
    plan.check_format(scan)
    trained = entry.manifest.trained_range if entry.manifest is not None else None
    findings = findings_of(scan, lesion, modality=modality, trained=trained)
    frame = frame_of(scan, lesion)
    if not entry.is_classical:
        place = _place_with_room(memory_needed(entry, frame.model_shape), place, here, fallback=fallback)
    if dry_run:
        mask_image = companion_image(scan, lesion.voxels, np.uint8)
        return FillResult(None, mask_image, (), None, {}, (*here, *findings), plan.files)
    here += plan.check(inputs, overwrite=may_replace, create=True) + plan.check_room(scan)

    tell("loading the model", 0, 1)
    painter = painter_for(entry, place, fallback=fallback)
    steps = painter.steps_for(steps, sampling=samples > 0)
    expected = samples == 0 and painter.knows_expected_fill
    chosen = _plain(options, reading) | {"expected_fill": expected, "sampler": painter.sampler}
    job = Job(
        scan, lesion, mask_source, entry, frame,
        settings=SettingsRecord(seed=seed, steps=steps, samples=samples, options=chosen),
        device=str(place), threads=threads, started=started, command=command,
        skull_stripped=looks_skull_stripped(scan, lesion.voxels),
    )  # fmt: skip
    reason = None
    if skip_existing and plan.files:
        reason = why_redo(plan, job)
        if reason is None:
            done = "the output is there, complete and from the same run: nothing was done"
            found = _result(load_saved(plan), plan, [*here, Finding("RT-05", "note", done)])
            return dataclasses.replace(found, kept=True)
        if any(path.exists() for path in plan.files.values()):  # else nothing was done before
            here.append(Finding("RT-05", "note", f"done again: {reason}"))
    fills = paint(scan, lesion, frame, painter, samples=samples, steps=steps, seed=seed, on_step=tell)
    findings += painter.findings

    tell("saving", 0, 1)
    saved = save(plan, dataclasses.replace(job, device=str(painter.device)), fills, findings)
    return dataclasses.replace(_result(saved, plan, here), redone=reason)


def check(
    image: Source,
    mask: Source,
    *,
    labels: Labels = None,
    threshold: float | None = None,
    resample_mask: bool = False,
    invert_mask: bool = False,
    allow_empty: bool = False,
    dilate_mm: float = 0.0,
    min_size_ml: float = 0.0,
    force_pair: bool = False,
    modality: str | None = None,
    volume: int | None = None,
    assume_orientation: str | None = None,
    max_voxels: int = MAX_VOXELS,
) -> tuple[Finding, ...]:
    """Validate a scan and its mask as ``fill`` would, without a model; the arguments are those of ``fill``.

    Raises:
        NeuromendError: the first fault for which ``fill`` would refuse the pair.
    """
    options = mask_options(
        labels, threshold, resample_mask, invert_mask, allow_empty, dilate_mm, force_pair, min_size_ml
    )
    reading = ReadOptions(volume, assume_orientation, max_voxels, modality)
    scan, lesion, _ = load_pair(image, mask, options, reading)
    return tuple(findings_of(scan, lesion, modality=modality, trained=None))


def frame_of(scan: Volume, lesion: LesionMask) -> Frame:
    """The model's view of the scan: the head and the lesion, with some air around.

    The head is looked for in one orientation, so that the view does not depend on how the file stores it.
    """
    focus = lesion.voxels.copy()
    turn = Reorient.of(scan.affine)
    header = dataclasses.replace(scan.header, affine=scan.affine @ turn.scan_of_model(scan.shape))
    turned = dataclasses.replace(scan, header=header, values=turn.to_model(scan.values))
    head = find_head(turned, turn.to_model(lesion.voxels))
    if head is not None:
        seen = turn.to_model(focus)  # a view
        seen |= head.box(seen.shape)
    return Frame.of(scan.shape, scan.affine, focus=focus, margin_mm=CONTEXT_MM, multiple=MODEL_MULTIPLE)


def paint(
    scan: Volume,
    lesion: LesionMask,
    frame: Frame,
    painter: Painter,
    *,
    samples: int,
    steps: int,
    seed: int,
    on_step: OnStep,
) -> Fills:
    """Bring the scan to the model, let it paint each sample, and bring the painted voxels back.

    Intensities are normalised by what lies outside the mask; in-mask voxels never enter the computation.
    """
    hole = lesion.voxels
    if not hole.any():
        nothing = np.zeros(0)
        return Fills(nothing, (nothing,) * samples, nothing if samples > 1 else None)
    # Seen in one orientation, the same voxels give the same scale however the file stores them.
    scale = IntensityScale.estimate(frame.reorient.to_model(scan.values), frame.reorient.to_model(~hole))
    voided = frame.to_model(scale.normalise(scan.values), mask=hole)
    model_hole = frame.mask_to_model(hole)
    frame.continue_holes(voided, model_hole)
    seed = painter.seed_for(seed, sampling=samples > 0)
    total = max(1, samples)
    on_step("filling", 0, total)
    painted: list[NDArray[np.float64]] = []
    for number in range(total):

        def step_done(done: int, of: int, number: int = number) -> None:
            on_step("filling", number * of + done, total * of)

        filled = painter.paint(voided, model_hole, steps=steps, seed=seed, number=number, on_step=step_done)
        painted.append(scale.restore(frame.to_scan(filled, hole)))
        on_step("filling", number + 1, total)
    mean = np.mean(painted, axis=0) if samples > 1 else painted[0]
    spread = np.std(painted, axis=0, ddof=1) if samples > 1 else None
    return Fills(mean, tuple(painted) if samples else (), spread)


def mask_options(
    labels: Labels,
    threshold: float | None,
    resample_mask: bool,
    invert_mask: bool,
    allow_empty: bool,
    dilate_mm: float,
    force_pair: bool,
    min_size_ml: float,
) -> MaskOptions:
    """The mask options of ``fill`` in one object; contradictions are refused (UsageError)."""
    chosen = labels if labels is None or labels == "all" else tuple(int(label) for label in labels)
    return MaskOptions(
        chosen, threshold, resample_mask, invert_mask, allow_empty, dilate_mm, force_pair, min_size_ml
    )


def require_counts(samples: int, steps: int | None) -> None:
    """Refuse numbers of samples and steps that mean nothing (UX-01, UX-02)."""
    if samples < 0:
        why = "0 means the expected fill, N the mean of N samples"
        raise UsageError("UX-02", f"--samples is {samples}, expected 0 or more", why=why, fix="--samples 8")
    if steps is not None and steps < 1:
        why = "a fill needs at least one step"
        raise UsageError("UX-01", f"--steps is {steps}, expected 1 or more", why=why, fix="--steps 4")


def _place_with_room(
    needed: int, place: torch.device, findings: list[Finding], *, fallback: bool
) -> torch.device:
    """Where the network runs: ``place``, or the CPU if the GPU has not the bytes ``needed`` (RT-12)."""
    try:
        noted = fits_in_memory(needed, place)
    except DeviceError as error:
        if place.type == "cpu" or not fallback:
            raise
        findings.append(Finding("RT-12", "warning", f"{error.what}; the CPU is used"))
        place = torch.device("cpu")
        noted = fits_in_memory(needed, place)
    if noted is not None:
        findings.append(noted)
    return place


def _plain(options: MaskOptions, reading: ReadOptions) -> dict[str, Any]:
    """The options as JSON values; a tuple becomes a list, as JSON reads it back."""
    plain = {
        **dataclasses.asdict(options),
        "volume": reading.volume,
        "assume_orientation": reading.assume_orientation,
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _result(saved: Saved, plan: OutputPlan, here: Sequence[Finding]) -> FillResult:
    record = saved.sidecar.model_dump(mode="json")
    findings = (*here, *saved.findings)
    return FillResult(
        saved.image, saved.mask, saved.samples, saved.uncertainty, record, findings, dict(plan.files)
    )


def _silent(stage: str, done: int, total: int) -> None:
    """No one listens."""
