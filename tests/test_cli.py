"""The command line: what it accepts, what it prints where, and with which status it ends."""

from __future__ import annotations

import inspect
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer.main

import neuromend
from neuromend import cli, cli_models, cli_options, errors
from neuromend.filling import FillResult
from neuromend.findings import Finding
from neuromend.models import DEFAULT_MODEL

Run = Callable[..., tuple[int, str, str]]

FINDINGS = (
    Finding("OK-01", "pass", "a check that passed"),
    Finding("IN-18", "note", "something unusual"),
    Finding("MA-13", "warning", "something to look at"),
)


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    # main() sets these for the process; here the process is pytest's.
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command and returns its exit status, stdout and stderr."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return command


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Puts a recorder in the place of ``neuromend.fill`` and ``neuromend.check``."""
    seen: list[dict[str, Any]] = []

    def fill(image: Path, mask: Path, out: Path, **options: Any) -> FillResult:
        seen.append({"image": image, "mask": mask, "out": out, **options})
        files = {"filled": tmp_path / "a.nii", "record": tmp_path / "a.json"}
        options["on_step"]("filling", 1, 2)
        options["on_step"]("filling", 2, 2)
        blank = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4))
        return FillResult(None, blank, (), None, {"seed": options["seed"]}, FINDINGS, files)

    def check(image: Path, mask: Path, **options: Any) -> tuple[Finding, ...]:
        seen.append({"image": image, "mask": mask, **options})
        return FINDINGS

    monkeypatch.setitem(vars(neuromend), "fill", fill)
    monkeypatch.setitem(vars(neuromend), "check", check)
    return seen


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small scan and a lesion in it."""
    from neuromend.doctor import synthetic_head

    folder = tmp_path_factory.mktemp("pair")
    scan, mask = synthetic_head()
    files = folder / "head_T1w.nii.gz", folder / "lesion.nii.gz"
    for image, file in zip((scan, mask), files, strict=True):
        small = np.asarray(image.dataobj)[::3, ::3, ::3]
        nib.save(nib.Nifti1Image(small, image.affine @ np.diag([3, 3, 3, 1])), file)
    return files


