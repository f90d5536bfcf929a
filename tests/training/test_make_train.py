"""``make train`` and ``make small-round`` keep the shapes of the dev holes out of training."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from neuromend.corpus import shapes

from .conftest import ROOT, load_script

WORD = re.compile(r"([a-z]+)/masks-mni:([0-9.]+):([0-9]+)")


@pytest.mark.shared
@pytest.mark.parametrize("file", ["Makefile", "training/small_round.py"])
def test_no_mask_of_the_dev_holes_gives_a_shape_to_training(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ROOT.parent / "shared" / "data"
    if not (data / "subjects.tsv").is_file():
        pytest.skip("needs ../shared/data")
    benchmark = load_script("dev_cases", monkeypatch, "benchmarks")
    read: list[Path] = []
    voxel = shapes.LesionShape(np.ones((1, 1, 1), bool), np.eye(4), 1.0)
    monkeypatch.setattr(shapes.LesionShape, "read", lambda path: read.append(Path(path).resolve()) or voxel)
    words = WORD.findall((ROOT / file).read_text())
    assert {kind for kind, _, _ in words} == set(benchmark.STRIDES)
    shapes.load_shapes(
        *(shapes.ShapeSource(data / kind / "masks-mni", float(w), int(n)) for kind, w, n in words)
    )
    training = set(read)
    read.clear()
    for kind, stride in benchmark.STRIDES.items():
        benchmark._lesions(data / kind / "masks-mni", stride)
    benchmark._lesions.cache_clear()
    assert len(training) > 700
    assert len(read) > 200
    assert not training & set(read)
