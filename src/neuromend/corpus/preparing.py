"""One case, from its files to its place in the cache: read with care, checked, turned to RAS, cropped, stored.

What is finished and whole is kept: a case is known by the hashes of its files and of these settings (TR-07).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from neuromend.corpus.cache import CASES, LESION, MASK_PREFIX, TISSUE, CaseRow, pack_arrays, write_files
from neuromend.corpus.converting import arrays_of
from neuromend.corpus.layouts import Source
from neuromend.data.volume import read_volume
from neuromend.errors import NeuromendError, OutputError, OutputPermissionError, StorageError
from neuromend.findings import Finding
from neuromend.provenance import hash_file

PREPARED_AS = 1
"""Raised by one whenever the same files would be cached differently: older cases are then made anew."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a case is in quarantine: its id, the file, the code and the sentences."""

    id: str
    file: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case.

    Attributes:
        id: of the case.
        row: where it is in the cache (its split is decided later); None if it was refused.
        kept: True if it was there already, made from the same files.
        findings: what was noticed, warnings and notes.
        refused: why not, if so.
    """

    id: str
    row: CaseRow | None
    kept: bool = False
    findings: tuple[Finding, ...] = ()
    refused: Refused | None = None


def prepare_case(source: Source, out: Path) -> Outcome:
    """Bring one case into the cache below ``out``, or say why not; runs in any process.

    Raises:
        StorageError, OutputError, OutputPermissionError: RT-01 to RT-07, the cache cannot be written.
    """
    try:
        if source.refusal is not None:
            raise source.refusal
        key = content_key(source)
        kept = _kept(source, out, key)
        return kept if kept is not None else _make(source, out, key)
    except (StorageError, OutputError, OutputPermissionError, MemoryError):
        raise
    except NeuromendError as error:
        path = error.path or source.image
        refused = Refused(source.id, path.name, error.code, error.what)
    except Exception as error:
        # A file that nobody foresaw must not end a preparation of hours; the report shows it.
        refused = Refused(source.id, source.image.name, "TR-06", f"{type(error).__name__}: {error}")
    return Outcome(source.id, None, refused=refused)


def content_key(source: Source) -> str:
    """SHA-256 over the contents of a case's files, their roles, and how cases are stored."""
    roles: list[tuple[str, Path | None]] = [
        ("image", source.image),
        ("lesion", source.lesion),
        ("tissue", source.tissue),
        ("mni", source.mni),
        *((MASK_PREFIX + name, path) for name, path in source.masks),
    ]
    hashes = {role: hash_file(path) for role, path in roles if path is not None and _readable(path)}
    facts = {"as": PREPARED_AS, "kind": source.kind, "files": hashes}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def record_path(out: Path, name: str) -> Path:
    """The record of a finished case, its commit mark."""
    return out / CASES / f"{name}.json"


def _readable(path: Path) -> bool:
    """Refuse what is no file with the reader's own words; True otherwise."""
    if not path.is_file():
        read_volume(path)
    return True


def _kept(source: Source, out: Path, key: str) -> Outcome | None:
    """The case as an earlier run left it, if it is whole and of the same files."""
    try:
        record = json.loads(record_path(out, source.id).read_bytes())
        row = CaseRow.from_json(record["row"])
        if record["key"] != key or hash_file(out / row.file) != row.sha256_file:
            return None
        findings = tuple(Finding(**finding) for finding in record["findings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    row = replace(row, subject=source.subject, source=source.image.name)
    return Outcome(source.id, row, kept=True, findings=findings)


def _make(source: Source, out: Path, key: str) -> Outcome:
    scan = read_volume(source.image)
    arrays, facts, findings = arrays_of(source, scan)
    payload, places = pack_arrays(arrays)
    row = CaseRow(
        id=source.id,
        subject=source.subject,
        split="",
        source=source.image.name,
        sha256=scan.sha256_file,
        masks=tuple(name for name, _ in source.masks),
        has_lesion=LESION in arrays,
        has_tissue=TISSUE in arrays,
        kind=source.kind,
        file=f"{CASES}/{source.id}.bin",
        bytes=len(payload),
        sha256_file=hashlib.sha256(payload).hexdigest(),
        arrays=places,
        **facts,
    )
    noticed = tuple(f for f in dict.fromkeys([*scan.findings, *findings]) if f.level != "pass")
    record = {"key": key, "row": row.as_json(), "findings": [asdict(f) for f in noticed]}
    write_files([(out / row.file, payload), (record_path(out, source.id), json.dumps(record).encode())])
    return Outcome(source.id, row, findings=noticed)