class TestHelp:
    def test_help_and_usage_errors_import_nothing_heavy(self) -> None:
        code = (
            "import sys; from neuromend.cli import main; "
            "assert main(['--help']) == 0; assert 'pydantic' not in sys.modules; "
            "assert main(['fill', '--help']) == 0; assert main(['fill', '--smaples', '3']) == 2; "
            "heavy = {'torch', 'numpy', 'scipy', 'nibabel', 'matplotlib', 'click'} & set(sys.modules); "
            "assert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("words", [[], ["fill"], ["check"], ["demo"], ["doctor"], ["cite"], ["models"]])
    def test_every_command_has_help(self, run: Run, words: list[str]) -> None:
        status, out, err = run(*words, "--help")
        assert status == 0
        assert "Usage: neuromend" in out
        assert err == ""

    def test_help_says_that_m_is_an_input(self, run: Run) -> None:
        _, out, _ = run("fill", "--help")
        assert "The INPUT lesion mask" in out

    def test_every_option_tells_its_default(self) -> None:
        commands = dict(vars(typer.main.get_command(cli.app))["commands"])
        commands |= vars(commands.pop("models"))["commands"]
        for name, command in commands.items():
            for option in command.params:
                shown = option.required or option.show_default or "(Default: " in (option.help or "")
                assert shown or option.hidden, f"{name} {option.name} does not tell its default"
                if not option.required and "(Default: " not in (option.help or "") and not option.hidden:
                    assert option.default is not None, f"{name} {option.name} has no default to show"

    def test_defaults_are_those_of_the_python_function(self) -> None:
        ours = inspect.signature(cli.fill).parameters
        theirs = inspect.signature(neuromend.fill).parameters
        for name in set(ours) & set(theirs) - {"image", "mask", "out"}:
            assert ours[name].default == theirs[name].default, name
        assert not (set(theirs) - set(ours) - {"on_step", "command", "fallback", "painter_for"})
        assert cli_options.DEFAULT_MODEL == DEFAULT_MODEL


class TestArguments:
    def test_every_option_reaches_the_function(self, run: Run, calls: list[dict[str, Any]]) -> None:
        text = (
            "fill -i s.nii -m m.nii -o f.nii --volume 2 --assume-orientation RAS --modality T1w --max-voxels 99 "
            "--force-pair --labels 1,3 --threshold 0.5 --resample-mask --invert-mask --allow-empty --dilate-mm 2.5 "
            "--min-size-ml 0.01 "
            "--model ring-mean --samples 4 --steps 3 --seed 17 --device cpu --threads 2 --no-fallback --overwrite "
            "--skip-existing --dry-run"
        )
        words = text.split()
        status, _, _ = run(*words)
        assert status == 0
        expected = {
            "image": Path("s.nii"), "mask": Path("m.nii"), "out": Path("f.nii"), "volume": 2,
            "assume_orientation": "RAS", "modality": "T1w", "max_voxels": 99, "force_pair": True, "labels": [1, 3],
            "threshold": 0.5, "resample_mask": True, "invert_mask": True, "allow_empty": True, "dilate_mm": 2.5,
            "min_size_ml": 0.01, "model": "ring-mean", "samples": 4, "steps": 3, "seed": 17, "device": "cpu",
            "threads": 2, "fallback": False, "overwrite": True, "skip_existing": True, "dry_run": True,
            "command": ["neuromend", *words],
        }  # fmt: skip
        assert {key: value for key, value in calls[0].items() if key != "on_step"} == expected

    def test_mask_options_reach_check(self, run: Run, calls: list[dict[str, Any]]) -> None:
        status, _, _ = run("check", "-i", "s.nii", "-m", "m.nii", "--labels", "all", "--dilate-mm", "1")
        assert (status, calls[0]["min_size_ml"]) == (0, 0)
        assert (calls[0]["labels"], calls[0]["dilate_mm"], calls[0]["threshold"]) == ("all", 1.0, None)

    @pytest.mark.parametrize(
        ("key", "name"),
        [
            *(("image", name) for name in ("-i", "--image", "--input_image", "--input-image", "--t1")),
            *(("mask", name) for name in ("-m", "--mask", "--lesion_mask", "--mask_image")),
            *(
                ("out", name)
                for name in ("-o", "--out", "--out_dir", "--output_directory", "--sd", "--output")
            ),
        ],
    )
    def test_names_of_neurolit_are_accepted(
        self, run: Run, calls: list[dict[str, Any]], key: str, name: str
    ) -> None:
        names = {"image": "-i", "mask": "-m", "out": "-o", key: name}
        status, _, err = run("fill", names["image"], "s.nii", names["mask"], "m.nii", names["out"], "folder")
        assert status == 0, err
        found = (calls[0]["image"], calls[0]["mask"], calls[0]["out"])
        assert found == (Path("s.nii"), Path("m.nii"), Path("folder"))

    @pytest.mark.parametrize("name", [*cli_options.ALIASES, "dilate_mm"])
    def test_aliases_are_not_shown(self, run: Run, name: str) -> None:
        _, out, _ = run("fill", "--help")
        assert f"--{name} " not in out

    @pytest.mark.parametrize(
        ("spelling", "key", "value"),
        [("--dilate_mm=2", "dilate_mm", 2.0), ("--allow_empty", "allow_empty", True), ("--dry_run", "dry_run", True),
         ("--skip_existing", "skip_existing", True), ("--max_voxels=7", "max_voxels", 7)],
    )  # fmt: skip
    def test_underscores_are_accepted(
        self, run: Run, calls: list[dict[str, Any]], spelling: str, key: str, value: object
    ) -> None:
        assert run("fill", "-i", "s.nii", "-m", "m.nii", "-o", "f.nii", spelling)[0] == 0
        assert calls[0][key] == value

    def test_dilation_in_voxels_is_explained(self, run: Run, calls: list[dict[str, Any]]) -> None:
        status, out, err = run("fill", "-i", "s.nii", "-m", "m.nii", "-o", "f.nii", "--dilate", "2")
        assert (status, out, calls) == (2, "", [])
        assert "[UX-11] --dilate 2 counts voxels" in err
        assert "--dilate-mm 2" in err

    def test_no_dilation_in_voxels_is_accepted(self, run: Run, calls: list[dict[str, Any]]) -> None:
        assert run("fill", "-i", "s.nii", "-m", "m.nii", "-o", "f.nii", "--dilate", "0")[0] == 0
        assert calls[0]["dilate_mm"] == 0

    @pytest.mark.parametrize("labels", ["one", "1,", "1;2", "1.5", "All"])
    def test_labels_that_are_no_numbers_are_refused(
        self, run: Run, calls: list[dict[str, Any]], labels: str
    ) -> None:
        status, _, err = run("check", "-i", "s.nii", "-m", "m.nii", "--labels", labels)
        assert (status, calls) == (2, [])
        assert f"[UX-12] --labels is '{labels}', expected" in err

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            ("", "Missing command"),
            ("fil", "No such command 'fil'"),
            ("fill -i s.nii -m m.nii", "'--out' / '-o'"),
            ("fill -i s.nii -m m.nii -o f.nii --smaples 3", "No such option: --smaples"),
            ("fill -i s.nii -m m.nii -o f.nii --samples three", "--samples"),
            ("fill -i s.nii -m m.nii -o f.nii --max-voxels 0", "0"),
            ("fill -i s.nii -m m.nii -o f.nii more", "more"),
            ("models lst", "lst"),
            ("demo --lesion-ml -1", "-1"),
        ],
    )
    def test_usage_errors_end_with_2_before_any_work(
        self, run: Run, calls: list[dict[str, Any]], words: str, named: str
    ) -> None:
        status, out, err = run(*words.split())
        assert (status, out, calls) == (2, "", [])
        assert err.startswith("[UX-10]")
        assert named in err
        assert "--help" in err.splitlines()[-1]

    def test_an_empty_name_is_not_the_working_directory(self, run: Run, calls: list[dict[str, Any]]) -> None:
        status, _, err = run("fill", "-i", "s.nii", "-m", "m.nii", "-o", "")
        assert (status, calls) == (2, [])
        assert "the name is empty" in err


