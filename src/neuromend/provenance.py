"""What ran is written down: the JSON sidecar beside a filled scan, its schema and the facts that fill it.

The sidecar is written last, after every other output has been re-read, so its presence marks a finished run.
Its first keys follow BIDS derivatives; ours come after. Only ``run`` differs between two equal runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from neuromend.errors import InputError, MissingInputError
from neuromend.findings import Finding

SCHEMA_VERSION = 1
#: The packages whose version can change a voxel of the result.
_PACKAGES = ("torch", "numpy", "scipy", "nibabel", "safetensors")
#: A sidecar is some kilobytes; a bigger file is something else and is not parsed.
MAX_SIDECAR_BYTES = 4 << 20


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ImageRecord(_Record):
    """An input file: its name (no folder: paths can name persons), SHA-256 of its bytes and of its voxels.

    ``voxels_sha256`` (``Volume.sha256_voxels``) is that of the stored values, in order and type as in the file;
    ``file`` and ``sha256`` are None for an image that came from memory.
    """

    file: str | None
    sha256: str | None
    voxels_sha256: str


class MaskRecord(ImageRecord):
    """The mask file, and the size of the mask really used (after labels, threshold, resampling, dilation)."""

    used_voxels: int
    used_volume_ml: float
    used_voxels_sha256: str


class ModelRecord(_Record):
    """The model; the digests are None for a classical fill."""

    name: str
    method: str
    weights_sha256: str | None
    config_sha256: str | None
    licence: str


class SettingsRecord(_Record):
    """What decides the result besides inputs and model.

    Attributes:
        samples: how many were averaged; 0 is the expected fill, which needs no seed, or one random fill where
            the method knows no expected one.
        options: every other setting (how the files were read, how the mask was made), ``expected_fill``,
            whether this is one, and ``sampler``, None for a method with no choice of it.
    """

    seed: int
    steps: int | None
    samples: int
    options: dict[str, JsonValue]


class ResultRecord(_Record):
    """What was found on re-reading the filled file.

    Attributes:
        filled_voxels: voxels inside the mask.
        clipped_voxels: filled voxels cut to the range that the file's data type can store.
        outside_identical_voxels: voxels outside the mask, every one bit-identical to the input.
        outside_sha256: SHA-256 of the stored values outside the mask.
    """

    filled_voxels: int
    clipped_voxels: int
    outside_identical_voxels: int
    outside_sha256: str


class FindingRecord(_Record):
    """One :class:`~neuromend.findings.Finding`."""

    code: str
    level: Literal["pass", "note", "warning"]
    message: str


class OutputRecord(_Record):
    """One file written: its role (``filled``, ``mask``, ``sample-01``, ``report`` ...), name and SHA-256.

    ``file`` is relative to the folder of the sidecar: a bare name, or ``../figures/NAME`` in a BIDS dataset.
    """

    role: str
    file: str
    sha256: str


class RunRecord(_Record):
    """Who, where and when; the only part that differs between two equal runs.

    Attributes:
        commit: of neuromend, when run from a checkout.
        packages: the versions that can change a voxel of the result.
        cuda: versions of CUDA and cuDNN and the GPU's name; None on other devices.
        command: the command line as typed, but with files by their names: folders can name persons.
        started, ended: UTC, ISO 8601.
    """

    neuromend: str
    commit: str | None
    python: str
    packages: dict[str, str]
    cuda: str | None
    system: str
    device: str
    threads: int
    command: list[str]
    started: str
    ended: str


class GeneratedBy(_Record):
    """The BIDS form of "made by"."""

    Name: str = "neuromend"
    Version: str


class Sidecar(_Record):
    """The JSON file beside a filled scan. Field order is key order.

    ``frame`` is how the scan was brought to the model's grid (:meth:`neuromend.data.frame.Frame.describe`).
    """

    Description: str
    Sources: list[str]
    SkullStripped: bool
    GeneratedBy: list[GeneratedBy]
    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    image: ImageRecord
    mask: MaskRecord
    model: ModelRecord
    settings: SettingsRecord
    frame: dict[str, JsonValue]
    result: ResultRecord
    findings: list[FindingRecord]
    outputs: list[OutputRecord]
    run: RunRecord

    def to_json(self) -> str:
        """The text of the file: fixed key order, two-space indent, final newline."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        # A file name of an older system may hold bytes that are no text; they become question marks.
        return text.encode("utf-8", "replace").decode("utf-8")


def read_sidecar(path: Path | str) -> Sidecar:
    """Read a sidecar that neuromend wrote.

    Raises:
        MissingInputError: no such file.
        InputError: not a sidecar of neuromend, naming the first field that is wrong.
    """
    path = Path(path)
    why, fix = "the settings of the run are read from it", "give the .json that stands beside the filled scan"
    if not path.is_file():
        raise MissingInputError("IN-35", "no such file", why=why, fix=fix, path=path)
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, expected a few thousand")
        return Sidecar.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"field '{'.'.join(map(str, first['loc'])) or '(whole file)'}': {first['msg']}"
    except ValueError as error:
        problem = str(error)
    raise InputError("IN-05", f"not a sidecar of neuromend ({problem})", why=why, fix=fix, path=path)


def run_record(
    *, device: str, threads: int, started: datetime, command: Sequence[str] | None = None
) -> RunRecord:
    """The facts of this run up to now; ``command`` defaults to this process's arguments."""
    return RunRecord(
        neuromend=version("neuromend"),
        commit=git_commit(),
        python=platform.python_version(),
        packages={name: found for name in _PACKAGES if (found := _version(name)) is not None},
        cuda=_cuda_versions() if device.startswith("cuda") else None,
        system=platform.platform(),
        device=device,
        threads=threads,
        command=[_without_folders(word) for word in (sys.argv if command is None else command)],
        started=_utc(started),
        ended=_utc(datetime.now(UTC)),
    )


def finding_records(findings: Sequence[Finding]) -> list[FindingRecord]:
    """Findings in the form of the sidecar, in their order."""
    return [FindingRecord(code=f.code, level=f.level, message=f.message) for f in findings]


def version_string() -> str:
    """``1.2.3``, or ``1.2.3+commit`` (12 digits, ``-dirty`` with local edits) when run from a checkout."""
    commit = git_commit()
    if commit is None:
        return version("neuromend")
    digits, _, dirty = commit.partition("-")
    return f"{version('neuromend')}+{digits[:12]}{'-' + dirty if dirty else ''}"


def git_commit() -> str | None:
    """The commit of this code, with ``-dirty`` where tracked files were edited; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not ((root / ".git").exists() and (root / "pyproject.toml").is_file()):
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # Without optional locks git only reads; a checkout may stand on a read-only disk.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def hash_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_folders(word: str) -> str:
    """A word of the command line, any path in it cut down to its last part: ``--log=/a/b`` -> ``--log=b``."""
    return re.sub(r"(?s)^(--[^=]*=|-\w)?.*[/\\](?=[^/\\])", r"\1", word)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cuda_versions() -> str | None:
    """The CUDA and cuDNN that torch was built with and the GPU's name."""
    import torch

    if not torch.cuda.is_available():
        return None
    name, cudnn = torch.cuda.get_device_name(), torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"CUDA {torch.version.cuda}, cuDNN {cudnn}, {name}"
