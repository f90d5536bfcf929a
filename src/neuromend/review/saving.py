"""Save a fill of the session under the names that ``neuromend fill`` gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuromend.data.atomic import OutputSet
from neuromend.errors import StorageError
from neuromend.planning import OutputPlan, files_behind
from neuromend.provenance import hash_file, read_sidecar
from neuromend.saving import older_sidecar_aside


def save_files(
    outputs: dict[str, Path], out: Path, image: Path, *, samples: int, others: Sequence[Path], overwrite: bool
) -> list[str]:
    """Copy the complete files of a fill to ``out``: checked, all or none, the sidecar last.

    Args:
        outputs: the files of the fill by role, named after the scan as all names of a plan are.
        out: the folder, made if needed.
        image: the scan.
        samples: of the fill.
        others: more files that must not be written to.
        overwrite: replace files that are there.

    Returns:
        The names, in the order of the plan.

    Raises:
        OutputError, OutputPermissionError, StorageError: nothing was written; RT-04 if a file is there.
    """
    plan = OutputPlan.of(out / outputs["filled"].name, image, samples=samples)
    plan.check([*files_behind(image), *others], overwrite=overwrite, create=True)
    known = {record.role: record.sha256 for record in read_sidecar(outputs["record"]).outputs}
    with OutputSet() as staged:
        for role, path in plan.files.items():
            source = outputs[role]
            if role in known and hash_file(source) != known[role]:
                raise _changed(source)
            staged.add(path, source.read_bytes())
        with older_sidecar_aside(plan):
            staged.publish()
    return [path.name for path in plan.files.values()]


def _changed(path: Path) -> StorageError:
    return StorageError(
        "RT-06",
        "the file of the session was changed after it was made",
        why="its record vouches for other bytes",
        fix="press Fill again and save the new result",
        path=path,
    )
