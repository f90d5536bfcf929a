"""Read a scan with care: a ``Volume`` holds the file's own bytes beside its intensities and its place in the
world.

Everything that can be wrong with the file is refused here or listed in ``Volume.findings``; nothing is
repaired.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.data import mgh, nifti
from neuromend.data.container import FileBytes, Peek, load, peek
from neuromend.data.content import Kind, kind_of
from neuromend.data.header import Affine, Header, check_geometry
from neuromend.data.images import image_bytes
from neuromend.data.pairs import PAIRED, locate
from neuromend.errors import InputError, UsageError
from neuromend.findings import Finding

MAX_VOXELS = 512**3


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume of one file.

    Args:
        path: the file (the half with the voxels, of a pair), or None for an image from memory.
        header: what the file says about its voxels.
        values: (x, y, z) intensities in stored axis order, scaled, not finite ones kept, read-only; float32
            where that loses nothing, else float64.
        raw: every byte of the (inflated) file, read-only; what ``splice`` starts from.
        header_raw: every byte of the header half of a pair, else None.
        volume_index: which volume of a series (0 for a single one).
        findings: what was noticed.
        sha256_file: of the file on disk; of the two hexadecimal hashes, header first, for a pair.
        sha256_voxels: of the stored bytes of this volume.
    """

    path: Path | None
    header: Header
    values: NDArray[np.floating[Any]]
    raw: NDArray[np.uint8]
    header_raw: bytes | None
    volume_index: int
    findings: tuple[Finding, ...]
    sha256_file: str
    sha256_voxels: str

    @property
    def affine(self) -> Affine:
        """(4, 4) voxel index -> RAS mm."""
        return self.header.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the three axes, from the columns of the affine."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the three axes."""
        return self.header.shape

    @property
    def container(self) -> Kind:
        """Format of the file."""
        return self.header.container

    @property
    def stored_dtype(self) -> np.dtype[np.generic]:
        """Type of the stored voxels, with its byte order."""
        return self.header.stored_dtype

    @property
    def slope(self) -> float:
        """intensity = stored * slope + inter; 1 without scaling."""
        return self.header.slope

    @property
    def inter(self) -> float:
        """intensity = stored * slope + inter; 0 without scaling."""
        return self.header.inter

    @property
    def has_world(self) -> bool:
        """False if the file does not say where its axes point to and the user did."""
        return self.header.has_world

    def stored(self, raw: NDArray[np.uint8] | None = None) -> NDArray[Any]:
        """View the stored voxels (x, y, z) of this volume, in ``raw`` or in other bytes of the same
        layout."""
        return _stored(self.raw if raw is None else raw, self.header, self.volume_index)


def read_volume(
    path: str | Path,
    *,
    max_voxels: int = MAX_VOXELS,
    volume_index: int | None = None,
    assume_orientation: str | None = None,
) -> Volume:
    """Read a NIfTI-1, NIfTI-2 (single, gzipped or pair), MGH or Analyze file.

    Args:
        path: the file; of a pair, either half.
        max_voxels: refuse larger files before anything is allocated.
        volume_index: which volume of a series, counted from 0 over all axes behind the third.
        assume_orientation: where the axes point to if the file does not say, for example ``"RAS"``.

    Raises:
        InputError, GeometryError: bad data (IN-01 to IN-36).
        MissingInputError: no such file (IN-38), half of a pair (IN-35).
        TemporaryError: the file changed while it was read (IN-42).
        UsageError: ``volume_index`` or ``assume_orientation`` makes no sense.
    """
    header_path, voxel_path, container = locate(Path(path))
    seen_header = peek(header_path)
    header = _parse(header_path, seen_header.head, container, assume_orientation)
    paired = container in PAIRED
    seen = peek(voxel_path) if paired else seen_header
    _check_size(voxel_path, header, seen, max_voxels)
    index = _choose_volume(voxel_path, header, volume_index)
    findings = check_geometry(header_path, header)
    file = load(voxel_path, header.needed_bytes, seen)
    findings += _file_findings(voxel_path, seen, file, header)
    header_raw = None
    sha256 = file.sha256
    if paired:
        half = load(header_path, min(len(seen_header.head), nifti.NIFTI1_SIZE), seen_header)
        header_raw = half.raw.tobytes()
        sha256 = hashlib.sha256((half.sha256 + file.sha256).encode()).hexdigest()
    return _assemble(voxel_path, header, file.raw, header_raw, index, findings, sha256)


def volume_from_image(
    image: Any, *, volume_index: int | None = None, assume_orientation: str | None = None
) -> Volume:
    """The same for an image in memory.

    Args:
        image: a nibabel ``Nifti1Image``, ``Nifti2Image`` or ``MGHImage``. One that was loaded from a file
            keeps the stored voxels and the scaling of the file; one made from an array is stored in the
            array's type.
        volume_index, assume_orientation: as for ``read_volume``.

    Raises:
        InputError, GeometryError: as ``read_volume``; IN-34 for other classes.
    """
    raw = np.frombuffer(image_bytes(image), np.uint8)
    head = raw[:1024].tobytes()
    header = _parse(None, head, kind_of(head, Path("image")), assume_orientation)
    index = _choose_volume(None, header, volume_index)
    findings = check_geometry(None, header)
    return _assemble(None, header, raw, None, index, findings, hashlib.sha256(raw.data).hexdigest())


