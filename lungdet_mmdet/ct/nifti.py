# SPDX-License-Identifier: Apache-2.0
"""NIfTI: a file checked, and its voxels read.

SimpleITK returns a file that ends early as a whole image, with old memory in the place of the
missing voxels; it makes 0 or 1 of numbers that are none, passes over small slopes, and has no
answer for a grid that is sheared by the rounding of a converter.
"""

from __future__ import annotations

import gzip
import itertools
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.geometry import MAX_VOXELS, NO_DIRECTIONS, FileGrid
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import MAX_DEFLATE_RATIO

_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540
_CHUNK_BYTES = 1 << 24
_File = gzip.GzipFile | BufferedReader
_TYPES = {
    2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 16: "f4", 64: "f8", 1024: "i8",
    1280: "u8",
}  # fmt: skip
# From NIfTI's axes (right, anterior, superior) to ours (left, posterior, superior).
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
# qform and sform may differ by rounding; by more, a scan would lie in two places.
MAX_DISAGREEMENT_VOXELS = 0.25
SPACING_TOLERANCE_REL = 1e-3
# Millimetres, or not said. Readers differ on what they do with metres and micrometres.
_UNITS_OF_MM, _UNITS_MASK = (0, 2), 0x07
# Below this a slope leaves nothing of any value; some readers then pass over it.
MIN_SLOPE = 1e-9


@dataclass(frozen=True)
class NiftiHeader:
    """What decides how pixels are read, under the names of the NIfTI standard.

    ``order`` is the byte order as NumPy names it; ``qform`` holds the five numbers behind
    ``qform_code`` and ``sform`` the twelve behind ``sform_code``.
    """

    order: str
    dim: tuple[int, ...]
    datatype: int
    bitpix: int
    pixdim: tuple[float, ...]
    qfac: float
    vox_offset: float
    scl_slope: float
    scl_inter: float
    units: int
    qform_code: int
    sform_code: int
    qform: tuple[float, ...]
    sform: tuple[float, ...]
    header_bytes: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes along the axes, x first."""
        return self.dim[1 : 1 + max(self.dim[0], 0)]

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all pixels."""
        return math.prod(self.sizes) * self.bitpix // 8

    @property
    def decimal_spacing(self) -> tuple[float, float, float]:
        """Spacings x, y, z as they were before they became 32-bit numbers.

        0.8203120231628418 mm was 0.820312 mm: without this, the same scan would be resampled a
        little differently from every other format. Axes that are not there have a spacing of 1.
        """
        sizes = len(self.sizes)
        x, y, z = (
            float(str(np.float32(p))) if i < sizes else 1.0 for i, p in enumerate(self.pixdim[:3])
        )
        return x, y, z

    @property
    def affine(self) -> np.ndarray | None:
        """(4, 4) from voxel x, y, z to mm right, anterior, superior; None where none is stated."""
        if self.sform_code > 0:
            return np.vstack([np.reshape(self.sform, (3, 4)), (0.0, 0.0, 0.0, 1.0)])
        return self.qform_affine if self.qform_code > 0 else None

    @property
    def qform_affine(self) -> np.ndarray:
        """(4, 4) from the quaternion of the header."""
        b, c, d, x, y, z = self.qform
        a = math.sqrt(max(1.0 - (b * b + c * c + d * d), 0.0))
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        affine = np.eye(4)
        qfac = -1.0 if self.qfac == -1 else 1.0
        affine[:3, :3] = rotation * np.array(self.decimal_spacing) * (1.0, 1.0, qfac)
        affine[:3, 3] = x, y, z
        return affine


def _parsed(path: Path, head: bytes) -> NiftiHeader:
    for order in "<>":
        if len(head) >= _NIFTI1_BYTES and head[:4] == struct.pack(f"{order}i", _NIFTI1_BYTES):
            dim = struct.unpack(f"{order}8h", head[40:56])
            datatype, bitpix = struct.unpack(f"{order}2h", head[70:74])
            qfac, *pixdim = struct.unpack(f"{order}8f", head[76:108])
            offset, slope, inter = struct.unpack(f"{order}3f", head[108:120])
            qcode, scode = struct.unpack(f"{order}2h", head[252:256])
            qform = struct.unpack(f"{order}6f", head[256:280])
            sform = struct.unpack(f"{order}12f", head[280:328])
            units, header_bytes = head[123], _NIFTI1_BYTES
        elif len(head) >= _NIFTI2_BYTES and head[:4] == struct.pack(f"{order}i", _NIFTI2_BYTES):
            datatype, bitpix = struct.unpack(f"{order}2h", head[12:16])
            dim = struct.unpack(f"{order}8q", head[16:80])
            qfac, *pixdim = struct.unpack(f"{order}8d", head[104:168])
            offset, slope, inter = struct.unpack(f"{order}q2d", head[168:192])
            qcode, scode = struct.unpack(f"{order}2i", head[344:352])
            qform = struct.unpack(f"{order}6d", head[352:400])
            sform = struct.unpack(f"{order}12d", head[400:496])
            (units,) = struct.unpack(f"{order}i", head[500:504])
            header_bytes = _NIFTI2_BYTES
        else:
            continue
        return NiftiHeader(
            order, dim, datatype, bitpix, tuple(pixdim), qfac, offset, slope, inter, units, qcode,
            scode, qform, sform, header_bytes,
        )  # fmt: skip
    raise LungDetError(f"{path}: not a NIfTI file, or a truncated one; convert the scan again")


