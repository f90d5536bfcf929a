"""Three-tissue segmentation, its volumes, and what a fill changes in them."""

from __future__ import annotations

from neuromend.tissue.hmrf import CSF, GM, TISSUES, WM, segment, volumes_ml

__all__ = ["CSF", "GM", "TISSUES", "WM", "segment", "volumes_ml"]
