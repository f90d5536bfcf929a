"""neuromend paints plausible healthy tissue into the lesion of a brain MRI and changes nothing else.

>>> import neuromend
>>> result = neuromend.fill("T1.nii.gz", "lesion.nii.gz", "filled.nii.gz")  # doctest: +SKIP

The public names are imported when they are first used, so that ``import neuromend`` itself is quick and
imports neither torch nor nibabel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuromend.errors import NeuromendError as NeuromendError
    from neuromend.filling import FillResult as FillResult
    from neuromend.filling import check as check
    from neuromend.filling import fill as fill
    from neuromend.findings import Finding as Finding
    from neuromend.models import available_models as available_models

    __version__: str

_HOMES = {
    "FillResult": "neuromend.filling",
    "Finding": "neuromend.findings",
    "NeuromendError": "neuromend.errors",
    "available_models": "neuromend.models",
    "check": "neuromend.filling",
    "fill": "neuromend.filling",
}

__all__ = ["FillResult", "Finding", "NeuromendError", "available_models", "check", "fill"]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("neuromend")
    if name not in _HOMES:
        raise AttributeError(f"module 'neuromend' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