def _check_header(path: Path, header: NiftiHeader) -> None:
    sizes = header.sizes
    is_sound = 1 <= len(sizes) <= 7 and min(sizes) >= 1 and math.prod(sizes) <= MAX_VOXELS
    kind = _TYPES.get(header.datatype)
    bits = 8 * np.dtype(kind).itemsize if kind else header.bitpix
    # Four bytes that announce extensions lie between header and pixels.
    offset_is_sound = header.header_bytes + 4 <= header.vox_offset < math.inf
    if not is_sound or header.bitpix != bits or bits < 1 or not offset_is_sound:
        raise LungDetError(
            f"{path}: the NIfTI header has dim {header.dim}, datatype {header.datatype}, bitpix "
            f"{header.bitpix} and vox_offset {header.vox_offset}: needed are sizes of at least 1 "
            f"with at most {MAX_VOXELS} voxels in all, bits that fit the datatype, and pixels "
            "behind the header; convert the scan again"
        )
    spacings = header.pixdim[: min(len(sizes), 3)]
    if not all(math.isfinite(s) and s > 0 for s in spacings):
        raise LungDetError(
            f"{path}: the NIfTI header has pixdim {spacings}: finite spacings > 0 mm are needed; "
            "convert the scan again"
        )
    slope, inter = header.scl_slope, header.scl_inter
    # Both mean that nothing is scaled, but readers differ on an intercept beside them.
    has_no_slope = slope == 0 or math.isnan(slope)
    if has_no_slope:
        is_clear = inter == 0 or math.isnan(inter)
    else:
        is_clear = math.isfinite(inter) and MIN_SLOPE <= abs(slope) < math.inf
    if not is_clear:
        raise LungDetError(
            f"{path}: the NIfTI header has scl_slope {slope} and scl_inter {inter}: Hounsfield "
            "values cannot be told from these; convert the scan again"
        )


def _check_place(path: Path, header: NiftiHeader) -> None:
    """Refuse a header whose statements about the grid contradict each other."""
    if header.units & _UNITS_MASK not in _UNITS_OF_MM:
        raise LungDetError(
            f"{path}: the NIfTI header gives lengths in unit {header.units & _UNITS_MASK} of the "
            "standard, not in millimetres (2); convert the scan again"
        )
    affine = header.affine
    if affine is None:
        return
    if not np.all(np.isfinite(affine)):
        raise LungDetError(
            f"{path}: the NIfTI header has an origin or direction that is no number "
            f"({affine[:3].tolist()}: origin {affine[:3, 3].tolist()}); convert the scan again"
        )
    spacing = np.array(header.decimal_spacing)
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    fit = np.abs(lengths / spacing - 1.0) <= SPACING_TOLERANCE_REL
    if fit[:2].all() and not fit[2]:
        # Slices of a tilted gantry: their distance may be stated along the normal.
        across = abs(np.cross(columns[:, 0], columns[:, 1]) @ columns[:, 2])
        across /= lengths[0] * lengths[1]
        fit[2] = abs(across / spacing[2] - 1.0) <= SPACING_TOLERANCE_REL
    if not fit.all():
        raise LungDetError(
            f"{path}: the NIfTI header states two spacings: pixdim {spacing.tolist()} mm, and "
            f"{np.round(lengths, 4).tolist()} mm in its "
            f"{'sform' if header.sform_code > 0 else 'qform'}; convert the scan again from DICOM"
        )
    if header.sform_code > 0 and header.qform_code > 0:
        sizes = np.array((*header.sizes, 1, 1)[:3])
        corners = np.array(list(itertools.product(*[(0, n - 1) for n in sizes])))
        both = header.qform_affine
        apart = np.linalg.norm(
            corners @ (affine[:3, :3] - both[:3, :3]).T + affine[:3, 3] - both[:3, 3], axis=1
        )
        if not apart.max() <= MAX_DISAGREEMENT_VOXELS * spacing.min():
            raise LungDetError(
                f"{path}: the NIfTI header states two places: qform and sform are up to "
                f"{apart.max():.1f} mm apart; save the scan with one of them, or convert it again"
            )


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _opened(path: Path) -> _File:
    return gzip.open(path) if _is_compressed(path) else path.open("rb")


