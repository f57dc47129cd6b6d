"""The voxels of a checked NIfTI file, and its grid.

Read here and not by ITK, which makes 0 of what is no number, passes over small slopes, and has no
answer for a grid that is sheared by the rounding of a converter.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.file_grid import FileGrid
from lungdet_mmdet.ct.files.nifti_check import SPACING_TOLERANCE_REL, NiftiHeader
from lungdet_mmdet.errors import LungDetError

_TYPES = {2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 16: "f4", 64: "f8"} | {
    1024: "i8",
    1280: "u8",
}
# From NIfTI's axes (right, anterior, superior) to ours (left, posterior, superior).
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def read_nifti(path: Path, header: NiftiHeader) -> tuple[np.ndarray, FileGrid, tuple[str, ...]]:
    """Read a NIfTI file that :func:`check_nifti` has passed.

    Returns
    -------
    values : array (z, y, x), slope and intercept applied.
    grid : where they lie, as the file states it.
    flags : what the file does not say.

    Raises
    ------
    LungDetError
        If it is no 3-D volume of single numbers.
    """
    if header.datatype not in _TYPES or [n for n in header.sizes if n > 1][3:]:
        raise LungDetError(
            f"{path}: {len(header.sizes)}-D with {1 if header.datatype in _TYPES else 'several'} "
            "values per pixel; one 3-D scalar CT volume is needed: convert a single series"
        )
    sizes = (*header.sizes, 1, 1)[:3]
    if math.prod(header.sizes) != math.prod(sizes):
        raise LungDetError(
            f"{path}: {len(header.sizes)}-D with 1 values per pixel; one 3-D scalar CT volume is "
            "needed: convert a single series"
        )
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        file.seek(int(header.vox_offset))
        data = file.read(header.pixel_bytes)
    values = np.frombuffer(data, dtype=header.order + _TYPES[header.datatype])
    values = values.reshape(sizes[::-1]).astype(values.dtype.newbyteorder("="), copy=False)
    slope, inter = header.scl_slope, header.scl_inter
    if slope != 0 and not math.isnan(slope) and (slope, inter) != (1.0, 0.0):
        values = values * slope + inter
    affine = header.affine
    flags: tuple[str, ...] = ()
    if affine is None:
        flags = (
            "the header says nothing about directions (qform and sform code 0): left and right, "
            "head and feet may be exchanged",
        )
        # As ITK and most viewers take it: columns to the left, rows backwards.
        affine = np.diag([*(_RAS_TO_LPS * header.decimal_spacing), 1.0])
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    stated = np.array(header.decimal_spacing)
    # The distance of tilted slices may be stated along their normal; here it is along their axis.
    is_stated = np.abs(lengths / stated - 1.0) <= SPACING_TOLERANCE_REL
    grid = FileGrid(
        size_zyx=(sizes[2], sizes[1], sizes[0]),
        spacing_xyz_mm=np.where(is_stated, stated, lengths),
        origin_xyz_mm=_RAS_TO_LPS * affine[:3, 3],
        axes_xyz=_RAS_TO_LPS[:, None] * columns / lengths,
    )
    return values, grid, flags
