"""A prepared folder in a second: slabs of noise with bright discs, made without any scan.

For trying out a training set-up, not for learning anything about nodules.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lungdet_mmdet.annotations.mask_nodules import nodules_of_labels
from lungdet_mmdet.annotations.scan_masks import mask_record
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM, SlabGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_json
from lungdet_mmdet.runs.files import PHANTOM_UID_PREFIX

# Beside the size codes of whole phantom scans, so that their UIDs never meet.
SIZE_CODE = 9
SPACING_MM = 0.5
N_SUBSETS = 10
TISSUE_GREY = 60
NODULE_GREY = 200


def write_slab_folder(
    folder: str | Path,
    *,
    n_series: int = 10,
    n_slabs: int = 3,
    size_px: int = 64,
    with_nodules: bool = True,
    prep_pipeline: Sequence[dict] | None = None,
    seed: int = 0,
) -> Path:
    """Write the slabs, records and manifest of a prepared folder; the splits are made after it.

    The second slab of every series (the first, where there is one) shows one nodule of 5 to 7.4 mm,
    a bright disc, and no other slab does. The series go round the ten official subsets.

    Parameters
    ----------
    folder : where to write.
    n_series, n_slabs, size_px : how many series of how many square slabs.
    with_nodules : False leaves every slab healthy.
    prep_pipeline : what the manifest says the slabs were made by; None writes no manifest.
    seed : of noise, places and sizes.

    Raises
    ------
    LungDetError
        If the slabs are too small for a nodule.
    """
    if size_px < 32:
        raise LungDetError(f"slabs of {size_px} px are too small for a nodule: give 32 or more")
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    records = []
    for number in range(n_series):
        uid = f"{PHANTOM_UID_PREFIX}.{SIZE_CODE}.{seed}.{1 + number}"
        images = rng.normal(TISSUE_GREY, 8.0, (n_slabs, size_px, size_px))
        nodules: list[dict] = []
        masks: dict[int, np.ndarray] = {}
        if with_nodules:
            index = min(1, n_slabs - 1)
            diameter = float(rng.uniform(5.0, 7.4))
            x, y = (float(v) for v in rng.uniform(16.0, size_px - 16.0, 2))
            nodules = [
                {
                    "nodule_id": f"{uid}/0",
                    "centre_xyz_mm": [x * SPACING_MM, y * SPACING_MM, SLAB_THICKNESS_MM * index],
                    "diameter_mm": diameter,
                    "coverage": 1.0,
                }
            ]
            disc = _disc(images[index].shape, x, y, diameter / 2.0 / SPACING_MM)
            images[index] = np.where(disc, NODULE_GREY, images[index])
            masks = {index: disc}
        records.append(_write_series(folder / "slabs" / uid, uid, number, images, nodules, masks))
    if prep_pipeline is not None:
        scans = [{"seriesuid": r["seriesuid"], "status": "ok"} for r in records]
        write_json(
            folder / "manifest.json",
            {"data": "phantom", "pipeline": list(prep_pipeline), "scans": scans},
        )
    return folder


def _disc(shape_yx: tuple[int, ...], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(shape_yx)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def _write_series(
    folder: Path,
    uid: str,
    number: int,
    images: np.ndarray,
    nodules: list[dict],
    masks: dict[int, np.ndarray],
) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    slabs, geometries = [], []
    for index, image in enumerate(images):
        grey = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        name = f"{index:03d}.png"
        (folder / name).write_bytes(cv2.imencode(".png", grey)[1].tobytes())
        middle = SLAB_THICKNESS_MM * index
        geometry = SlabGeometry(
            index=index,
            width=grey.shape[1],
            height=grey.shape[0],
            z_range_mm=(middle - SLAB_THICKNESS_MM / 2.0, middle + SLAB_THICKNESS_MM / 2.0),
            spacing_xy_mm=(SPACING_MM, SPACING_MM),
            origin_xyz_mm=(0.0, 0.0, middle),
        )
        geometries.append(geometry)
        slabs.append({**geometry.as_record(), "file_name": f"{uid}/{name}"})
    grid = ScanGeometry(
        (len(images), *images.shape[1:]),
        (SLAB_THICKNESS_MM, SPACING_MM, SPACING_MM),
        (0.0, 0.0, 0.0),
    )
    for nodule, (index, disc) in zip(nodules, masks.items(), strict=True):
        labels = np.zeros(images.shape, np.uint8)
        labels[index] = disc
        (found,) = nodules_of_labels(labels, grid, source=uid)
        nodule["mask"] = mask_record(found, grid, grid, geometries, {})
    record = {
        "seriesuid": uid,
        "subset": number % N_SUBSETS,
        "status": "ok",
        "slabs": slabs,
        "nodules": nodules,
        "excluded": [],
    }
    write_json(folder / "scan.json", record)
    return record