class TestTalk:
    WORDS = ("fill", "-i", "s.nii", "-m", "m.nii", "-o", "f.nii")

    def test_results_are_on_stdout_and_talk_on_stderr(
        self, run: Run, calls: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        status, out, err = run(*self.WORDS)
        assert status == 0
        assert out == f"filled: {tmp_path / 'a.nii'}\nrecord: {tmp_path / 'a.json'}\n"
        lines = err.splitlines()
        assert lines[:2] == ["starting", "filling"]  # a stage is one line, however many steps it has
        assert "NOTE [IN-18] something unusual" in lines
        assert "WARN [MA-13] something to look at" in lines
        assert lines[-1] == cli.CITATION
        assert "passed" not in err

    def test_quiet_says_warnings_only(self, run: Run, calls: list[dict[str, Any]]) -> None:
        _, out, err = run(*self.WORDS, "-q")
        assert out.startswith("filled: ")
        assert err == "WARN [MA-13] something to look at\n"

    def test_verbose_says_what_passed(self, run: Run, calls: list[dict[str, Any]]) -> None:
        _, _, err = run(*self.WORDS, "-v")
        assert "PASS [OK-01] a check that passed" in err

    def test_json_is_one_object_on_stdout(
        self, run: Run, calls: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        _, out, err = run(*self.WORDS, "--json", "--seed", "5")
        found = json.loads(out)
        assert list(found) == ["dry_run", "outputs", "findings", "record"]
        assert found["outputs"] == {"filled": str(tmp_path / "a.nii"), "record": str(tmp_path / "a.json")}
        assert found["findings"][2] == {
            "code": "MA-13",
            "level": "warning",
            "message": "something to look at",
        }
        assert found["record"] == {"seed": 5}
        assert "filling" in err

    def test_dry_run_says_would(self, run: Run, calls: list[dict[str, Any]]) -> None:
        _, out, _ = run(*self.WORDS, "--dry-run")
        assert all(line.startswith("would write ") for line in out.splitlines())

    def test_check_prints_every_check(self, run: Run, calls: list[dict[str, Any]]) -> None:
        status, out, _ = run("check", "-i", "s.nii", "-m", "m.nii")
        assert status == 0
        assert [line.split()[0] for line in out.splitlines()] == ["PASS", "NOTE", "WARN"]
        _, out, _ = run("check", "-i", "s.nii", "-m", "m.nii", "--json")
        assert [finding["code"] for finding in json.loads(out)["findings"]] == ["OK-01", "IN-18", "MA-13"]

    def test_a_name_that_is_no_text_keeps_its_bytes(
        self, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from neuromend.terminal import print_stdout

        with open(1, "w", encoding="ascii", closefd=False) as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            print_stdout("filled: /scan-\udce9-ß.nii")
        assert capfdbinary.readouterr().out == b"filled: /scan-\xe9-\xc3\x9f.nii\n"


class _FakeTerminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("color", [True, False])
class TestTerminal:
    @pytest.fixture
    def shown(
        self, monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]], encoding: str, color: bool
    ) -> bytes:
        terminal = _FakeTerminal(encoding)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "70")
        monkeypatch.setattr(sys, "stderr", terminal)
        words = ["fill", "-i", "s.nii", "-m", "m.nii", "-o", "f.nii", *([] if color else ["--no-color"])]
        assert cli.main(words) == 0
        return terminal.bytes.getvalue()

    def test_a_bar_shows_stage_and_remaining_time(self, shown: bytes, encoding: str) -> None:
        text = shown.decode(encoding)  # every character fits the terminal's encoding
        assert "filling" in text
        assert "remaining" in text

    def test_colours_can_be_forbidden(self, shown: bytes, color: bool) -> None:
        assert (b"\x1b[33mWARN" in shown) == color
        assert b"WARN [MA-13] something to look at" in shown


