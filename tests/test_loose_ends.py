"""Rows of the catalogue of faults that need the whole way through the command line.

Names of files (IN-38), large fields of view (IN-33), scans filled before (IN-41), the mask in the record (MA-15,
MA-20), results that are kept (RT-05), strange environments (RT-20 to RT-23) and what a record must hold (RT-25).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import neuromend
from neuromend import cli
from neuromend.data.masks import MaskOptions
from neuromend.doctor import synthetic_head
from neuromend.filling import frame_of
from neuromend.reading import ReadOptions, load_pair

from .filling_cases import save_network

Run = Callable[..., tuple[int, str, str]]
AFFINE = np.diag([5.5, 6.0, 6.5, 1.0])


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # main() sets it for the process; here that is pytest's


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command and returns its exit status, stdout and stderr."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return command


def small_head() -> tuple[np.ndarray, np.ndarray]:
    """A brain and a lesion in it."""
    scan, mask = (np.asarray(image.dataobj)[::3, ::3, ::3] for image in synthetic_head())
    return scan, mask


def write(path: Path, voxels: np.ndarray) -> Path:
    """One NIfTI file under any name, which nibabel would not write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(nib.Nifti1Image(voxels, AFFINE).to_bytes())
    return path


def pair(folder: Path, stem: str = "head_T1w") -> tuple[Path, Path]:
    scan, mask = small_head()
    return write(folder / f"{stem}.nii", scan), write(folder / f"{stem}_lesion.nii", mask)


@pytest.mark.parametrize(
    "name",
    [
        "with space", "it's \"quoted\"", "two\nlines", "tab\there", "Gehirn-ß-脑-🧠", "e\u0301", "-dash", "~tilde",
        "[red]$HOME;`x`\\n&%s{0}*?", "a.nii.b", os.fsdecode(b"latin-\xe9"), "x" * 200,
    ],
    ids=lambda name: ascii(name)[:20],
)  # fmt: skip
def test_every_legal_name_goes_through_the_command_line(run: Run, tmp_path: Path, name: str) -> None:
    """IN-38: as folder, scan, mask and output; every output is there under the name that was printed."""
    folder = tmp_path / name
    scan, mask = pair(folder, name)
    words = (
        "fill",
        "-i",
        scan,
        "-m",
        mask,
        "-o",
        folder / "out" / f"{name}.nii",
        "--model",
        "ring-mean",
        "--json",
    )
    status, out, err = run(*words)
    assert status == 0, err
    outputs = {role: Path(path) for role, path in json.loads(out)["outputs"].items()}
    assert outputs["filled"] == folder / "out" / f"{name}.nii"
    assert set((folder / "out").iterdir()) == set(outputs.values())
    record = json.loads(outputs["record"].read_text(encoding="utf-8"))
    shown = f"{name}.nii".encode("utf-8", "replace").decode()
    assert record["image"]["file"] == shown
    assert run(*words, "--skip-existing", "--overwrite")[0] == 0


def test_a_huge_field_of_view_costs_no_more_than_its_head(tmp_path: Path) -> None:
    """IN-33: the model sees the head, the lesion and some air around."""
    scan, mask = small_head()
    shapes = []
    for number, air in enumerate((0, 30)):
        files = [
            write(tmp_path / f"{number}{i}.nii", np.pad(part, air)) for i, part in enumerate((scan, mask))
        ]
        loaded, lesion, _ = load_pair(files[0], files[1], MaskOptions(), ReadOptions())
        shapes.append(frame_of(loaded, lesion).model_shape)
    assert shapes[0] == shapes[1]


def test_a_filled_scan_is_known_again_and_never_replaced_in_place(run: Run, tmp_path: Path) -> None:
    """IN-41: by its sidecar, whatever its name."""
    scan, mask = pair(tmp_path)
    first = tmp_path / "better.nii"
    assert run("fill", "-i", scan, "-m", mask, "-o", first, "--model", "ring-mean")[0] == 0
    status, _, err = run(
        "fill", "-i", first, "-m", mask, "-o", tmp_path / "again.nii", "--model", "ring-mean"
    )
    assert (status, "WARN [IN-41]" in err) == (0, True)
    before = first.read_bytes()
    status, _, err = run("fill", "-i", first, "-m", mask, "-o", first, "--model", "ring-mean", "--overwrite")
    assert (status, "[RT-19]" in err) == (73, True)
    assert first.read_bytes() == before


