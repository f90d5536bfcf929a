"""The cases of a benchmark: tables, planted holes, and every way to get them wrong."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neuromend.benchmark_cases import Case, load, read_cases
from neuromend.errors import NeuromendError

from .filling_cases import AFFINE, ball, head, image

VOXEL_ML = abs(np.linalg.det(AFFINE[:3, :3])) / 1000


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    nib.save(image(head()), folder / "a b_T1w.nii.gz")
    nib.save(image(head(stripped=False)), folder / "whole_T1w.nii")
    nib.save(image(ball()), folder / "a b_tissue.nii.gz")
    (folder / "notes.txt").write_text("no scan")
    return folder


def planted(scans: Path, query: str, out: str = "masks") -> list[Case]:
    return read_cases(f"planted:{scans}?{query}", scans.parent / out)


def test_every_t1_scan_gets_its_holes_and_nothing_else_does(scans: Path) -> None:
    cases = planted(scans, "per_scan=3&ml=0.5-8")
    assert [case.image.name for case in cases] == ["a b_T1w.nii.gz"] * 3 + ["whole_T1w.nii"] * 3
    assert len({case.id for case in cases}) == 6
    assert cases[0].id == "a-b_T1w_hole-01_seed-0"  # an id is safe in a file name
    assert all(case.mask.is_file() for case in cases)


def test_holes_have_the_volumes_that_were_asked_for_and_lie_in_the_brain(scans: Path) -> None:
    for case in planted(scans, "per_scan=3&ml=0.5-8"):
        loaded = load(case)
        number = int(case.id.split("hole-")[1][:2]) - 1
        low, high = (0.5 * 16 ** ((number + step) / 3) for step in (0, 1))
        assert 0.7 * low - VOXEL_ML <= loaded.volume_ml <= high + VOXEL_ML
        r = np.asarray(nib.load(case.image).dataobj)
        assert (loaded.mask & (r > 100)).sum() >= 0.95 * loaded.mask.sum()
        if "whole" in case.id:  # 15 mm below the skin, in a head of 0.95 times these half axes
            places = np.argwhere(loaded.mask) - (np.array(loaded.mask.shape) - 1) / 2
            assert (np.linalg.norm(places / (np.array(loaded.mask.shape) / 2), axis=1) < 0.95).all()


def test_the_same_settings_plant_the_same_holes_and_another_seed_others(scans: Path) -> None:
    first = planted(scans, "per_scan=2&seed=4&ml=1-6")
    again = planted(scans, "seed=4&per_scan=2&ml=1-6", "other")
    other = planted(scans, "per_scan=2&seed=5&ml=1-6", "third")
    assert [case.mask.read_bytes() for case in first] == [case.mask.read_bytes() for case in again]
    assert [case.digest for case in first] == [case.digest for case in again]
    assert all(a.mask.read_bytes() != b.mask.read_bytes() for a, b in zip(first, other, strict=True))


def test_a_scan_more_does_not_change_the_holes_of_the_others(scans: Path) -> None:
    before = {case.id: case.mask.read_bytes() for case in planted(scans, "per_scan=1&ml=2-3")}
    nib.save(image(head() * 2), scans / "0_T1w.nii.gz")
    after = {case.id: case.mask.read_bytes() for case in planted(scans, "per_scan=1&ml=2-3", "other")}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_the_settings_have_defaults(scans: Path) -> None:
    (scans / "whole_T1w.nii").unlink()
    cases = read_cases(f"planted:{scans}", scans.parent / "masks")
    same = planted(scans, "per_scan=4&seed=0&ml=0.1-100", "other")
    assert [case.id for case in cases] == [case.id for case in same]
    assert [case.digest for case in cases] == [case.digest for case in same]


def test_a_hole_that_has_no_place_is_refused(scans: Path) -> None:
    with pytest.raises(NeuromendError) as caught:
        planted(scans, "ml=2000-3000")
    assert (caught.value.code, caught.value.exit_status) == ("BM-07", 2)
    assert caught.value.path == scans / "a b_T1w.nii.gz"


def test_a_folder_without_t1_names_gives_all_its_scans(tmp_path: Path) -> None:
    nib.save(image(head()), tmp_path / "one.nii.gz")
    nib.save(image(head()), tmp_path / "two.nii.gz")
    assert len(read_cases(f"planted:{tmp_path}?per_scan=1&ml=1-2", tmp_path / "masks")) == 2


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("holes=3", "'holes'"),
        ("per_scan=0", "per_scan of 1 or more"),
        ("per_scan=two", "two"),
        ("ml=5-1", "smallest <= largest"),
        ("ml=0-1", "0 < smallest"),
        ("seed=-1", "seed of 0 or more"),
        ("ml", "ml"),
    ],
)
def test_wrong_settings_are_refused(query: str, word: str, scans: Path) -> None:
    with pytest.raises(NeuromendError) as caught:
        planted(scans, query)
    assert (caught.value.code, caught.value.exit_status) == ("BM-06", 2)
    assert word in caught.value.what
    assert query in caught.value.what


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_a_scan_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NeuromendError) as caught:
        read_cases(f"planted:{tmp_path / name}", tmp_path / "masks")
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("IN-38", 66, tmp_path / name)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    nib.save(image(head()), tmp_path / "scan.nii.gz")
    nib.save(image(ball()), tmp_path / "hole.nii.gz")
    tissue = np.where(head() > 750, 3, np.where(head() > 100, 2, 0)).astype(np.uint8)
    nib.save(image(tissue), tmp_path / "tissue.nii.gz")
    path = tmp_path / "cases.tsv"
    path.write_text(
        "mask\tid\timage\ttissue\tsite\n"
        "hole.nii.gz\tone\tscan.nii.gz\ttissue.nii.gz\t\n"
        "hole.nii.gz\ttwo\tscan.nii.gz\t\tmoon\n"
        "hole.nii.gz\tthree\tscan.nii.gz\t\t\n"
    )
    return path


def test_a_table_names_the_files_beside_it(table: Path, tmp_path: Path) -> None:
    cases = read_cases(str(table), tmp_path / "masks")
    assert [case.id for case in cases] == ["one", "two", "three"]
    assert [load(case).site for case in cases] == ["white-matter", "moon", ""]
    loaded = load(cases[0])
    assert loaded.healthy.dtype == np.float32
    assert np.array_equal(loaded.healthy, head())
    assert np.array_equal(loaded.mask, ball())
    assert loaded.volume_ml == pytest.approx(ball().sum() * VOXEL_ML)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("mask\tid", "mask\tname", "no column 'id'"),
        ("\tone\t", "\t\t", "line 2 has no id"),
        ("\ttwo\t", "\tone\t", "line 3 has the id 'one' for the second time"),
        ("\ttwo\t", "\t../two\t", "line 3 has the id '../two'"),
        ("two\tscan.nii.gz", "two\tgone.nii.gz", "line 3: there is no image"),
        ("tissue.nii.gz", "gone.nii.gz", "line 2: there is no tissue"),
        (None, "", "it lists no case"),
        (None, "id\timage\tmask\n", "it lists no case"),
        (None, "\udcff", "no text"),
    ],
)
def test_a_wrong_table_is_refused(old: str | None, new: str, word: str, table: Path) -> None:
    text = table.read_text()
    changed = new if old is None else text.replace(old, new, 1)
    table.write_bytes(changed.encode(errors="surrogateescape"))
    with pytest.raises(NeuromendError) as caught:
        read_cases(str(table), table.parent)
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("BM-05", 65, table)
    assert word in caught.value.what


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NeuromendError) as caught:
        read_cases(str(tmp_path / "gone.tsv"), tmp_path)
    assert (caught.value.code, caught.value.exit_status) == ("IN-38", 66)
    assert "planted:" in caught.value.fix


def test_a_mask_that_fill_would_refuse_is_refused(table: Path) -> None:
    nib.save(image(np.zeros_like(ball())), table.parent / "hole.nii.gz")
    with pytest.raises(NeuromendError) as caught:
        load(read_cases(str(table), table.parent)[0])
    assert caught.value.code == "MA-01"
