"""What the record of a run says, in words: the model's name, the settings, the methods paragraph."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from neuromend.report.case import ReportCase
from neuromend.report.text import number

UNKNOWN = "not recorded"


def model_name(record: Mapping[str, Any]) -> str:
    """The model's name and version, or the method's name where no model took part."""
    model = record.get("model")
    if isinstance(model, Mapping):
        version = f", version {model['version']}" if model.get("version") is not None else ""
        return f"{model.get('name', UNKNOWN)}{version}"
    return str(model or record.get("method") or UNKNOWN)


def outside_record(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was found when the written file was read again; empty where that is not recorded."""
    outside = record.get("outside_mask")
    return outside if isinstance(outside, Mapping) else {}


def command_line(record: Mapping[str, Any]) -> str:
    """The command as it can be typed again."""
    command = record.get("command")
    if isinstance(command, list | tuple):
        return shlex.join(str(word) for word in command)
    return str(command or UNKNOWN)


def about(record: Mapping[str, Any]) -> dict[str, str]:
    """The lines of the section About."""
    lines = {
        "Version": f"neuromend {record.get('version', UNKNOWN)}",
        "Command": command_line(record),
        "Date": str(record.get("date", UNKNOWN)),
        "Model": model_name(record),
    }
    model = record.get("model")
    if isinstance(model, Mapping):
        details = {"Model's SHA-256": "sha256", "Model's licence": "licence"}
        lines |= {label: str(model[key]) for label, key in details.items() if model.get(key)}
    settings = {"Method": "method", "Steps": "steps", "Seed": "seed", "Device": "device"}
    return lines | {label: str(record[key]) for label, key in settings.items() if record.get(key) is not None}


def methods_paragraph(case: ReportCase) -> str:
    """A paragraph for a paper, with the settings of this run; what was not recorded is left out."""
    record = case.record
    parts = "1 component" if case.lesion_count == 1 else f"{case.lesion_count} components"
    version = f" {record['version']}" if record.get("version") else ""
    sentences = [
        f"The lesion mask ({number(case.volume_ml)} ml, {parts}) "
        f"was filled with synthetic healthy-looking tissue using neuromend{version}{_settings(record)}."
    ]
    if record.get("samples"):
        count = record["samples"]
        sentences.append(
            f"The fill is the mean of {count} seeded samples." if count != 1 else "It is one sample."
        )
    if case.uncertainty is not None:
        sentences.append("Uncertainty is the voxel-wise standard deviation over the samples.")
    sentences.append("Intensities inside the mask were not used.")
    if not case.changed_outside:
        voxels = case.mask.size - int(case.mask.sum())
        sentences.append(f"All {voxels:,} voxels outside the mask were left identical.")
    sentences.append("The filled tissue was not measured and is not suitable for diagnosis.")
    return " ".join(sentences)


def _settings(record: Mapping[str, Any]) -> str:
    parts = []
    if record.get("method") and record["method"] != model_name(record):
        parts.append(f"method {record['method']}")
    if record.get("model"):
        parts.append(f"model {model_name(record)}{_short_hash(record['model'])}")
    if record.get("steps") is not None:
        parts.append(f"{record['steps']} sampling {'step' if record['steps'] == 1 else 'steps'}")
    if record.get("seed") is not None and record.get("samples") != 0:
        parts.append(f"random seed {record['seed']}")
    if record.get("device"):
        parts.append(f"device {record['device']}")
    return f" ({', '.join(parts)})" if parts else ""


def _short_hash(model: object) -> str:
    digest = model.get("sha256") if isinstance(model, Mapping) else None
    return f" (SHA-256 {str(digest)[:12]})" if digest else ""
