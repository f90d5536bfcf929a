"""Results are found again below a folder, whatever else stands there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from neuromend.cohort.listing import read_list
from neuromend.cohort.results import find_results
from neuromend.cohort.tables import Tables
from neuromend.cohort.worker import Outcome, fill_case
from neuromend.errors import MissingInputError
from neuromend.provenance import Sidecar

from .cohort_cases import QUICK, write_cohort

pytestmark = pytest.mark.usefixtures("plain_papers")


def test_results_of_a_batch_are_found_with_their_scans(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    settings = replace(QUICK, samples=2)
    with Tables(out) as tables:
        for number, case in enumerate(read_list(write_cohort(tmp_path / "in", 2), out)):
            answer = fill_case(case, settings, "run", None)
            assert isinstance(answer, Outcome)
            tables.add(number, case, answer)
    (out / "case-01" / "case-01_inpainted_uncertainty.nii.gz").unlink()
    first, second = find_results(out)
    assert (first.id, second.id) == ("case-00", "case-01")
    assert first.image == tmp_path / "in" / "case-00.nii.gz"
    assert first.record == out / "case-00" / "case-00_inpainted.json"
    assert first.filled == out / "case-00" / "case-00_inpainted.nii.gz"
    assert first.mask == out / "case-00" / "case-00_inpainted_mask.nii.gz"
    assert first.picture == out / "case-00" / "case-00_inpainted.png"
    assert [path.name[-16:] for path in first.samples] == ["sample-01.nii.gz", "sample-02.nii.gz"]
    assert first.uncertainty is not None
    assert second.uncertainty is None, "a file that is gone"
    assert first.volume_ml > 0
    assert {flag.level for flag in first.flags} == {"warning"}
    assert first.created.tzinfo is not None


def test_other_json_files_and_fields_do_not_matter(
    tmp_path: Path, make_sidecar: Callable[..., Sidecar]
) -> None:
    text = make_sidecar().to_json()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sub-01_inpainted.json").write_text('{"SpatialReference": "orig",' + text[1:])
    (tmp_path / "a" / "scan.nii.gz").touch()
    for name, other in (
        ("b.json", "{}"),
        ("c.json", "[1]"),
        ("d.json", "no"),
        ("e.json", '{"outputs": 1, "settings": 2}'),
    ):
        (tmp_path / name).write_text(other)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "f.json").write_text(text)
    (result,) = find_results(tmp_path)
    assert result.id == "sub-01"
    assert result.image == tmp_path / "a" / "scan.nii.gz"
    assert result.filled is None


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="IN-38"):
        find_results(tmp_path / "no")
