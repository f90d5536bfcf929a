"""White-matter lesions for healthy scans, like those of multiple sclerosis: masks, and how they look in T1."""

from __future__ import annotations

from neuromend.lesions.anatomy import SITES, Anatomy
from neuromend.lesions.appearance import paint_lesions
from neuromend.lesions.simulate import Lesions, simulate
from neuromend.lesions.statistics import LesionStatistics, load_statistics

__all__ = ["SITES", "Anatomy", "LesionStatistics", "Lesions", "load_statistics", "paint_lesions", "simulate"]
