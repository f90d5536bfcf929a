"""Citations carry the version and the real settings of a run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from neuromend.cite import bibtex, methods_paragraph
from neuromend.provenance import Sidecar

MakeSidecar = Callable[..., Sidecar]


def test_the_entry_names_the_installed_version() -> None:
    assert f"version = {{{version('neuromend')}}}" in bibtex()
    assert bibtex().count("{") == bibtex().count("}")


def test_the_paragraph_states_the_settings_of_the_run(make_sidecar: MakeSidecar) -> None:
    text = methods_paragraph(make_sidecar())
    for fact in [
        "neuromend 1.2.3",
        "'fastwavelet3d-default'",
        "weights SHA-256 abababababababab...",
        "as the expected fill in 4 steps",
        "1,234 voxels (1.50 ml)",
        "7,654,321 voxels outside",
        "on cpu with Python 3.11.7 and torch 2.13.0",
        "synthetic",
    ]:
        assert fact in text
    assert "seed" not in text
    assert "clipped" not in text


def test_samples_clipping_and_commit_are_told_where_there_were_any(make_sidecar: MakeSidecar) -> None:
    changed = {
        "settings": {"samples": 8},
        "result": {"clipped_voxels": 9},
        "run": {"commit": "c" * 40},
    }
    text = methods_paragraph(make_sidecar(**changed))
    assert "as the mean of 8 samples in 4 steps each with seed 17" in text
    assert "9 filled voxel(s) were clipped" in text
    assert "(commit cccccccccccc)" in text
    text = methods_paragraph(make_sidecar(settings={"samples": 1, "steps": 1}))
    assert "as one sample in 1 step with seed 17" in text
    text = methods_paragraph(make_sidecar(settings={"samples": 0, "options": {"expected_fill": False}}))
    assert "as one sample in 4 steps with seed 17" in text


def test_the_sampler_is_named_where_the_method_has_a_choice(make_sidecar: MakeSidecar) -> None:
    text = methods_paragraph(make_sidecar(settings={"samples": 2, "options": {"sampler": "dpmpp"}}))
    assert ", sampler dpmpp, weights" in text
    assert "sampler" not in methods_paragraph(make_sidecar(settings={"options": {"sampler": None}}))


def test_a_classical_fill_has_no_weights_seed_or_steps(make_sidecar: MakeSidecar) -> None:
    model = {"name": "harmonic", "method": "harmonic", "weights_sha256": None, "config_sha256": None}
    text = methods_paragraph(make_sidecar(model=model))
    assert "classical fill 'harmonic'" in text
    assert "seed" not in text
    assert "step" not in text
