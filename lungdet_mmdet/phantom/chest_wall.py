"""Paint what surrounds the chest, and its wall: table, blanket, skin, fat, muscle, bones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.phantom import shapes
from lungdet_mmdet.phantom.anatomy import Anatomy
from lungdet_mmdet.phantom.canvas import (
    BLANKET_HU,
    CARTILAGE_HU,
    CORTEX_HU,
    FAT_HU,
    FOAM_HU,
    MARROW_HU,
    MUSCLE_HU,
    RIB_PITCH_MM,
    SKIN_HU,
    TABLE_SHELL_HU,
    SliceCanvas,
)


@dataclass(frozen=True)
class Surroundings:
    """What lies around the patient.

    Parameters
    ----------
    table : whether the table and its foam mattress are in the picture.
    blanket : whether a blanket lies over the patient.
    """

    table: bool = True
    blanket: bool = False


def paint_surroundings(anatomy: Anatomy, surroundings: Surroundings, canvas: SliceCanvas) -> None:
    """Table top with foam under the back; blanket with folds over the chest."""
    x, y = canvas.x, canvas.y
    if surroundings.table:
        back = 120.0 * anatomy.fatness  # the widest slice lies on the table
        bowl = back - 0.0011 * x * x + 12.0
        foam = np.maximum(np.abs(y - bowl + 4.0) - 7.0, np.abs(x) - 205.0)
        canvas.lay(foam, FOAM_HU)
        canvas.lay(np.maximum(np.abs(y - bowl - 14.0) - 1.6, np.abs(x) - 200.0), TABLE_SHELL_HU)
    if surroundings.blanket:
        fold = 9.0 + 4.0 * np.sin(x / 17.0) + 3.0 * np.sin(x / 7.3 + canvas.z / 31.0)
        sheet = np.abs(anatomy.body(x, y, canvas.z) - fold) - 1.6
        canvas.lay(np.maximum(sheet, y - 70.0), BLANKET_HU)


def paint_chest_wall(
    anatomy: Anatomy, canvas: SliceCanvas, cavity: np.ndarray, texture: np.ndarray
) -> None:
    """Skin, fat, muscle, ribs, sternum, shoulder blades and collar bones."""
    x, y, z = canvas.x, canvas.y, canvas.z
    width, depth, centre = anatomy.cavity_frame(z)
    body = anatomy.body(x, y, z)
    canvas.lay(body, SKIN_HU)
    canvas.lay(body + 2.2, FAT_HU + 8.0 * texture)
    back = np.clip((y - centre) / depth, -1.0, 1.0)
    side = np.clip(np.abs(x) / width, 0.0, 1.0)
    upper = 1.0 / (1.0 + math.exp(-(z + 20.0) / 18.0))
    thickness = (
        11.0 + 9.0 * np.maximum(back, 0.0) + 20.0 * np.exp(-np.square(x / 42.0)) * (back > 0)
    )
    thickness = thickness + upper * (14.0 * side + 9.0 * np.maximum(-back, 0.0))
    muscle = np.maximum(cavity - thickness, body + 7.0)
    canvas.lay(muscle, MUSCLE_HU + 7.0 * texture)
    # The fat that parts the outer muscle sheets from the ribs.
    canvas.lay(np.maximum(np.abs(cavity - 13.0) - 1.0, muscle + 2.0), FAT_HU + 60.0)
    _ribs(anatomy, canvas, cavity, centre)
    sternum = shapes.rounded_box(x, y - (centre - depth - 8.0), 17.0 + 10.0 * (z > 25.0), 5.5)
    sternum = np.maximum(sternum, abs(z + 35.0) - 80.0)
    canvas.lay(sternum, CORTEX_HU * 0.6)
    canvas.lay(sternum + 1.6, MARROW_HU * 0.7 + 15.0 * texture)
    for sign in (-1.0, 1.0):
        blade = _turned(sign * x - 112.0 + 0.1 * (60.0 - z), y - centre - depth * 0.72, -0.75)
        plate = shapes.ellipse(blade[0], blade[1], 36.0, 3.6)
        plate = np.maximum(np.maximum(plate, abs(z - 35.0) - 75.0), 12.0 - cavity)
        canvas.lay(np.maximum(plate, body + 6.0), CORTEX_HU * 0.75)
        start, end = (sign * 24.0, centre - depth - 8.0, 46.0), (sign * 140.0, -2.0, 84.0)
        bone = shapes.capsule(x, y, z, start, end, 6.0)
        canvas.lay(bone, CORTEX_HU)
        canvas.lay(bone + 2.2, MARROW_HU)


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along axes turned by ``angle`` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _ribs(anatomy: Anatomy, canvas: SliceCanvas, cavity: np.ndarray, centre: float) -> None:
    """Ribs: rods in the chest wall that descend from the spine to the front."""
    angle = np.arctan2(np.abs(canvas.x), canvas.y - centre)  # 0 at the spine, pi at the breastbone
    height = canvas.z + 38.0 * (1.0 - np.cos(angle)) + anatomy.rib_phase_mm
    index = np.rint(height / RIB_PITCH_MM)
    off = height - index * RIB_PITCH_MM
    rod = np.hypot(off / 6.2, (cavity - 6.0) / 4.2)
    no_rib = (index < -7) | (index > 4) | (angle < 0.28)
    rod = np.where(no_rib, 9.0, rod)
    bone = 4.2 * (rod - 1.0)
    in_front = angle > 2.35  # the front ends are cartilage
    canvas.lay(bone, np.where(in_front, np.float32(CARTILAGE_HU), np.float32(CORTEX_HU)))
    canvas.lay(bone + 1.7, np.where(in_front, np.float32(CARTILAGE_HU), np.float32(MARROW_HU)))
