"""A sound little chest scan, which every fault is made from."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.reading import read_scan
from tests.support import hard_phantoms as hard_cases
from tests.support.rehearsal import write_rehearsal_folder

GOOD_NAME = "good"


@lru_cache(maxsize=1)
def chest() -> tuple[np.ndarray, ScanGeometry]:
    """Return the rehearsal scan: 36 slices of 64 x 64 voxels of 5 mm, two lungs, one nodule."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_rehearsal_folder(Path(folder), 1)
        scan = read_scan(next(root.rglob("*.mhd")))
    scan.volume_hu.setflags(write=False)
    return scan.volume_hu, scan.geometry


@lru_cache(maxsize=1)
def abdomen() -> tuple[np.ndarray, ScanGeometry]:
    """Return a phantom scan that ends below the lungs, every second voxel."""
    scan = hard_cases.build("no_lungs", 0)
    dz, dy, dx = scan.geometry.spacing_zyx_mm
    volume = np.ascontiguousarray(scan.volume_hu[:, ::2, ::2])
    return volume, ScanGeometry(volume.shape, (dz, 2 * dy, 2 * dx), scan.geometry.origin_xyz_mm)


def image_of(volume: np.ndarray, geometry: ScanGeometry | None = None) -> sitk.Image:
    """Return a volume as SimpleITK stores it, on the chest's grid unless another is given."""
    geometry = geometry or chest()[1]
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(geometry.spacing_xyz_mm.tolist())
    image.SetOrigin(geometry.origin_xyz_mm)
    return image