def _read_header(path: Path, file: _File) -> NiftiHeader:
    header = _parsed(path, file.read(_NIFTI2_BYTES))
    _check_header(path, header)
    _check_place(path, header)
    return header


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header alone: what it states is checked, not what follows it.

    Raises LungDetError if it is no sound one, or its statements about the grid contradict each
    other.
    """
    try:
        with _opened(path) as file:
            return _read_header(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise LungDetError(
            f"{path}: cannot be read ({error}); copy or download it again"
        ) from error


def read_nifti(path: Path) -> tuple[np.ndarray, FileGrid, tuple[str, ...]]:
    """Read a NIfTI file (.nii or .nii.gz), which must hold as many bytes as its header promises.

    Returns
    -------
    values : array (z, y, x), slope and intercept applied.
    grid : where they lie, as the file states it.
    flags : what the file does not say.

    Raises
    ------
    LungDetError
        As `read_nifti_header`; or if it is no 3-D volume of single numbers, is truncated or too
        long, or its compressed stream is damaged.
    """
    try:
        with _opened(path) as file:
            header = _read_header(path, file)
            sizes = (*header.sizes, 1, 1)[:3]
            if header.datatype not in _TYPES or math.prod(header.sizes) != math.prod(sizes):
                raise LungDetError(
                    f"{path}: {len(header.sizes)}-D with "
                    f"{1 if header.datatype in _TYPES else 'several'} values per pixel; one 3-D "
                    "scalar CT volume is needed: convert a single series"
                )
            data = _pixels(path, file, header)
    except (OSError, EOFError, zlib.error) as error:
        raise LungDetError(
            f"{path}: cannot be decompressed ({error}); the file is truncated or damaged: copy or "
            "download it again"
        ) from error
    values = np.frombuffer(data, dtype=header.order + _TYPES[header.datatype])
    values = values.reshape(sizes[::-1]).astype(values.dtype.newbyteorder("="), copy=False)
    slope, inter = header.scl_slope, header.scl_inter
    if slope != 0 and not math.isnan(slope) and (slope, inter) != (1.0, 0.0):
        values = values * slope + inter
    return values, *nifti_grid(header)


def _pixels(path: Path, file: _File, header: NiftiHeader) -> bytearray:
    """Return the bytes of the pixels; a compressed file is read to its checksum behind them."""
    offset, data = int(header.vox_offset), bytearray()
    promised = offset + header.pixel_bytes
    slice_bytes = header.pixel_bytes // math.prod(header.sizes[2:])
    size = path.stat().st_size
    found = 0 if _is_compressed(path) else size
    # A file this short cannot hold more: nothing has to be read to know.
    if promised <= size * (MAX_DEFLATE_RATIO if _is_compressed(path) else 1):
        file.seek(offset)
        # In pieces: memory for all of them is asked for as they come.
        while chunk := file.read(min(header.pixel_bytes - len(data), _CHUNK_BYTES)):
            data += chunk
        if _is_compressed(path):
            file.read(slice_bytes)
            found = file.tell()
    if not promised <= found < promised + slice_bytes:
        raise LungDetError(
            f"{path}: {found} bytes, the header promises {promised} with dim {header.dim} and "
            f"datatype {header.datatype}: the file is truncated or its header wrong; copy or "
            "convert it again"
        )
    return data


def nifti_grid(header: NiftiHeader) -> tuple[FileGrid, tuple[str, ...]]:
    """Return where the voxels lie, as the file states it, and what the file does not say."""
    x, y, z = (*header.sizes, 1, 1)[:3]
    affine = header.affine
    flags: tuple[str, ...] = ()
    if affine is None:
        flags = (NO_DIRECTIONS.format("qform and sform code 0"),)
        # As ITK and most viewers take it: columns to the left, rows backwards.
        affine = np.diag([*(_RAS_TO_LPS * header.decimal_spacing), 1.0])
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    stated = np.array(header.decimal_spacing)
    # The distance of tilted slices may be stated along their normal; here it is along their axis.
    is_stated = np.abs(lengths / stated - 1.0) <= SPACING_TOLERANCE_REL
    grid = FileGrid(
        size_zyx=(z, y, x),
        spacing_xyz_mm=np.where(is_stated, stated, lengths),
        origin_xyz_mm=_RAS_TO_LPS * affine[:3, 3],
        axes_xyz=_RAS_TO_LPS[:, None] * columns / lengths,
    )
    return grid, flags
