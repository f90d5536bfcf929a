from __future__ import annotations

from pathlib import Path

import pytest

from neuromend.errors import InputError, MissingInputError
from neuromend.pairing import case_file, case_folders, listed, pair_brats, pair_table

from .brats_cases import IDS, add_case, add_prediction, brain


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    for number, name in enumerate(IDS):
        add_case(tmp_path / "truth", name, number)
    return tmp_path / "truth"


def test_the_names_of_the_challenge_pair_predictions_with_cases(truths: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    for name in IDS:
        add_prediction(pred, name, brain())
    pairing = pair_brats(pred, truths)
    assert [pair.id for pair in pairing.pairs] == sorted(IDS)
    pair = pairing.pairs[0]
    assert pair.prediction == pred / f"{pair.id}-t1n-inference.nii.gz"
    assert pair.truth.name == f"{pair.id}-t1n.nii.gz"
    assert pair.mask.name == f"{pair.id}-mask-healthy.nii.gz"
    assert pair.voided is not None
    assert pair.voided.name == f"{pair.id}-t1n-voided.nii.gz"
    assert pair.tumour is not None
    assert (pair.tissue, pair.samples) == (None, ())
    assert (pairing.missing, pairing.extra) == ((), ())


def test_missing_and_extra_predictions_are_told(truths: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    add_prediction(pred, IDS[0], brain(), ".nii")
    stranger = add_prediction(pred, "BraTS-GLI-09999-000", brain())
    other = add_prediction(pred, "x", brain()).rename(pred / "filled.nii.gz")
    (pred / "scores.csv").write_text("not an image")
    (pred / ".hidden-t1n-inference.nii.gz").write_text("")
    pairing = pair_brats(pred, truths)
    assert [pair.id for pair in pairing.pairs] == [IDS[0]]
    assert pairing.missing == (IDS[1], IDS[2])
    assert pairing.extra == (stranger, other)


def test_two_predictions_for_one_case_are_refused(truths: Path, tmp_path: Path) -> None:
    for suffix in (".nii", ".nii.gz"):
        add_prediction(tmp_path / "pred", IDS[0], brain(), suffix)
    with pytest.raises(InputError, match=f"{IDS[0]} has two predictions") as caught:
        pair_brats(tmp_path / "pred", truths)
    assert (caught.value.code, caught.value.exit_status) == ("EV-05", 65)


@pytest.mark.parametrize("kind", ["t1n", "t1n-voided", "mask-healthy"])
def test_a_case_that_lacks_a_file_is_refused(truths: Path, tmp_path: Path, kind: str) -> None:
    add_prediction(tmp_path / "pred", IDS[0], brain())
    (truths / IDS[0] / f"{IDS[0]}-{kind}.nii.gz").unlink()
    with pytest.raises(MissingInputError, match=f"no file {IDS[0]}-{kind}.nii.gz") as caught:
        pair_brats(tmp_path / "pred", truths)
    assert (caught.value.code, caught.value.exit_status) == ("EV-04", 66)


def test_a_folder_without_cases_or_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some" / "other").mkdir(parents=True)
    with pytest.raises(MissingInputError, match="no case in this folder") as caught:
        case_folders(tmp_path / "some")
    assert (caught.value.code, caught.value.path) == ("EV-04", tmp_path / "some")
    with pytest.raises(MissingInputError, match="no such folder") as missing:
        pair_brats(tmp_path / "nowhere", tmp_path)
    assert (missing.value.code, missing.value.exit_status) == ("IN-38", 66)


def test_a_case_may_be_uncompressed(truths: Path) -> None:
    folder = truths / IDS[1]
    gone = folder / f"{IDS[1]}-t1n.nii.gz"
    gone.rename(folder / f"{IDS[1]}-t1n.nii")
    assert case_file(folder, IDS[1], "t1n").name == f"{IDS[1]}-t1n.nii"


def write_table(folder: Path, *lines: str) -> Path:
    table = folder / "pairs.tsv"
    table.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return table


def test_a_table_pairs_files_of_any_name(tmp_path: Path) -> None:
    add_prediction(tmp_path / "out", "a b", brain())
    for n in (2, 1):
        add_prediction(tmp_path / "draws", f"a_{n}", brain())
    table = write_table(
        tmp_path,
        "mask\tid\ttruth\tprediction\tsamples\ttissue",
        "m.nii\tone\tt.nii\tout/a b-t1n-inference.nii.gz\tdraws/a_*.nii.gz\t",
        "",
        f"m.nii\ttwo\tt.nii\t{tmp_path}/out/a b-t1n-inference.nii.gz\t{tmp_path}/draws/*\ttissue.nii",
        "m.nii\tthree\tt.nii\tnot there.nii\t\t",
    )
    pairing = pair_table(table)
    one, two = pairing.pairs
    assert (one.id, one.mask, one.tissue, one.voided) == ("one", tmp_path / "m.nii", None, None)
    assert [path.name for path in one.samples] == ["a_1-t1n-inference.nii.gz", "a_2-t1n-inference.nii.gz"]
    assert (two.prediction, two.samples) == (one.prediction, one.samples)
    assert two.tissue == tmp_path / "tissue.nii"
    assert pairing.missing == ("three",)


HEAD = "id\tprediction\ttruth\tmask"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "no column 'id'"),
        (["id\tprediction\ttruth", "a\tb\tc"], "no column 'mask'"),
        ([HEAD + "\ttisue", "a\tb\tc\td\te"], "a column 'tisue'"),
        ([HEAD + "\tid", "a\tb\tc\td\te"], "a column twice"),
        ([HEAD], "lists no case"),
        ([HEAD, "a\tb\tc"], "line 2 has 3 cells, the heading 4"),
        ([HEAD, "a\tb\t\td"], "line 2 has no truth"),
        ([HEAD, "a\tb\tc\td", "a\tb\tc\td"], "line 3 has the id 'a' for the second time"),
        ([HEAD + "\tsamples", "a\tb\tc\td\tnone_*"], r"line 2: 0 files match samples 'none_\*'"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    table = write_table(tmp_path, *lines)
    (tmp_path / "b").write_text("")
    with pytest.raises(InputError, match=message) as caught:
        pair_table(table)
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("EV-03", 65, table)


def test_a_table_that_is_no_text_or_is_not_there_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "pairs.tsv"
    with pytest.raises(MissingInputError) as missing:
        pair_table(table)
    assert (missing.value.code, missing.value.exit_status) == ("IN-38", 66)
    table.write_bytes(b"\xff\xfe\x00i")
    with pytest.raises(InputError, match="no text in UTF-8") as caught:
        pair_table(table)
    assert caught.value.code == "EV-03"


def test_long_lists_are_cut() -> None:
    assert listed("abc") == "a, b, c"
    assert listed(range(8), 2) == "0, 1 and 6 more"
