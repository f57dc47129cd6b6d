"""Paint one axial slice of the chest: from the room's air inwards to the lungs.

Coordinates are atlas millimetres (see `anatomy`). Each tissue is laid over what is there, with an
edge as wide as a pixel. Vessels, airways and nodules are drawn afterwards, in three dimensions.
"""

from __future__ import annotations

import numpy as np

from lungdet_mmdet.phantom import shapes
from lungdet_mmdet.phantom.anatomy import Anatomy
from lungdet_mmdet.phantom.canvas import SliceCanvas
from lungdet_mmdet.phantom.chest_wall import Surroundings, paint_chest_wall, paint_surroundings
from lungdet_mmdet.phantom.organs import paint_abdomen, paint_mediastinum, paint_spine


def paint_slice(
    anatomy: Anatomy,
    surroundings: Surroundings,
    canvas: SliceCanvas,
    texture: np.ndarray,
) -> np.ndarray:
    """Paint one slice onto ``canvas``.

    Parameters
    ----------
    texture : (y, x) smooth noise of unit variance: the mottle of the organs.

    Returns
    -------
    (y, x) signed distance to the lungs in atlas mm.
    """
    cavity = anatomy.cavity(canvas.x, canvas.y, canvas.z)
    paint_surroundings(anatomy, surroundings, canvas)
    paint_chest_wall(anatomy, canvas, cavity, texture)
    lung = anatomy.lung(canvas.x, canvas.y, canvas.z)
    paint_abdomen(anatomy, canvas, cavity, texture)
    paint_mediastinum(anatomy, canvas, cavity)
    paint_spine(anatomy, canvas)
    canvas.lay(lung, _lung_density(anatomy, canvas, texture))
    if anatomy.consolidation is not None:
        centre, radius = anatomy.consolidation
        mass = shapes.ellipsoid(
            (canvas.x - centre[0], canvas.y - centre[1], canvas.z - centre[2]), (radius,) * 3
        )
        canvas.lay(np.maximum(mass + 1.5 * texture, lung - 1.0), 35.0 + 6.0 * texture)
    return lung


def _lung_density(anatomy: Anatomy, canvas: SliceCanvas, texture: np.ndarray) -> np.ndarray:
    """Lung tissue: denser towards the back, where a lying patient's blood settles; fissures."""
    x, y, z = canvas.x, canvas.y, canvas.z
    density = anatomy.lung_hu + 0.22 * y + 13.0 * texture
    oblique = (
        z + 30.0 + 1.25 * (y - 5.0) * np.where(x > 0, np.float32(1.05), np.float32(0.95))
    ) / 1.6
    thickness = canvas.pixel_mm
    fissure = np.clip(1.0 - np.abs(oblique) / (0.6 * thickness + 0.4), 0.0, 1.0)
    return density + fissure * 110.0 / (1.0 + thickness)
