"""Pixels of a phantom as the package makes them, small enough to keep.

``python tests/preparation/golden_pixels.py`` writes ``golden_pixels.npz`` anew, for a
``PIXELS_VERSION`` that was raised; it refuses the version that the file has, but for
``--phantoms``: where other phantoms, not the preparation, changed what comes out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_suffix(".npz")
CONFIGS = ("lung_deform_detr", "lung_deform_detr_phantom")
BLOCK_PX = 8
"""Means of blocks are kept: another processor may round a pixel, a change of code moves many."""


def golden_arrays() -> dict[str, np.ndarray]:
    """Return per config the block means of every slab, and the slices of the mask by area."""
    from mmengine.config import Config

    from lungdet_mmdet.ct.geometry import to_canonical
    from lungdet_mmdet.ct.scan import CTScan
    from lungdet_mmdet.phantom.scan import build_scan
    from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline, prep_steps, run_steps

    phantom = build_scan(7)
    volume_hu, geometry = to_canonical(phantom.volume_hu, phantom.geometry)
    scan = CTScan(volume_hu, geometry, phantom.geometry, "phantom")
    arrays = {}
    for name in CONFIGS:
        path = ROOT / "configs" / f"{name}.py"
        steps = prep_steps(Config.fromfile(path, import_custom_modules=False), source=str(path))
        results, _ = run_steps(build_prep_pipeline(steps), {"scan": scan, "scan_path": ""})
        arrays[f"{name}/slabs"] = np.stack([block_means(slab) for slab in results["slabs"]])
        arrays[f"{name}/mask"] = results["lung_mask"].sum(axis=(1, 2), dtype=np.int64)
    return arrays


def block_means(slab: np.ndarray) -> np.ndarray:
    """Return the means of 8 x 8 px blocks of a slab (y, x), float32; the rest at its end is cut.

    Of a slab with its neighbours (y, x, c) the middle channel is the slab itself.
    """
    if slab.ndim == 3:
        slab = slab[..., slab.shape[2] // 2]
    rows, columns = (size // BLOCK_PX for size in slab.shape[:2])
    blocks = slab[: rows * BLOCK_PX, : columns * BLOCK_PX]
    blocks = blocks.reshape(rows, BLOCK_PX, columns, BLOCK_PX)
    return blocks.mean(axis=(1, 3), dtype=np.float32).astype(np.float16)


def main() -> int:
    from lungdet_mmdet.preparation.prep_pipeline import PIXELS_VERSION

    is_kept = FILE.is_file() and int(np.load(FILE)["version"]) == PIXELS_VERSION
    if is_kept and "--phantoms" not in sys.argv:
        print(f"{FILE} is of version {PIXELS_VERSION}: raise PIXELS_VERSION first")
        return 1
    np.savez_compressed(FILE, version=PIXELS_VERSION, **golden_arrays())
    print(f"{FILE}: version {PIXELS_VERSION}, {FILE.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
