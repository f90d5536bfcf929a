"""Which cases a list or a folder has, and what is wrong with a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuromend.cohort.listing import find_cases, read_list
from neuromend.errors import InputError, MissingInputError

HEAD = "id\timage\tmask\n"


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.tsv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_paths_of_a_list_start_at_its_folder_and_other_columns_do_not_matter(tmp_path: Path) -> None:
    text = "age\tmask\tid\timage\n31\tm/a.nii.gz\tA 1\tt1/a.mgz\n\n40\t/far/b.nii\tB\t/far/t.nii.gz\n"
    cases = read_list(table(tmp_path, "\ufeff" + text), tmp_path / "out")
    assert len(cases) == 2
    first, second = cases
    assert (first.id, first.image, first.mask) == ("A 1", tmp_path / "t1/a.mgz", tmp_path / "m/a.nii.gz")
    assert first.out == tmp_path / "out/A 1/A 1_inpainted.mgz"
    assert (second.image, second.mask) == (Path("/far/t.nii.gz"), Path("/far/b.nii"))
    assert list(cases) == [first, second], "a list can be read again"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no column 'id'; found: nothing"),
        ("id,image,mask\na,b,c\n", "no column 'id'; found: id,image,mask"),
        ("id\timage\nA\ta\n", "no column 'mask'"),
        ("id\tid\timage\tmask\nA\tA\ta\tb\n", "two columns 'id'"),
        (HEAD, "it lists no case"),
        (HEAD + "A\ta.nii\tm.nii\nB\tb.nii\n", "line 3 has 2 cells, the heading 3"),
        (HEAD + "A\t\tm.nii\n", "line 2 has no image"),
        (
            HEAD + "A\ta.nii\tm.nii\nB\tb.nii\tm.nii\na\tc.nii\tm.nii\n",
            "line 4 has the id 'a', as line 2 has",
        ),
        (HEAD + "../A\ta.nii\tm.nii\n", "line 2: the id '../A' cannot name a folder"),
        (HEAD + ".A\ta.nii\tm.nii\n", "line 2: the id '.A' cannot name a folder"),
        (HEAD + "x" * 201 + "\ta.nii\tm.nii\n", "cannot name a folder"),
        (b"id\timage\tmask\nA\t\xff\xfe\tm\n", "no text in UTF-8"),
    ],
)
def test_a_bad_list_is_refused_and_the_line_named(tmp_path: Path, text: str | bytes, named: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_list(path, tmp_path / "out")
    assert (caught.value.code, caught.value.exit_status) == ("CO-01", 65)
    assert named in caught.value.what
    assert "id, image, mask" in caught.value.what
    assert caught.value.path == path


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="IN-38") as caught:
        read_list(tmp_path / "no.tsv", tmp_path / "out")
    assert caught.value.path == tmp_path / "no.tsv"


def test_masks_are_found_beside_their_scans(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "a_lesion.nii.gz", "b.mgz", "b_lesion_mask.mgz", "c.nii", "c-mask.nii.gz")
    touch(tmp_path, "d.nii.gz", "a_inpainted.nii.gz", ".e.nii.gz", "notes.txt")
    found = find_cases(tmp_path, tmp_path / "out")
    assert [(case.id, case.image.name, case.mask.name) for case in found.cases] == [
        ("a", "a.nii.gz", "a_lesion.nii.gz"),
        ("b", "b.mgz", "b_lesion_mask.mgz"),
        ("c", "c.nii", "c-mask.nii.gz"),
    ]
    (passed,) = found.findings
    assert (passed.code, passed.level) == ("CO-02", "warning")
    assert "d.nii.gz" in passed.message


def test_a_folder_a_subject_is_found(tmp_path: Path) -> None:
    touch(tmp_path, "P1/T1.nii.gz", "P1/tumor_seg.nii.gz", "P2/t1.nii", "P2/t1_mask.nii")
    touch(tmp_path, "P3/v1.nii", "P3/v1_roi.nii", "P3/v2.nii", "P3/v2_roi.nii", "P4/T1.nii", "P4/T2.nii")
    touch(tmp_path, "out/P1/P1_inpainted.nii.gz", "out/P1/P1_inpainted_mask.nii.gz")
    found = find_cases(tmp_path, tmp_path / "out")
    assert [case.id for case in found.cases] == ["P1", "P2", "P3_v1", "P3_v2"]
    assert found.cases[0].mask == tmp_path / "P1/tumor_seg.nii.gz"
    assert "P4" in found.findings[0].message
    assert not found.label_maps


def test_brats_folders_are_found(tmp_path: Path) -> None:
    one, two = "BraTS-GLI-00001-000", "BraTS-GLI-00002-000"
    touch(tmp_path, *(f"{one}/{one}-{kind}.nii.gz" for kind in ("t1n", "t1n-voided", "mask", "mask-healthy")))
    touch(tmp_path, *(f"{two}/{two}-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2f", "seg")))
    found = find_cases(tmp_path, tmp_path / "out")
    assert [(case.image.name, case.mask.name) for case in found.cases] == [
        (f"{one}-t1n-voided.nii.gz", f"{one}-mask.nii.gz"),
        (f"{two}-t1n.nii.gz", f"{two}-seg.nii.gz"),
    ]
    assert found.label_maps


def test_a_folder_without_cases_and_a_bids_dataset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="CO-02") as caught:
        find_cases(tmp_path, tmp_path / "out")
    assert caught.value.exit_status == 66
    assert "LIST.tsv" in caught.value.fix
    touch(tmp_path, "dataset_description.json", "a.nii", "a_mask.nii")
    with pytest.raises(MissingInputError, match="CO-02") as caught:
        find_cases(tmp_path, tmp_path / "out")
    assert "neuromend bids" in caught.value.fix
