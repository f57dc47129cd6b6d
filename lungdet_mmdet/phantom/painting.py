"""Paint the tissues of all slices of a phantom, and draw its vessels and airways into them."""

from __future__ import annotations

import cv2
import numpy as np

from lungdet_mmdet.ct.scan import AIR_HU
from lungdet_mmdet.phantom.acquisition import smooth_texture
from lungdet_mmdet.phantom.anatomy import Anatomy
from lungdet_mmdet.phantom.canvas import SliceCanvas
from lungdet_mmdet.phantom.chest_wall import Surroundings
from lungdet_mmdet.phantom.drawing import Grid, draw_tubes
from lungdet_mmdet.phantom.tissues import paint_slice
from lungdet_mmdet.phantom.vessels import PulmonaryTrees

LABEL_LEFT_LUNG = 3
LABEL_RIGHT_LUNG = 4
LABEL_TRACHEA = 5
"""Labels as in LUNA16's own lung masks: the lungs are 3 and 4, trachea and main bronchi 5."""

_AIRWAY_WALL_HU = 20.0


def paint_tissues(
    anatomy: Anatomy,
    surroundings: Surroundings,
    grid: Grid,
    rng: np.random.Generator,
    *,
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint all slices; every ``step``-th pixel is computed, the rest interpolated.

    Returns
    -------
    volume, labels : (z, y, x) int16 HU, and uint8 labels of the lungs, on the grid.
    """
    n_slices, n_rows, n_columns = grid.size_zyx
    scale_x, scale_y, scale_z = anatomy.scale_xyz
    # Centres of blocks of step x step pixels, which is what cv2.resize assumes.
    half = 0.5 * (step - 1)
    y = (grid.axis_mm(1)[::step] + half * grid.spacing_zyx_mm[1]) / scale_y
    x = (grid.axis_mm(2)[::step] + half * grid.spacing_zyx_mm[2]) / scale_x
    x, y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    pixel_mm = step * grid.spacing_zyx_mm[2] / scale_x
    volume = np.empty(grid.size_zyx, dtype=np.int16)
    labels = np.zeros(grid.size_zyx, dtype=np.uint8)
    side = np.where(grid.axis_mm(2) > 0, LABEL_LEFT_LUNG, LABEL_RIGHT_LUNG).astype(np.uint8)
    for k, z in enumerate(grid.axis_mm(0) / scale_z):
        canvas = SliceCanvas(x, y, float(z), pixel_mm=pixel_mm)
        lung = paint_slice(
            anatomy, surroundings, canvas, smooth_texture((x.shape[0], x.shape[1]), rng)
        )
        volume[k] = np.rint(_enlarged(canvas.hu, (n_rows, n_columns)))
        labels[k] = (_enlarged(lung, (n_rows, n_columns)) < 0) * side
    return volume, labels


def _enlarged(image: np.ndarray, size_yx: tuple[int, int]) -> np.ndarray:
    """Return a slice on the full pixel grid, as float32."""
    image = image.astype(np.float32, copy=False)
    if image.shape == size_yx:
        return image
    return cv2.resize(image, size_yx[::-1], interpolation=cv2.INTER_LINEAR)


def draw_trees(
    volume: np.ndarray, labels: np.ndarray, grid: Grid, trees: PulmonaryTrees, *, blood_hu: float
) -> None:
    """Draw vessels, airway walls and airway lumens, in place."""
    draw_tubes(volume, grid, trees.vessels, tissue_hu=blood_hu)
    draw_tubes(volume, grid, trees.lumens.grown(trees.wall_mm), tissue_hu=_AIRWAY_WALL_HU)
    within_lungs = trees.lumens.part(slice(trees.n_central, None))
    draw_tubes(volume, grid, within_lungs, tissue_hu=AIR_HU, hollow=True)
    central = trees.lumens.part(slice(0, trees.n_central))
    draw_tubes(
        volume, grid, central, tissue_hu=AIR_HU, hollow=True, labels=labels, label=LABEL_TRACHEA
    )