def _parse(path: Path | None, head: bytes, container: Kind, assume_orientation: str | None) -> Header:
    if container == "mgh":
        return mgh.read_header(path, head, assume_orientation)
    return nifti.read_header(path, head, container, assume_orientation)


def _assemble(
    path: Path | None,
    header: Header,
    raw: NDArray[np.uint8],
    header_raw: bytes | None,
    index: int,
    findings: list[Finding],
    sha256_file: str,
) -> Volume:
    stored = _stored(raw, header, index)
    sha256_voxels = hashlib.sha256(stored.reshape(-1, order="F").view(np.uint8).data).hexdigest()
    values = intensities_of(stored, header)
    return Volume(
        path,
        header,
        values,
        raw,
        header_raw,
        index,
        (*header.findings, *findings),
        sha256_file,
        sha256_voxels,
    )


def _stored(raw: NDArray[np.uint8], header: Header, index: int) -> NDArray[Any]:
    count = prod(header.shape)
    start = header.voxel_offset + index * count * header.stored_dtype.itemsize
    voxels = raw[start : start + count * header.stored_dtype.itemsize].view(header.stored_dtype)
    return voxels.reshape(header.shape, order="F")


def intensities_of(stored: NDArray[Any], header: Header) -> NDArray[np.floating[Any]]:
    """Stored voxels in the scan's units, read-only: float32 where that loses nothing, else float64."""
    unscaled = (header.slope, header.inter) == (1.0, 0.0)
    exact = unscaled and np.can_cast(stored.dtype, np.float32, "safe")
    # Signalling NaNs and overflowing products are the file's own affair; they are counted later.
    with np.errstate(all="ignore"):
        values: NDArray[np.floating[Any]] = stored.astype(np.float32 if exact else np.float64, copy=False)
        if not unscaled:
            values = values * header.slope
            values += header.inter
    values = np.require(values, requirements="A")
    values.flags.writeable = False
    return values


def _check_size(path: Path, header: Header, seen: Peek, max_voxels: int) -> None:
    sizes = "x".join(map(str, header.dims))
    if header.needed_bytes > seen.capacity:
        held = f"can inflate to {seen.capacity} at most" if seen.compressed else f"has {seen.size}"
        raise InputError(
            "IN-09",
            f"the header promises {sizes} voxels of {header.stored_dtype.name}, {header.needed_bytes} bytes;"
            f" the file {held}",
            why="Either the file is cut off or its header is damaged; in both cases voxels are missing.",
            fix="Copy the file again from its source.",
            path=path,
        )
    if prod(header.dims) > max_voxels:
        raise InputError(
            "IN-10",
            f"{prod(header.dims)} voxels ({sizes}), expected at most {max_voxels}",
            why="Reading it may need more memory than there is.",
            fix=f"If this is really a scan: --max-voxels {prod(header.dims)}",
            path=path,
        )


def _choose_volume(path: Path | None, header: Header, index: int | None) -> int:
    if index is None and header.volumes > 1:
        raise InputError(
            "IN-12",
            f"a series of {header.volumes} volumes (dim {list(header.dims)}), expected one",
            why="Which of them to fill is your choice; they may be different contrasts or moments.",
            fix="Choose one, counted from 0: --volume 0   (or split them: fslsplit scan.nii.gz)",
            path=path,
        )
    if index is not None and not 0 <= index < header.volumes:
        raise UsageError(
            "IN-12",
            f"--volume {index}: expected 0 to {header.volumes - 1}",
            why="The file has no such volume.",
            fix="Leave --volume out for a single volume.",
            path=path,
        )
    return index or 0


def _file_findings(path: Path, seen: Peek, file: FileBytes, header: Header) -> list[Finding]:
    findings = []
    trailing = file.junk + (0 if header.container == "mgh" else file.trailing)
    if trailing:
        findings.append(
            Finding("IN-04", "note", f"{trailing} bytes follow the last voxel; they carry no image.")
        )
    if path.name.lower().endswith((".gz", ".mgz")) != seen.compressed:
        is_gz = "gzip-compressed" if seen.compressed else "not compressed"
        findings.append(
            Finding("IN-06", "note", f"{path.name} is {is_gz}, against its name; read by its content.")
        )
    if header.container in ("nifti1", "nifti2"):
        size = nifti.NIFTI1_SIZE if header.container == "nifti1" else nifti.NIFTI2_SIZE
        if file.raw[size] != 0 and header.voxel_offset > size + 4:
            kept = header.voxel_offset - size - 4
            findings.append(
                Finding("IN-37", "note", f"{kept} bytes of header extensions are kept as they are.")
            )
    return findings
