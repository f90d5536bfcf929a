"""What is known of the lesions of patients: how many, how large, where, how elongated, how dark.

The numbers stand in ``ms.json`` and were learned by ``training/learn_lesions.py`` from manual masks.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from pydantic import BaseModel, ConfigDict


class LesionStatistics(BaseModel):
    """Distributions as quantiles at evenly spaced levels, 0 to 1; in between they are read off linearly.

    Attributes:
        source: where the numbers come from, with its terms.
        patients, lesions: how many were measured.
        number: lesions of one patient.
        site_share: of all lesions, by site.
        volume_ml: by site.
        elongation: longest over shortest axis of a lesion of 30 mm3 or more.
        darkness: of the lesion in T1, as a share of the way from white to grey matter.
        infratentorial_plane: see ``Anatomy.of_tissues``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    patients: int
    lesions: int
    number: tuple[float, ...]
    site_share: dict[str, float]
    volume_ml: dict[str, tuple[float, ...]]
    elongation: tuple[float, ...]
    darkness: tuple[float, ...]
    infratentorial_plane: tuple[float, float, float]


def load_statistics() -> LesionStatistics:
    """Those of multiple sclerosis."""
    text = (files("neuromend.lesions") / "ms.json").read_text(encoding="utf-8")
    return LesionStatistics.model_validate_json(text)


def draw(quantiles: tuple[float, ...], rng: np.random.Generator, *, logarithmic: bool = False) -> float:
    """One draw from a distribution given by its quantiles."""
    values = np.log(quantiles) if logarithmic else np.asarray(quantiles)
    value = float(np.interp(rng.random(), np.linspace(0, 1, len(values)), values))
    return float(np.exp(value)) if logarithmic else value