class TestErrors:
    WORDS = ("fill", "-i", "s.nii", "-m", "m.nii", "-o", "f.nii")

    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
        def make(problem: BaseException) -> None:
            def fill(*arguments: object, **options: object) -> None:
                raise problem

            monkeypatch.setitem(vars(neuromend), "fill", fill)

        return make

    @pytest.mark.parametrize(
        ("kind", "status"),
        [(errors.InputError, 65), (errors.GeometryError, 65), (errors.MissingInputError, 66), (errors.UsageError, 2),
         (errors.DeviceError, 69), (errors.ModelFaultError, 70), (errors.OutputError, 73), (errors.StorageError, 74),
         (errors.TemporaryError, 75), (errors.OutputPermissionError, 77), (errors.CheckpointError, 78)],
    )  # fmt: skip
    def test_a_foreseen_fault_is_three_lines_and_its_status(
        self,
        run: Run,
        failing: Callable[[BaseException], None],
        kind: type[errors.NeuromendError],
        status: int,
    ) -> None:
        failing(kind("IN-99", "field 'dim' is 0", why="no voxels", fix="copy it again", path="s.nii"))
        found, out, err = run(*self.WORDS, "-q")
        assert (found, out) == (status, "")
        assert err == "[IN-99] s.nii: field 'dim' is 0\n  why: no voxels\n  do:  copy it again\n"

    def test_json_carries_the_error(self, run: Run, failing: Callable[[BaseException], None]) -> None:
        failing(errors.InputError("IN-99", "bad", why="because", fix="repair", path="s.nii"))
        status, out, err = run(*self.WORDS, "--json", "-q")
        assert json.loads(out) == {
            "error": {
                "code": "IN-99", "exit_status": 65, "path": "s.nii", "what": "bad", "why": "because", "fix": "repair",
            }
        }  # fmt: skip
        assert status == 65
        assert err.startswith("[IN-99] s.nii: bad")

    def test_a_usage_error_is_json_too(self, run: Run) -> None:
        status, out, _ = run("fill", "--json", "--smaples", "3")
        assert status == 2
        assert json.loads(out)["error"]["code"] == "UX-10"

    def test_debug_shows_the_traceback(self, run: Run, failing: Callable[[BaseException], None]) -> None:
        failing(errors.InputError("IN-99", "bad", why="because", fix="repair"))
        assert "Traceback" not in run(*self.WORDS)[2]
        assert "Traceback" in run(*self.WORDS, "--debug")[2]

    def test_a_bug_asks_for_a_report(self, run: Run, failing: Callable[[BaseException], None]) -> None:
        failing(KeyError("spacing"))
        status, out, err = run(*self.WORDS, "-q")
        assert (status, out) == (70, "")
        assert err.startswith("[UX-70] KeyError: 'spacing' (test_cli.py, line ")
        assert "report it" in err
        assert "neuromend fill -i s.nii -m m.nii -o f.nii -q --debug" in err
        assert "Traceback" not in err

    def test_lack_of_memory_may_be_cured_by_a_second_try(
        self, run: Run, failing: Callable[[BaseException], None]
    ) -> None:
        failing(MemoryError())
        status, _, err = run(*self.WORDS, "-q")
        assert status == 75
        assert err.startswith("[RT-12]")

    def test_a_name_cannot_send_commands_to_the_terminal(
        self, run: Run, failing: Callable[[BaseException], None]
    ) -> None:
        failing(errors.InputError("IN-99", "bad", why="because", fix="repair", path="\x1b]0;owned\x07.nii"))
        assert "\x1b" not in run(*self.WORDS)[2]

    def test_a_full_disk_behind_stdout_is_told(self) -> None:
        if not Path("/dev/full").exists():
            pytest.skip("this system has no /dev/full")
        with open("/dev/full", "w", encoding="ascii") as full:
            command = [sys.executable, "-m", "neuromend", "models", "list"]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 74
        assert done.stderr.startswith("[RT-03] printing the result failed")
        assert len(done.stderr.splitlines()) == 3

    def test_a_reader_that_has_gone_is_no_error(self) -> None:
        command = [sys.executable, "-m", "neuromend", "models", "list"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0


class TestLog:
    WORDS = ("fill", "-i", "s.nii", "-m", "m.nii", "-o", "f.nii", "--log")

    def test_the_log_holds_everything_and_no_alarming_words(
        self, run: Run, calls: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        log = tmp_path / "new" / "run.log"
        for _ in range(2):
            assert run(*self.WORDS, log, "-q")[0] == 0
        lines = log.read_text().splitlines()
        assert lines[0] == "# neuromend log"
        assert (
            sum("PASS [OK-01]" in line for line in lines) == 2
        )  # appended, and more than the terminal shows
        assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]", line) for line in lines[1:])
        assert "command: neuromend fill -i s.nii" in lines[1]
        assert not re.search("error|exception|traceback", log.read_text(), re.IGNORECASE)

    def test_a_failure_is_logged_with_its_traceback(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fill(*arguments: object, **options: object) -> None:
            raise errors.InputError("IN-99", "bad", why="because", fix="repair")

        monkeypatch.setitem(vars(neuromend), "fill", fill)
        assert run(*self.WORDS, tmp_path / "run.log")[0] == 65
        assert "Traceback" in (tmp_path / "run.log").read_text()
        assert "[IN-99] bad" in (tmp_path / "run.log").read_text()

    def test_no_other_file_is_appended_to(
        self, run: Run, calls: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        scan = tmp_path / "scan.nii"
        scan.write_bytes(b"voxels")
        status, _, err = run(*self.WORDS, scan)
        assert (status, calls) == (73, [])
        assert f"[RT-04] {scan}: --log names a file that is not a log" in err
        assert scan.read_bytes() == b"voxels"

    @pytest.mark.parametrize("name", ["", "file/run.log"])
    def test_a_log_that_cannot_be_made_is_refused(
        self, run: Run, calls: list[dict[str, Any]], tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "file").write_text("# neuromend log\n")
        status, _, err = run(*self.WORDS, f"{tmp_path}/{name}")
        assert (status, calls) == (73, [])
        assert "[RT-02]" in err

    def test_a_log_without_permission_is_refused(
        self, run: Run, calls: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        status, _, err = run(*self.WORDS, tmp_path / "run.log")
        assert (status, calls) == (77, [])
        assert "[RT-02]" in err


class TestSmallCommands:
    def test_version_has_the_commit_in_a_checkout(self, run: Run) -> None:
        status, out, err = run("--version")
        assert (status, err) == (0, "")
        assert re.fullmatch(r"neuromend \d+\.\d+\.\d+(\+[0-9a-f]{12}(-dirty)?)?\n", out)
        assert out.split()[1].startswith(neuromend.__version__)

    @pytest.mark.parametrize("words", [("models",), ("models", "list")])
    def test_models_are_listed(self, run: Run, words: tuple[str, ...]) -> None:
        status, out, _ = run(*words)
        assert status == 0
        assert re.search(r"^harmonic +Apache-2.0 \(no weights\)  Laplace", out, re.MULTILINE)

    def test_models_as_json(self, run: Run) -> None:
        entries = json.loads(run("models", "list", "--json")[1])["models"]
        harmonic = next(entry for entry in entries if entry["name"] == "harmonic")
        assert set(harmonic) == {"name", "description", "licence", "folder", "problem"}

    def test_models_are_verified(self, run: Run) -> None:
        status, out, _ = run("models", "verify", "harmonic")
        assert (status, out) == (0, "PASS [MO-04] 'harmonic' is a classical fill and has no weights.\n")
        assert json.loads(run("models", "verify", "harmonic", "--json")[1])["findings"][0]["level"] == "pass"

    def test_an_unknown_model_is_a_bad_configuration(self, run: Run) -> None:
        status, out, err = run("models", "verify", "nosuch")
        assert (status, out) == (78, "")
        assert "[MO-16] there is no model 'nosuch'" in err

    def test_a_model_is_shown(self, run: Run) -> None:
        status, out, _ = run("models", "show", "mirror")
        assert status == 0
        assert out.startswith("mirror: ")
        assert json.loads(run("models", "show", "mirror", "--json")[1])["manifest"] is None

    def test_faults_of_models_are_listed_and_cards_shown(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "manifest.json").write_text("{}")
        monkeypatch.setenv("NEUROMEND_MODELS", str(tmp_path))
        _, out, _ = run("models", "list")
        assert re.search(r"^broken .*\(cannot be used: \[MO-\d\d\]\)", out, re.MULTILINE)
        entries = json.loads(run("models", "list", "--json")[1])["models"]
        assert next(entry for entry in entries if entry["name"] == "broken")["problem"]["exit_status"] == 78

    def test_cite_prints_bibtex_and_a_paragraph(
        self, run: Run, tmp_path: Path, make_sidecar: Callable[..., Any]
    ) -> None:
        assert run("cite")[1].startswith("@software{neuromend")
        record = tmp_path / "scan_inpainted.json"
        record.write_text(make_sidecar().to_json())
        status, out, _ = run("cite", record)
        assert status == 0
        assert "The lesion was filled with neuromend" in out

    def test_cite_without_a_record_to_read(self, run: Run, tmp_path: Path) -> None:
        status, out, err = run("cite", tmp_path / "no.json")
        assert (status, out) == (66, "")
        assert "no.json" in err

    @pytest.mark.parametrize(("level", "status"), [("pass", 0), ("warning", 69)])
    def test_doctor_ends_with_69_where_nothing_can_be_filled(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, level: Any, status: int
    ) -> None:
        asked = []

        def run_doctor(*, synthetic_run: bool) -> list[Finding]:
            asked.append(synthetic_run)
            return [Finding("DR-02", level, "a synthetic head")]

        monkeypatch.setattr("neuromend.doctor.run_doctor", run_doctor)
        found, out, _ = run("doctor")
        assert found == status
        assert "[DR-02] a synthetic head" in out
        assert json.loads(run("doctor", "--no-run", "--json")[1])["findings"][0]["code"] == "DR-02"
        assert asked == [True, False]

    def test_openmp_threads_sleep_unless_the_user_chose(self) -> None:
        code = (
            "import os, sys; from neuromend.cli import main; main(['--version']); "
            "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
        )
        for chosen, expected in (({}, "passive 0"), ({"OMP_WAIT_POLICY": "active"}, "active None")):
            environment = {"PATH": "/usr/bin:/bin", **chosen}
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
            )
            assert done.stdout.splitlines()[-1] == expected


class TestRealRuns:
    """Through the real function, with a classical fill on a small head."""

    def test_fill_writes_what_it_prints(self, run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
        status, out, err = run(
            "fill", "-i", pair[0], "-m", pair[1], "-o", tmp_path / "a b", "--model", "harmonic"
        )
        assert status == 0, err
        printed = {line.split(": ")[0]: Path(line.split(": ")[1]) for line in out.splitlines()}
        assert set(printed) == {"filled", "mask", "picture", "report", "record"}
        assert {path.name for path in (tmp_path / "a b").iterdir()} == {
            path.name for path in printed.values()
        }
        assert printed["filled"].name == "head_T1w_inpainted.nii.gz"

    def test_json_carries_the_sidecar(self, run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
        out_file = tmp_path / "f.nii.gz"
        words = ("fill", "-i", pair[0], "-m", pair[1], "-o", out_file, "--model", "ring-mean", "--json", "-q")
        found = json.loads(run(*words)[1])
        assert found["record"] == json.loads((tmp_path / "f.json").read_text())
        names = [word.name if isinstance(word, Path) else word for word in words]
        assert found["record"]["run"]["command"] == ["neuromend", *names]
        assert found["record"]["result"]["outside_identical_voxels"] > 0

    def test_dry_run_writes_nothing(self, run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
        out_file = tmp_path / "new" / "f.nii.gz"
        status, out, _ = run(
            "fill", "-i", pair[0], "-m", pair[1], "-o", out_file, "--model", "harmonic", "--dry-run"
        )
        assert status == 0
        assert f"would write filled: {out_file}" in out
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_output_is_refused(self, run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
        out_file = tmp_path / "f.nii.gz"
        out_file.write_bytes(b"precious")
        status, out, err = run("fill", "-i", pair[0], "-m", pair[1], "-o", out_file, "--model", "harmonic")
        assert (status, out) == (73, "")
        assert f"[RT-04] {out_file}" in err
        assert out_file.read_bytes() == b"precious"

    def test_check_reads_the_pair(self, run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
        status, out, _ = run("check", "-i", pair[0], "-m", pair[1], "--json")
        assert status == 0
        assert json.loads(out)["findings"]
        status, _, err = run("check", "-i", pair[0], "-m", tmp_path / "no.nii")
        assert status == 66
        assert "no.nii" in err


def test_models_command_alone_is_the_list() -> None:
    assert {command.name for command in cli_models.app.registered_commands} == {"list", "verify", "show"}


def test_unknown_public_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = neuromend.nosuch  # type: ignore[attr-defined]


def test_public_names_are_all_there() -> None:
    for name in neuromend.__all__:
        assert getattr(neuromend, name) is not None
        assert name in dir(neuromend)
