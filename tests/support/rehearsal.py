"""A LUNA16-shaped folder so small that preparing it takes a blink: to rehearse faults on.

Geometric bodies, not anatomy: an elliptic chest, two ellipsoid lungs, one spherical nodule. For
anything that is about images use the phantoms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.lungs.mask import LUNA16_LEFT, LUNA16_RIGHT
from lungdet_mmdet.ct.scan import AIR_HU
from lungdet_mmdet.luna16.folder import LUNG_MASK_FOLDER
from lungdet_mmdet.runs.files import phantom_uid

SIZE_ZYX = (36, 64, 64)
SPACING_ZYX_MM = (5.0, 5.0, 5.0)
ORIGIN_XYZ_MM = (-157.5, -157.5, 0.0)
NODULE_DIAMETER_MM = 20.0
LUNG_HU, TISSUE_HU = -850, 40
# The usual steps at a coarse spacing.
REHEARSAL_STEPS: list[dict] = [
    {"type": "LoadCTScan"},
    {"type": "ResampleScan", "spacing_zyx_mm": [2.5, 4.0, 4.0]},
    {"type": "OtsuLungMask"},
    {"type": "DropPeripheralSlices", "min_area_share": 0.02},
    {"type": "CropToLungs", "margin_mm": 5.0},
    {"type": "WindowHU", "level_hu": -600, "width_hu": 1500},
    {"type": "CLAHE", "clip_limit": 2.0, "tiles_yx": [8, 8]},
    {"type": "MIPSlabs", "thickness_mm": 7.5},
]


def rehearsal_uid(index: int) -> str:
    """Return the series UID of the scan of that index."""
    return phantom_uid(size="small", seed=2**40, index=index)


def nodule_centre(index: int) -> tuple[float, float, float]:
    """Return the world position (x, y, z in mm) of the nodule of the scan of that index."""
    return (70.0, 5.0 * (index % 5), 80.0)


def write_rehearsal_folder(root: Path, n_scans: int, *, lung_masks: bool = False) -> Path:
    """Write scans over subset0 and subset1, with their tables; return `root`.

    Parameters
    ----------
    root : the folder to write.
    n_scans : number of scans.
    lung_masks : also write masks as LUNA16's own: 3 in the left lung, 4 in the right.
    """
    rows = ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    for index in range(n_scans):
        uid = rehearsal_uid(index)
        _write(root / f"subset{index % 2}" / f"{uid}.mhd", _volume(index))
        if lung_masks:
            _write(root / LUNG_MASK_FOLDER / f"{uid}.mhd", _lung_labels())
        rows.append(",".join(map(str, (uid, *nodule_centre(index), NODULE_DIAMETER_MM))))
    (root / "annotations.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING_ZYX_MM[::-1])
    image.SetOrigin(ORIGIN_XYZ_MM)
    sitk.WriteImage(image, str(path), useCompression=True)


def _axes_mm() -> tuple[np.ndarray, ...]:
    """Return the world coordinates z, y, x of the voxels, shaped to broadcast."""
    starts = ORIGIN_XYZ_MM[::-1]
    return np.ix_(
        *(s + d * np.arange(n) for s, d, n in zip(starts, SPACING_ZYX_MM, SIZE_ZYX, strict=True))
    )


def _lung(side: int) -> np.ndarray:
    """Return where a lung is, bool (z, y, x); `side` is -1 for the right one, 1 for the left."""
    z, y, x = _axes_mm()
    return ((x - 68 * side) / 50) ** 2 + (y / 75) ** 2 + ((z - 85) / 75) ** 2 <= 1


def _lung_labels() -> np.ndarray:
    """Return uint8 labels (z, y, x) as in LUNA16's masks."""
    return (LUNA16_RIGHT * _lung(-1) + LUNA16_LEFT * _lung(1)).astype(np.uint8)


def _volume(index: int) -> np.ndarray:
    """Return int16 Hounsfield values (z, y, x) of one scan."""
    z, y, x = _axes_mm()
    volume = np.full(SIZE_ZYX, AIR_HU, dtype=np.int16)
    volume[np.broadcast_to((x / 140) ** 2 + (y / 110) ** 2 <= 1, SIZE_ZYX)] = TISSUE_HU
    for side in (-1, 1):
        volume[_lung(side)] = LUNG_HU + index % 7
    cx, cy, cz = nodule_centre(index)
    radius = NODULE_DIAMETER_MM / 2
    volume[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= radius**2] = TISSUE_HU
    return volume
