"""From a raw data set to the cache: every layout, every refusal, and what a second run does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neuromend.cli import main
from neuromend.corpus.cache import MANIFEST, CaseCache
from neuromend.corpus.layouts import find_cases
from neuromend.errors import InputError, MissingInputError, NeuromendError, OutputError, UsageError
from neuromend.prepare import Prepared, prepare

from .corpus.brains import affine, ball, brain, brats_case, save

ROWS = "id\tsubject\tsplit\timage\n"


def table(folder: Path, *rows: tuple[str, ...], head: str = ROWS) -> Path:
    """A table of cases."""
    path = folder / "cases.tsv"
    path.write_text(head + "".join("\t".join(row) + "\n" for row in rows))
    return path


def people(folder: Path, count: int) -> list[tuple[str, ...]]:
    """Rows of a table, one healthy brain each; the first is in dev."""
    rows = []
    for seed in range(count):
        save(folder / f"p{seed}.nii.gz", brain(seed))
        rows.append((f"p{seed}", f"person-{seed}", "train" if seed else "dev", f"p{seed}.nii.gz"))
    return rows


def prepared(dataset: Path, out: Path, **settings: Any) -> tuple[Prepared, CaseCache]:
    """Prepare and open."""
    done = prepare(dataset, out, **settings)
    cache = CaseCache.open(out)
    assert cache.digest == done.digest
    assert len(list(cache.verify())) == len(cache.cases)
    return done, cache


def test_the_challenge_layout_is_prepared(tmp_path: Path) -> None:
    data = tmp_path / "data"
    brats_case(data, "BraTS-GLI-00001-000", 1)
    brats_case(data, "BraTS-GLI-00002-000", 2, healthy=False, lesion=False)
    blind = "BraTS-GLI-00003-000"
    save(data / blind / f"{blind}-t1n-voided.nii.gz", brain(3))
    done, cache = prepared(data, tmp_path / "out", dev_share=0, test_share=0)
    first, second = cache.rows("train")
    assert (first.subject, first.masks, first.has_lesion) == ("BraTS-GLI-00001", ("healthy",), True)
    assert (second.masks, second.has_lesion) == ((), False)
    assert done.summary.without_image == (blind,)
    (warning,) = [f for f in done.findings if f.code == "TR-11"]
    assert warning.message.startswith("BraTS-GLI-00002-000: no mask-unhealthy and no seg (1 of 2 cases)")
    case = cache.load(first)
    assert case.lesion is not None
    assert not (case.lesion & case.masks["healthy"]).any()
    assert case.masks["healthy"].sum() == ball((12, 24, 20), 3).sum()
    assert done.summary.splits["train"]["subjects"] == 2
    page = (tmp_path / "out" / "prepare.md").read_text()
    assert done.digest in page
    assert "| train | 2 | 2 |" in page


def test_the_cached_scan_is_the_scan_turned_to_ras_without_its_air(tmp_path: Path) -> None:
    voxels = np.pad(brain(1), ((4, 0), (0, 3), (5, 1)))
    # Stored as (R-L, S, A-P): the first axis is reversed, the others are swapped, one of them reversed.
    stored = np.swapaxes(voxels[::-1], 1, 2)[:, :, ::-1]
    matrix = affine() @ np.array([[-1, 0, 0, 43], [0, 0, -1, 50], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    save(tmp_path / "a.nii.gz", voxels)
    save(tmp_path / "b.nii.gz", stored, matrix)
    rows = [("a", "one", "dev", "a.nii.gz"), ("b", "one", "dev", "b.nii.gz")]
    _, cache = prepared(table(tmp_path, *rows), tmp_path / "out")
    one, other = (cache.load(row) for row in cache.cases)
    assert np.array_equal(one.healthy, other.healthy)
    assert np.allclose(one.row.affine, other.row.affine, atol=1e-5)
    assert one.row.spacing_mm == pytest.approx((4, 4, 4))
    assert all(cached < size for cached, size in zip(one.row.shape, voxels.shape, strict=True))
    start = np.linalg.inv(affine()) @ np.array(one.row.affine)[:, 3]
    corner = tuple(slice(round(s), round(s) + n) for s, n in zip(start[:3], one.row.shape, strict=True))
    scan = (voxels[corner] - one.row.intensity_low) / (one.row.intensity_high - one.row.intensity_low)
    assert np.allclose(one.normalised(), np.clip(scan, 0, None), atol=1e-3)
    assert np.array_equal(one.healthy > 0, voxels[corner] > 0)
    assert one.row.mirror is not None
    assert np.allclose(np.array(one.row.mirror) @ one.row.mirror, np.eye(4), atol=1e-6)


def test_bytes_whose_air_is_zero_are_stored_as_they_are(tmp_path: Path) -> None:
    voxels = (brain(2) // 5).astype(np.uint8)
    save(tmp_path / "a.nii.gz", voxels)
    _, cache = prepared(table(tmp_path, ("a", "a", "dev", "a.nii.gz")), tmp_path / "out")
    case = cache.load(cache.cases[0])
    assert case.healthy.dtype == np.uint8
    assert case.healthy.sum() == voxels.sum()
    assert case.row.stored_scale == case.row.intensity_high


def test_a_bids_data_set_is_prepared(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed, (subject, session) in enumerate([("sub-a", "ses-1"), ("sub-a", "ses-2"), ("sub-b", "ses-1")]):
        name = f"{subject}_{session}"
        save(data / subject / session / "anat" / f"{name}_T1w.nii.gz", brain(seed))
        save(data / subject / session / "anat" / f"{name}_ce-gd_T1w.nii.gz", brain(seed))
        if session == "ses-2" or subject == "sub-b":
            masks = data / "derivatives" / "drawn" / subject / session / "anat"
            save(masks / f"{name}_label-lesion_mask.nii.gz", ball((28, 24, 20), 4))
            save(masks / f"{name}_space-MNI152_label-lesion_mask.nii.gz", ball((28, 24, 20), 4))
    (data / "participants.tsv").write_text("participant_id\tsplit\nsub-a\ttest\nsub-b\tn/a\n")
    _, cache = prepared(data, tmp_path / "out", dev_share=0, test_share=0)
    found = [(row.id, row.subject, row.split, row.has_lesion) for row in cache.cases]
    assert found == [
        ("sub-a_ses-1", "sub-a", "test", False),
        ("sub-a_ses-2", "sub-a", "test", True),
        ("sub-b_ses-1", "sub-b", "train", True),
    ]


def test_two_lesion_masks_for_one_scan_are_not_guessed_between(tmp_path: Path) -> None:
    anat = tmp_path / "sub-a" / "anat"
    save(anat / "sub-a_T1w.nii.gz", brain(0))
    for who in ("x", "y"):
        save(anat / f"sub-a_desc-{who}_label-lesion_mask.nii.gz", ball((28, 24, 20), 4))
    (source,) = find_cases(tmp_path).sources
    assert source.refusal is not None
    assert source.refusal.code == "TR-06"
    assert "2 lesion masks" in source.refusal.what


def test_a_plain_folder_is_prepared(tmp_path: Path) -> None:
    data = tmp_path / "data"
    save(data / "one_T1w.nii.gz", brain(1))
    save(data / "one_lesion.nii.gz", ball((28, 24, 20), 4))
    save(data / "one_tissue.nii.gz", (brain(1) // 200).astype(np.uint8))
    save(data / "two (1).nii", brain(2))
    _, cache = prepared(data, tmp_path / "out", dev_share=0, test_share=0)
    one, two = cache.cases
    assert (one.id, one.has_lesion, one.has_tissue) == ("one", True, True)
    assert (two.id, two.has_lesion, two.has_tissue) == ("two--1-", False, False)
    case = cache.load(one)
    assert case.tissue is not None
    assert case.tissue.max() == brain(1).max() // 200


def test_label_maps_and_registrations_of_a_table_are_kept(tmp_path: Path) -> None:
    classes = (brain(5) // 150).astype(np.uint8)
    save(tmp_path / "labels.nii.gz", classes)
    save(tmp_path / "a.nii.gz", brain(1))
    turn = [[1.0, 0, 0, 2], [0, 1.1, 0, -3], [0, 0, 0.9, 1], [0, 0, 0, 1]]
    np.savetxt(tmp_path / "mni.txt", turn)
    head = "id\timage\tkind\tmni\tsplit\n"
    rows = [("a", "a.nii.gz", "", "mni.txt", "dev"), ("l", "labels.nii.gz", "labels", "", "train")]
    done, cache = prepared(table(tmp_path, *rows, head=head), tmp_path / "out")
    scan, labels = cache.cases
    assert np.allclose(scan.to_mni, np.linalg.inv(turn) @ np.array(scan.affine))
    assert labels.kind == "labels"
    assert cache.load(labels).healthy.max() == classes.max()
    assert (labels.to_mni, labels.stored_scale) == (None, 1.0)
    assert [f.code for f in done.findings if "'train'" in f.message] == [
        "TR-10"
    ]  # label maps alone are no scans


def test_a_second_run_keeps_what_is_done(tmp_path: Path) -> None:
    rows = people(tmp_path, 3)
    first, cache = prepared(table(tmp_path, *rows), tmp_path / "out")
    times = {row.id: cache.path(row).stat().st_mtime_ns for row in cache.cases}
    save(tmp_path / "p1.nii.gz", brain(7))  # another content
    damaged = bytearray(cache.path(cache.cases[2]).read_bytes())
    damaged[100] ^= 1
    cache.path(cache.cases[2]).write_bytes(damaged)
    second, again = prepared(table(tmp_path, *rows), tmp_path / "out")
    assert (first.summary.made, first.summary.kept) == (3, 0)
    assert (second.summary.made, second.summary.kept) == (2, 1)
    assert again.path(again.cases[0]).stat().st_mtime_ns == times["p0"]
    assert second.digest != first.digest


def test_equal_data_give_an_equal_digest_with_any_number_of_processes(tmp_path: Path) -> None:
    cases = table(tmp_path, *people(tmp_path, 2))
    first, _ = prepared(cases, tmp_path / "1")
    second, _ = prepared(cases, tmp_path / "2", workers=2)
    assert first.digest == second.digest


def test_a_case_that_is_no_longer_listed_is_removed(tmp_path: Path) -> None:
    rows = people(tmp_path, 3)
    prepared(table(tmp_path, *rows), tmp_path / "out")
    done, cache = prepared(table(tmp_path, *rows[:2]), tmp_path / "out")
    assert [row.id for row in cache.cases] == ["p0", "p1"]
    assert done.summary.removed == 1
    assert sorted(path.name for path in (tmp_path / "out" / "cases").iterdir()) == [
        "p0.bin", "p0.json", "p1.bin", "p1.json",
    ]  # fmt: skip


def test_a_half_written_case_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = table(tmp_path, *people(tmp_path, 2))
    out = tmp_path / "out"
    prepare(cases, out)
    data = out / "cases" / "p1.bin"
    data.write_bytes(data.read_bytes()[:-50])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neuromend.prepare.write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(cases, out)
    with pytest.raises(MissingInputError) as caught:
        CaseCache.open(out)  # the manifest went first and comes last
    assert caught.value.code == "TR-07"
    monkeypatch.undo()
    done, _ = prepared(cases, out)
    assert done.summary.kept == 2  # the damaged one was made anew before the kill


# One bad file a way: how it is made bad, its code, and what its message names.
BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-2000]), "IN-02", "truncated"),
    "empty": (lambda p: p.write_bytes(b""), "IN-01", "empty"),
    "text": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "IN-05", "git lfs"),
    "gone": (lambda p: p.unlink(), "IN-38", ""),
    "constant": (lambda p: save(p, np.full((40, 48, 42), 7, np.int16)), "IN-16", "7"),
    "not finite": (lambda p: save(p, np.where(brain(9) > 600, np.nan, brain(9))), "IN-15", "not finite"),
    "a series": (lambda p: save(p, np.stack([brain(9)] * 2, axis=3)), "IN-12", "2 volumes"),
}


def test_bad_files_are_quarantined_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = people(tmp_path, 2)
    for number, (spoil, _, _) in enumerate(BAD.values()):
        spoil(save(tmp_path / f"bad{number}.nii.gz", brain(20 + number)))
        rows.append((f"bad{number}", f"bad{number}", "train", f"bad{number}.nii.gz"))
    done, cache = prepared(table(tmp_path, *rows), tmp_path / "out", allow=0.9)
    assert [row.id for row in cache.cases] == ["p0", "p1"]
    listed = [line.split("\t") for line in (tmp_path / "out" / "quarantine.tsv").read_text().splitlines()[1:]]
    assert len(listed) == len(BAD) == done.summary.refused
    for number, ((_, code, word), line) in enumerate(zip(BAD.values(), listed, strict=True)):
        assert line[:3] == [f"bad{number}", f"bad{number}.nii.gz", code]
        assert word.lower() in line[3].lower() or word == "git lfs"


def test_too_many_bad_cases_stop_the_preparation(tmp_path: Path) -> None:
    rows = people(tmp_path, 3)
    (tmp_path / "p1.nii.gz").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        prepare(table(tmp_path, *rows), tmp_path / "out")
    assert (caught.value.code, caught.value.exit_status) == ("TR-06", 65)
    for part in ("1 of 3", "p1", "IN-01", "5%"):
        assert part in caught.value.what
    assert "--allow 0.34" in caught.value.fix
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert "IN-01" in (tmp_path / "out" / "quarantine.tsv").read_text()


def test_a_fault_that_nobody_foresaw_is_quarantined_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object) -> None:
        raise ZeroDivisionError("a surprise")

    rows = people(tmp_path, 2)
    prepare(table(tmp_path, rows[0]), tmp_path / "out")
    monkeypatch.setattr("neuromend.corpus.preparing.read_volume", surprise)
    done = prepare(table(tmp_path, *rows), tmp_path / "out", allow=0.5)
    (bad,) = done.refused
    assert (bad.id, bad.code, bad.message) == ("p1", "TR-06", "ZeroDivisionError: a surprise")


def test_a_mask_of_healthy_tissue_on_the_lesion_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed, name in enumerate(("BraTS-GLI-00001-000", "BraTS-GLI-00002-000")):
        brats_case(data, name, seed)
    overlapping = data / name / f"{name}-mask-healthy.nii.gz"
    save(overlapping, ball((24, 24, 20), 3))
    done, cache = prepared(data, tmp_path / "out", dev_share=0, test_share=0, allow=0.5)
    assert [row.id for row in cache.cases] == ["BraTS-GLI-00001-000"]
    (bad,) = done.refused
    assert (bad.code, bad.file) == ("TR-11", overlapping.name)
    common = int((ball((24, 24, 20), 3) & ball((28, 24, 20), 4)).sum())
    assert f"{common} voxels" in bad.message


def copies(tmp_path: Path, how: str) -> Path:
    """A table of three persons and a copy of the dev one among the train ones."""
    rows = people(tmp_path, 3)
    voxels, matrix = brain(0), affine()
    if how == "turned":
        voxels, matrix = (
            voxels[::-1],
            affine() @ np.array([[-1, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
        )
    elif how == "noisy, re-scaled and padded":
        noise = np.random.default_rng(1).normal(0, 25, voxels.shape)
        voxels = np.pad(np.where(voxels > 0, 3 * voxels + noise, 0), ((5, 0), (0, 7), (2, 2))).astype(
            np.int16
        )
    save(tmp_path / "copy.nii.gz", voxels, matrix)
    return table(tmp_path, *rows, ("copy", "somebody", "train", "copy.nii.gz"))


@pytest.mark.parametrize("how", ["turned", "noisy, re-scaled and padded"])
def test_a_copied_brain_on_two_sides_is_refused(tmp_path: Path, how: str) -> None:
    with pytest.raises(InputError) as caught:
        prepare(copies(tmp_path, how), tmp_path / "out")
    assert (caught.value.code, caught.value.exit_status) == ("TR-08", 65)
    for part in ("copy (train)", "p0 (dev)", "correlation"):
        assert part in caught.value.what
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert (tmp_path / "out" / "alike.tsv").read_text().splitlines()[1].startswith("copy\ttrain\tp0\tdev\t")


def test_the_same_file_in_dev_and_train_is_refused(tmp_path: Path) -> None:
    cases = copies(tmp_path, "as it is")
    (tmp_path / "copy.nii.gz").write_bytes((tmp_path / "p0.nii.gz").read_bytes())
    with pytest.raises(InputError) as caught:
        prepare(cases, tmp_path / "out")
    assert (caught.value.code, caught.value.exit_status) == ("TR-10", 65)
    assert "the same file" in caught.value.what


def test_a_copied_brain_inside_a_split_is_warned_of(tmp_path: Path) -> None:
    cases = copies(tmp_path, "turned")
    subjects = tmp_path / "subjects.tsv"
    subjects.write_text("subject\tsplit\nperson-0\ttrain\nperson-1\tdev\n")
    done, cache = prepared(cases, tmp_path / "out", subjects=subjects)
    (finding,) = [f for f in done.findings if f.code == "TR-09"]
    assert finding.level == "warning"
    assert "copy (train) and p0 (train)" in finding.message
    assert {row.id: row.split for row in cache.cases}["p1"] == "dev"


def test_scans_of_one_subject_may_be_alike(tmp_path: Path) -> None:
    cases = copies(tmp_path, "turned")
    cases.write_text(cases.read_text().replace("somebody\ttrain", "person-0\tdev"))
    done, _ = prepared(cases, tmp_path / "out")
    assert not [f for f in done.findings if f.code == "TR-09"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("id\timage\na\tx.nii\nA\ty.nii\n", "the id 'A'"),
        ("id\tpicture\na\tx.nii\n", "'image'"),
        ("id\timage\tcolour\na\tx.nii\tred\n", "'colour'"),
        ("id\timage\tsplit\na\tx.nii\tvalidation\n", "'validation'"),
        ("id\timage\tkind\na\tx.nii\tmap\n", "'map'"),
        ("id\timage\n../a\tx.nii\n", "'../a'"),
        ("id\timage\na\n", "1 cells"),
        ("id\timage\na\t\n", "no image"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "cases.tsv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        prepare(path, tmp_path / "out")
    assert (caught.value.code, caught.value.exit_status, caught.value.path) == ("TR-06", 65, path)
    assert word in caught.value.what


@pytest.mark.parametrize(
    ("text", "code"),
    [("subject\tsplit\na\ttrain\na\tdev\n", "TR-10"), ("subject\tsplit\na\tx\n", "TR-06"), ("a\n", "TR-06")],
)
def test_a_wrong_table_of_subjects_is_refused(tmp_path: Path, text: str, code: str) -> None:
    subjects = tmp_path / "subjects.tsv"
    subjects.write_text(text)
    with pytest.raises(InputError) as caught:
        prepare(table(tmp_path, *people(tmp_path, 1)), tmp_path / "out", subjects=subjects)
    assert (caught.value.code, caught.value.path) == (code, subjects)


def test_nothing_to_prepare_is_said(tmp_path: Path) -> None:
    for dataset, code in ((tmp_path / "nowhere", "IN-38"), (tmp_path, "TR-06")):
        with pytest.raises(MissingInputError) as caught:
            prepare(dataset, tmp_path / "out")
        assert (caught.value.code, caught.value.exit_status, caught.value.path) == (code, 66, dataset)


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    save(out / "precious.nii.gz", brain(1))
    with pytest.raises(OutputError) as caught:
        prepare(table(tmp_path, *people(tmp_path, 1)), out)
    assert (caught.value.code, caught.value.exit_status) == ("RT-04", 73)
    assert [path.name for path in out.iterdir()] == ["precious.nii.gz"]


@pytest.mark.parametrize("settings", [{"workers": 0}, {"allow": 1.5}, {"allow": float("nan")}])
def test_numbers_that_mean_nothing_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        prepare(tmp_path, tmp_path / "out", **settings)
    assert (caught.value.code, caught.value.exit_status) == ("TR-06", 2)


def test_a_tissue_map_of_another_grid_or_kind_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", brain(1))
    matrix = affine()
    matrix[0, 3] += 9
    save(tmp_path / "shifted.nii.gz", brain(1) // 200, matrix)
    save(tmp_path / "graded.nii.gz", brain(1) / 200)
    head = "id\timage\ttissue\n"
    rows = [("a", "a.nii.gz", "shifted.nii.gz"), ("b", "a.nii.gz", "graded.nii.gz"), ("c", "a.nii.gz", "")]
    done = prepare(table(tmp_path, *rows, head=head), tmp_path / "out", allow=0.9, dev_share=0, test_share=0)
    assert [(bad.id, bad.code) for bad in done.refused] == [("a", "MA-09"), ("b", "MA-06")]


def test_the_command_prepares_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = table(tmp_path, *people(tmp_path, 2))
    assert main(["prepare", str(cases), "--out", str(tmp_path / "out"), "--workers", "1", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["summary"]["splits"]["dev"]["scans"] == 1
    assert content["summary"] == json.loads((tmp_path / "out" / "prepare.json").read_text())
    (tmp_path / "p1.nii.gz").write_bytes(b"")
    assert main(["prepare", str(cases), "--out", str(tmp_path / "out"), "--strict", "--workers", "1"]) == 65
    assert "[TR-06]" in capsys.readouterr().err


def test_a_whole_head_keeps_its_box_and_its_dark_voxels(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    head = np.abs(brain(1) + rng.normal(0, 15, brain(1).shape)).astype(np.float32)
    nib.save(nib.Nifti1Image(head, affine()), tmp_path / "head.nii.gz")
    _, cache = prepared(table(tmp_path, ("h", "h", "dev", "head.nii.gz")), tmp_path / "out")
    case = cache.load(cache.cases[0])
    assert case.healthy.dtype == np.uint16
    assert 0.8 < np.quantile(case.normalised(), 0.99) < 1.2


def test_errors_of_the_disk_are_not_taken_for_bad_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("RT-01", "no folder", why="a test", fix="none")

    monkeypatch.setattr("neuromend.corpus.preparing.write_files", full)
    with pytest.raises(NeuromendError) as caught:
        prepare(table(tmp_path, *people(tmp_path, 1)), tmp_path / "out", allow=1)
    assert caught.value.code == "RT-01"
