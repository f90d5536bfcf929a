"""What the record of a run says, in words: the model's name and the settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

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
        "Model": model_name(record),
    }
    model = record.get("model")
    if isinstance(model, Mapping):
        details = {"Model's SHA-256": "sha256", "Model's licence": "licence"}
        lines |= {label: str(model[key]) for label, key in details.items() if model.get(key)}
    settings = {"Method": "method", "Steps": "steps", "Seed": "seed", "Device": "device"}
    return lines | {label: str(record[key]) for label, key in settings.items() if record.get(key) is not None}
