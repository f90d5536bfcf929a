"""Volumes of three tissues over the samples of a fill, from neuromend's own segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuromend.cohort.group import case_id
from neuromend.cohort.regions import Interval, check_pattern, find_segmentations, summarise
from neuromend.cohort.results import CaseResult
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import GeometryError, MissingInputError
from neuromend.provenance import read_sidecar
from neuromend.tissue import segment, volumes_ml


class TissueVolumes:
    """Segments a case's filled scan, or each of its samples.

    Args:
        brain_masks: pattern of the brain masks, as that of segmentations; None: what is not 0, in scans that are
            skull-stripped.

    Raises:
        UsageError: BD-07, a wrong pattern.
    """

    def __init__(self, brain_masks: str | None) -> None:
        if brain_masks is not None:
            check_pattern(brain_masks)
        self._pattern = brain_masks

    def __call__(self, result: CaseResult, samples: int) -> Mapping[str, Interval]:
        """Volumes in ml by tissue: CSF, GM, WM.

        Raises:
            MissingInputError: BD-11, there is no brain mask of this case; TI-01, dipy is not installed.
            GeometryError: BD-11, the brain mask has another shape than the scan.
            InputError: TI-02, this brain shows no three tissues; as ``read_volume``.
        """
        if result.filled is None:
            return {}
        volumes: list[dict[str, float]] = []
        for path in result.samples or (result.filled,):
            scan = read_volume(path)
            volumes.append(volumes_ml(segment(scan.values, self._brain(result, scan)), scan.affine))
        return {name: summarise([volume[name] for volume in volumes]) for name in volumes[0]}

    def _brain(self, result: CaseResult, scan: Volume) -> NDArray[np.bool_]:
        if self._pattern is None and read_sidecar(result.record).SkullStripped:
            return np.asarray(np.isfinite(scan.values) & (scan.values != 0))
        found: list[Path] = []
        if self._pattern is not None:
            found = find_segmentations(self._pattern, case_id(result), 0)
        if not found:
            raise MissingInputError(
                "BD-11",
                f"case {case_id(result)} has no brain mask",
                why="tissues are told apart within the brain only, and this scan shows the whole head",
                fix="make brain masks (SynthStrip, HD-BET) and name them: --brain-masks 'masks/{id}_mask.nii.gz'",
                path=result.record,
            )
        mask = read_volume(found[0])
        if mask.shape != scan.shape:
            raise GeometryError(
                "BD-11",
                f"the brain mask has the shape {mask.shape}, expected that of the scan, {scan.shape}",
                why="voxel by voxel it tells what is brain",
                fix="make the brain mask on this scan",
                path=found[0],
            )
        return np.asarray(mask.values != 0)
