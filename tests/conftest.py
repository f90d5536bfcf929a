"""What several test files share: a whole sidecar, and the flag that forbids skipping tests on real scans."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Generator

import pytest

# Read when torch is imported: a process that is forked after OpenMP has started its threads hangs in them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

from neuromend.provenance import Sidecar

# A job started in the background (nohup, CI) ignores Ctrl-C and would hand that down to the processes under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With NEUROMEND_REQUIRE_SHARED=1 (see .ci/run) a skipped test marked ``shared`` has failed."""
    report = yield
    required = os.environ.get("NEUROMEND_REQUIRE_SHARED") == "1"
    if required and report.skipped and item.get_closest_marker("shared") is not None:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although ../shared is there: {report.longrepr}"
    return report


@pytest.fixture
def make_sidecar() -> Callable[..., Sidecar]:
    """Makes a whole sidecar, as a fill with the default model leaves it; a change to a section is merged."""

    def make(**changes: object) -> Sidecar:
        digest = "ab" * 32
        facts: dict[str, object] = {
            "Description": "T1w scan with the lesion filled",
            "Sources": ["scan.nii.gz", "mask.nii.gz"],
            "SkullStripped": False,
            "GeneratedBy": [{"Version": "1.2.3"}],
            "image": {"file": "scan.nii.gz", "sha256": digest, "voxels_sha256": digest},
            "mask": {
                "file": "mask.nii.gz",
                "sha256": digest,
                "voxels_sha256": digest,
                "used_voxels": 1234,
                "used_volume_ml": 1.5,
                "used_voxels_sha256": digest,
            },
            "model": {
                "name": "fastwavelet3d-default",
                "method": "fastwavelet3d",
                "weights_sha256": digest,
                "config_sha256": digest,
                "licence": "CC-BY-NC-4.0",
            },
            "settings": {"seed": 17, "steps": 4, "samples": 0, "options": {"dilate_mm": 2.0}},
            "frame": {"spacing_mm": [1.0, 1.0, 1.5]},
            "result": {
                "filled_voxels": 1234,
                "clipped_voxels": 0,
                "outside_identical_voxels": 7654321,
                "outside_sha256": digest,
            },
            "findings": [{"code": "IN-18", "level": "note", "message": "slope 0.5"}],
            "outputs": [{"role": "filled", "file": "scan_inpainted.nii.gz", "sha256": digest}],
            "run": {
                "neuromend": "1.2.3",
                "commit": None,
                "python": "3.11.7",
                "packages": {"torch": "2.13.0"},
                "cuda": None,
                "system": "Linux",
                "device": "cpu",
                "threads": 2,
                "command": ["neuromend", "fill"],
                "started": "2026-11-22T08:20:30.456+00:00",
                "ended": "2026-11-22T08:20:39.456+00:00",
            },
        }
        for key, value in changes.items():
            old = facts[key]
            facts[key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
        return Sidecar.model_validate_json(json.dumps(facts))

    return make