def test_the_record_holds_the_mask_as_it_was_dilated_and_cleaned(tmp_path: Path) -> None:
    """MA-15, MA-20: the final voxel count, volume and hash, and the options that led there."""
    scan, mask = small_head()
    mask = mask.copy()
    mask[tuple(np.argwhere(scan > 0)[len(mask) * 50])] = 1
    files = write(tmp_path / "scan.nii", scan), write(tmp_path / "lesion.nii", mask)
    plain = neuromend.fill(*files, model="ring-mean").record
    result = neuromend.fill(*files, model="ring-mean", dilate_mm=7.0, min_size_ml=0.3)
    used = np.asarray(result.mask.dataobj) > 0
    assert result.record["mask"]["used_voxels"] == used.sum() > plain["mask"]["used_voxels"]
    assert result.record["mask"]["used_voxels_sha256"] != plain["mask"]["used_voxels_sha256"]
    options = result.record["settings"]["options"]
    assert (options["dilate_mm"], options["min_size_ml"]) == (7.0, 0.3)
    assert "1 of 2 pieces of the mask" in "".join(f["message"] for f in result.record["findings"])


def test_a_kept_output_is_not_called_done(run: Run, tmp_path: Path) -> None:
    """RT-05."""
    scan, mask = pair(tmp_path)
    words = (
        "fill",
        "-i",
        scan,
        "-m",
        mask,
        "-o",
        tmp_path / "out.nii",
        "--model",
        "ring-mean",
        "--skip-existing",
    )
    assert "done in " in run(*words)[2]
    status, out, err = run(*words)
    assert status == 0
    assert "kept the output that is there: nothing was done" in err
    assert "done in " not in err
    assert f"filled: {tmp_path / 'out.nii'}" in out


def test_another_number_of_threads_changes_less_than_a_thousandth_of_the_range(tmp_path: Path) -> None:
    """RT-25: as docs/start.md says."""
    network = save_network(tmp_path / "tiny")
    scan, mask = (nib.load(path) for path in pair(tmp_path))
    scan = nib.Nifti1Image(np.asarray(scan.dataobj, np.float32), scan.affine)
    before = torch.get_num_threads()
    try:
        fills = [
            np.asarray(neuromend.fill(scan, mask, model=network, device="cpu", threads=n).image.dataobj)
            for n in (1, 2, 3)
        ]
    finally:
        torch.set_num_threads(before)
    apart = max(float(np.abs(fill - fills[0]).max()) for fill in fills)
    assert apart < 1e-3 * float(np.ptp(fills[0]))


def test_the_record_tells_device_threads_and_versions(tmp_path: Path) -> None:
    """RT-25: the numbers may differ in the last digits with another device or number of threads."""
    scan, mask = pair(tmp_path)
    before = torch.get_num_threads()
    try:
        run_ = neuromend.fill(scan, mask, model="harmonic", device="cpu", threads=2).record["run"]
    finally:
        torch.set_num_threads(before)
    assert (run_["device"], run_["threads"], run_["cuda"]) == ("cpu", 2, None)
    assert run_["packages"]["torch"] == torch.__version__
    assert {"numpy", "scipy", "nibabel"} <= set(run_["packages"])


def test_no_colour_is_shown_where_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """RT-23: https://no-color.org."""
    from neuromend import terminal

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for value, forbidden in (("1", True), ("", False)):
        monkeypatch.setenv("NO_COLOR", value)
        console = terminal._terminal(color=True)
        assert console is not None
        assert console.no_color is forbidden


TWICE = """
import os, sys
from neuromend.cli import main
arguments = ["fill", "-i", "scan_T1w.nii", "-m", "scan_T1w_lesion.nii", "--model", "ring-mean", "-q", "-o"]
assert main([*arguments, "one/f.nii"]) == 0
if os.geteuid() == 0:  # again as a user that the system does not know, as containers do
    os.setgroups([])
    os.setgid(54321)
    os.setuid(54321)
os.umask(0o027)
assert main([*arguments, "two/f.nii"]) == 0
"""


def test_strange_environments_are_no_obstacle() -> None:
    """RT-20, RT-21, RT-22: no HOME, no folder for temporary files, plain C locale, odd clock, unknown user."""
    environment = {
        "LC_ALL": "C",
        "TZ": "Pacific/Kiritimati",
        "TMPDIR": "/nonexistent",
        "HOME": "/nonexistent",
    }
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, other users may enter it
        folder = Path(name)
        folder.chmod(0o777)
        pair(folder, "scan_T1w")
        for made in ("one", "two"):
            (folder / made).mkdir()
            (folder / made).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", TWICE],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert len(list((folder / "one").iterdir())) == 5
        modes = {path.name: path.stat().st_mode & 0o777 for path in (folder / "two").iterdir()}
        assert set(modes.values()) == {0o640}
        ours = {"one", "two", "scan_T1w.nii", "scan_T1w_lesion.nii"}
        assert {path.name for path in folder.iterdir()} == ours
