"""Which mask belongs to which scan: by names alone, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuromend.cohort.bids_app import read_filters
from neuromend.cohort.bids_layout import Match, Selection, find_matches
from neuromend.cohort.bids_names import fits, parse_name, says_lesion
from neuromend.errors import InputError, MissingInputError, NeuromendError

T1W = "sub-01/anat/sub-01_T1w.nii.gz"


def matches(root: Path, files: dict[str, str] | list[str], **chosen: object) -> dict[str, Match]:
    texts = files if isinstance(files, dict) else dict.fromkeys(files, "")
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    selection = Selection(**chosen)  # type: ignore[arg-type]
    return {match.id: match for match in find_matches(root, root / "derivatives" / "neuromend", selection)}


def chosen(match: Match) -> str:
    assert match.problem is None, match.problem
    assert match.mask is not None
    return match.mask.path.name


def problem(match: Match) -> NeuromendError:
    assert match.mask is None
    assert match.problem is not None
    return match.problem


@pytest.mark.parametrize(
    "mask",
    [
        "sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        "sub-01/anat/sub-01_label-lesion_roi.nii.gz",
        "sub-01/anat/sub-01_label-L_mask.nii",
        "sub-01/anat/sub-01_space-orig_label-tumor_mask.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_desc-tumor_mask.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_desc-lesion_mask.nii.gz",
        "derivatives/sub-01/anat/sub-01_space-T1w_desc-lesion_mask.nii.gz",
    ],
)
def test_lesion_masks_are_found_beside_the_scan_and_in_derivatives(mask: str, tmp_path: Path) -> None:
    found = matches(tmp_path, [T1W, mask, "sub-01/anat/sub-01_desc-brain_mask.nii.gz"])
    assert chosen(found["sub-01"]) == Path(mask).name


@pytest.mark.parametrize(
    ("table", "labels"),
    [
        ("index\tname\n3\tgrey\n7\tLesion\n", (7,)),
        ("index\tname\tabbreviation\n12\tstroke\tL\n2\ttumour\tT\n", (12, 2)),
        ("index\tname\tmapping\n9\tcavity\t7\n", (9,)),
        ("index\tname\n3\tgrey\n", None),
    ],
)
def test_a_label_map_is_a_lesion_mask_if_its_inherited_table_says_so(
    table: str, labels: tuple[int, ...] | None, tmp_path: Path
) -> None:
    files = {
        T1W: "",
        "derivatives/m/sub-01/anat/sub-01_desc-seg_dseg.nii.gz": "",
        "derivatives/m/dseg.tsv": table,
    }
    match = matches(tmp_path, files)["sub-01"]
    if labels is None:
        assert problem(match).code == "BD-03"
        assert "sub-01_desc-seg_dseg.nii.gz" in str(match.problem)
    else:
        assert (chosen(match), match.labels) == ("sub-01_desc-seg_dseg.nii.gz", labels)


def test_labels_of_the_user_go_before_the_table(tmp_path: Path) -> None:
    match = matches(tmp_path, [T1W, "sub-01/anat/sub-01_dseg.nii.gz"], any_dseg=True)["sub-01"]
    assert (chosen(match), match.labels) == ("sub-01_dseg.nii.gz", None)


def test_a_bad_table_is_the_fault_of_its_scan_alone(tmp_path: Path) -> None:
    files = {
        T1W: "",
        "sub-01/anat/sub-01_dseg.nii.gz": "",
        "sub-01/anat/sub-01_dseg.tsv": "index\tname\nseven\tlesion\n",
        "sub-02/anat/sub-02_T1w.nii.gz": "",
        "sub-02/anat/sub-02_label-lesion_mask.nii.gz": "",
    }
    found = matches(tmp_path, files)
    assert (problem(found["sub-01"]).code, problem(found["sub-01"]).exit_status) == ("BD-05", 65)
    assert "'seven'" in str(found["sub-01"].problem)
    assert chosen(found["sub-02"]) == "sub-02_label-lesion_mask.nii.gz"


def test_the_nearest_sidecar_decides_about_the_type(tmp_path: Path) -> None:
    files = {
        T1W: "",
        "sub-01/anat/sub-01_desc-a_mask.nii.gz": "",
        "desc-a_mask.json": '{"Type": "Lesion"}',
        "sub-01/anat/sub-01_desc-b_mask.nii.gz": "",
        "desc-b_mask.json": '{"Type": "Lesion"}',
        "sub-01/anat/sub-01_desc-b_mask.json": '{"Type": "Brain"}',
    }
    assert chosen(matches(tmp_path, files)["sub-01"]) == "sub-01_desc-a_mask.nii.gz"


def test_each_run_and_session_gets_its_own_mask(tmp_path: Path) -> None:
    names = [
        f"sub-01/ses-{session}/anat/sub-01_ses-{session}_run-{run}_{end}"
        for session in ("pre", "post")
        for run, end in ((1, "T1w.nii.gz"), (2, "T1w.nii.gz"), ("01", "label-lesion_mask.nii.gz"),
                         ("02", "label-lesion_mask.nii.gz"))
    ]  # fmt: skip
    found = matches(tmp_path, names)
    assert chosen(found["sub-01_ses-post_run-2"]) == "sub-01_ses-post_run-02_label-lesion_mask.nii.gz"
    assert chosen(found["sub-01_ses-pre_run-1"]) == "sub-01_ses-pre_run-01_label-lesion_mask.nii.gz"
    assert len(found) == 4
    assert found["sub-01_ses-pre_run-1"].folder.as_posix() == "sub-01/ses-pre/anat"
    only = matches(tmp_path, [], sessions=frozenset({"post"}))
    assert sorted(only) == ["sub-01_ses-post_run-1", "sub-01_ses-post_run-2"]


def test_a_mask_that_fits_two_scans_is_given_to_neither(tmp_path: Path) -> None:
    names = [f"sub-01/anat/sub-01_run-{run}_T1w.nii.gz" for run in (1, 2)]
    found = matches(tmp_path, [*names, "sub-01/anat/sub-01_label-lesion_mask.nii.gz"])
    for match in found.values():
        assert (problem(match).code, problem(match).exit_status) == ("BD-04", 65)
        assert "does not say which scan" in str(match.problem)


def test_two_masks_for_one_scan_are_named_and_a_filter_chooses(tmp_path: Path) -> None:
    names = [T1W, *(f"sub-01/anat/sub-01_label-lesion_desc-{who}_mask.nii.gz" for who in ("ann", "bob"))]
    match = matches(tmp_path, names)["sub-01"]
    assert (problem(match).code, problem(match).path) == ("BD-04", tmp_path / T1W)
    assert "desc-ann_mask" in str(match.problem)
    assert "desc-bob_mask" in str(match.problem)
    again = matches(tmp_path, [], mask={"desc": "bob"})["sub-01"]
    assert chosen(again) == "sub-01_label-lesion_desc-bob_mask.nii.gz"


@pytest.mark.parametrize(
    "mask",
    [
        "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_label-lesion_mask.nii.gz",
        "sub-01/anat/sub-01_acq-flair_label-lesion_mask.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz",
        "derivatives/neuromend/sub-01/anat/sub-01_label-L_mask.nii.gz",
    ],
)
def test_masks_of_other_scans_grids_and_of_ours_are_left(mask: str, tmp_path: Path) -> None:
    match = matches(tmp_path, [T1W, mask])["sub-01"]
    assert (problem(match).code, problem(match).exit_status) == ("BD-03", 66)
    assert (Path(mask).name in str(match.problem)) == mask.startswith("sub-01/anat")


def test_broken_links_are_found_so_that_the_fill_can_tell_how_to_fetch_them(tmp_path: Path) -> None:
    scan = tmp_path / T1W
    scan.parent.mkdir(parents=True)
    for name in ("sub-01_T1w.nii.gz", "sub-01_label-lesion_mask.nii.gz"):
        (scan.parent / name).symlink_to("../../.git/annex/objects/aa/bb/MD5E-s1--c.nii.gz")
    assert chosen(matches(tmp_path, [])["sub-01"]) == "sub-01_label-lesion_mask.nii.gz"


def test_derivatives_and_phase_images_are_no_scans(tmp_path: Path) -> None:
    names = ["sub-01_desc-preproc_T1w.nii.gz", "sub-01_part-phase_T1w.nii.gz", "sub-01_T1w.json", "notes.txt"]
    found = matches(tmp_path, [T1W, *(f"sub-01/anat/{name}" for name in names)])
    assert list(found) == ["sub-01"]


@pytest.mark.parametrize(
    ("files", "options", "code", "named"),
    [
        (["README"], {}, "BD-01", "no subject"),
        (["sub-01/anat/sub-01_T2w.nii.gz"], {}, "BD-01", "no T1-weighted scan"),
        ([T1W], {"participants": frozenset({"1", "01"})}, "BD-02", "no sub-1 here; there are sub-01"),
        ([T1W], {"sessions": frozenset({"x"})}, "BD-02", "no ses-x"),
        ([T1W], {"derivatives": (Path("not-there"),)}, "IN-38", "not-there"),
    ],
)
def test_what_is_not_there_is_told(
    files: list[str], options: dict[str, object], code: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(MissingInputError) as caught:
        matches(tmp_path, files, **options)
    assert (caught.value.code, caught.value.exit_status) == (code, 66)
    assert named in str(caught.value)


def test_a_filter_file_gives_filters_of_scans_and_masks(tmp_path: Path) -> None:
    path = tmp_path / "filter.json"
    path.write_text('{"lesion": {"desc": "bob", "space": null}}')
    assert read_filters(path) == ({}, {"desc": "bob", "space": None})


@pytest.mark.parametrize("content", ["{", "[]", '{"bold": {}}', '{"t1w": {"run": 1}}'])
def test_a_wrong_filter_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "filter.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_filters(path)
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("BD-10", 65, path)


def test_names_are_taken_apart() -> None:
    name = parse_name("sub-01_ses-2_run-01_T1w.nii.gz")
    assert name is not None
    assert (name.stem, name.suffix, name.extension) == ("sub-01_ses-2_run-01", "T1w", ".nii.gz")
    assert parse_name("sub-01_sub-02_T1w.nii.gz") is None
    assert parse_name("sub-01_T1w") is None
    mask = parse_name("sub-01_ses-2_run-1_mod-T1w_label-Lesion_mask.nii")
    assert mask is not None
    assert says_lesion(mask)
    assert fits(name, mask)
