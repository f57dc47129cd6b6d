"""Paint what lies within the rib cage besides the lungs: belly, mediastinum, spine."""

from __future__ import annotations

import math

import numpy as np

from lungdet_mmdet.phantom import shapes
from lungdet_mmdet.phantom.anatomy import AORTA, GREAT_VESSELS, Anatomy
from lungdet_mmdet.phantom.canvas import (
    CARTILAGE_HU,
    CORTEX_HU,
    FAT_HU,
    FLUID_HU,
    LIVER_HU,
    MARROW_HU,
    MUSCLE_HU,
    RIB_PITCH_MM,
    SPLEEN_HU,
    STOMACH_GAS_HU,
    SliceCanvas,
)


def paint_abdomen(
    anatomy: Anatomy, canvas: SliceCanvas, cavity: np.ndarray, texture: np.ndarray
) -> None:
    """Everything within the rib cage that is not lung: fat, and the organs under the diaphragm."""
    x, y, z = canvas.x, canvas.y, canvas.z
    canvas.lay(cavity + 1.5, FAT_HU + 10.0 * texture)
    for missing, sign in ((not anatomy.left_lung, 1.0), (not anatomy.right_lung, -1.0)):
        if missing or (anatomy.effusion_mm > 0 and sign < 0):
            side = np.maximum(cavity + 1.0, -sign * x)
            canvas.lay(np.maximum(side, anatomy.mediastinum(x, y, z) * -1.0), FLUID_HU)
    if z > max(anatomy.dome_left_mm, anatomy.dome_right_mm) + 10.0:
        return
    below = 0.7 * (z - anatomy.diaphragm_height(x, y))
    canvas.lay(np.maximum(below, cavity + 1.5), FAT_HU + 10.0 * texture)
    below = np.maximum(below + 2.0, cavity + 4.0)
    if z < -215.0:  # loops of bowel in their fat
        loops = 9.0 * np.sin(x / 11.0 + math.sin(z / 17.0)) * np.sin(y / 10.0 + z / 23.0) - 1.0
        canvas.lay(np.maximum(loops, below + 4.0), 32.0 + 6.0 * texture)
    liver = shapes.ellipsoid((x + 45.0, y + 2.0, z + 170.0), (112.0, 92.0, 82.0))
    canvas.lay(np.maximum(liver, below), LIVER_HU + 4.0 * texture)
    spleen = shapes.ellipsoid((x - 92.0, y - 38.0, z + 165.0), (32.0, 44.0, 50.0))
    canvas.lay(np.maximum(spleen, below), SPLEEN_HU + 4.0 * texture)
    stomach = shapes.ellipsoid((x - 66.0, y + 28.0, z + 165.0), (44.0, 50.0, 48.0))
    stomach = np.maximum(stomach, below)
    canvas.lay(stomach, 45.0)
    canvas.lay(stomach + 4.0, 18.0)
    canvas.lay(np.maximum(stomach + 4.0, y + 44.0), STOMACH_GAS_HU)  # gas rises to the front
    if anatomy.bowel_gas:
        for start, end, radius in (
            ((50.0, -70.0, -175.0), (105.0, -30.0, -150.0), 15.0),
            ((-80.0, -68.0, -178.0), (20.0, -84.0, -185.0), 13.0),
            ((20.0, -60.0, -235.0), (80.0, -40.0, -245.0), 19.0),
            ((-90.0, -20.0, -240.0), (-60.0, -50.0, -270.0), 22.0),
        ):
            loop = shapes.capsule(x, y, z, start, end, radius)
            loop = np.maximum(loop + 2.0 * np.sin(x / 6.0), cavity + 3.0)
            canvas.lay(loop - 2.5, 40.0)
            canvas.lay(loop, STOMACH_GAS_HU)


def paint_mediastinum(anatomy: Anatomy, canvas: SliceCanvas, cavity: np.ndarray) -> None:
    """Heart, aorta, great vessels and gullet, set in the fat that is already there."""
    x, y, z = canvas.x, canvas.y, canvas.z
    heart = np.maximum(anatomy.heart(x, y, z), cavity + 3.0)
    canvas.lay(heart, MUSCLE_HU + 0.2 * (anatomy.blood_hu - MUSCLE_HU))
    canvas.lay(heart + 9.0, anatomy.blood_hu)
    for start, end, radius in AORTA + GREAT_VESSELS:
        if min(start[2], end[2]) - radius < z < max(start[2], end[2]) + radius:
            middle = (0.5 * (start[0] + end[0]), 0.5 * (start[1] + end[1]))
            reach = radius + 2.0 + 0.5 * max(abs(start[0] - end[0]), abs(start[1] - end[1]))
            part = canvas.window(middle, reach)
            part.lay(shapes.capsule(part.x, part.y, z, start, end, radius), anatomy.blood_hu)
    gullet_y = float(anatomy.spine_y(z)) - 27.0
    part = canvas.window((4.0, gullet_y), 12.0)
    part.lay(shapes.ellipse(part.x - 4.0, part.y - gullet_y, 9.0, 6.0), 35.0)


def paint_spine(anatomy: Anatomy, canvas: SliceCanvas) -> None:
    """Vertebral body or disc, spinal canal, arch and processes."""
    middle = float(anatomy.spine_y(canvas.z))
    canvas = canvas.window((0.0, middle + 24.0), 50.0)
    x, y, z = canvas.x, canvas.y - middle, canvas.z
    phase = (z + anatomy.rib_phase_mm) / RIB_PITCH_MM
    off = abs(phase - round(phase)) * RIB_PITCH_MM  # 0 in the middle of a vertebra
    body = shapes.rounded_box(x, y, 17.0 + 0.12 * off, 14.5)
    canvas.lay(np.hypot(x, y - 26.0) - 15.0, CORTEX_HU * 0.7)
    canvas.lay(np.hypot(x, y - 26.0) - 9.0, 30.0)
    if off > RIB_PITCH_MM / 2.0 - 3.0:
        canvas.lay(body, CARTILAGE_HU)
    else:
        canvas.lay(body, CORTEX_HU * 0.8)
        canvas.lay(body + 2.0, MARROW_HU + 0.0 * x)
    canvas.lay(shapes.ellipse(x, y - 40.0, 3.5, 9.0), CORTEX_HU * 0.6)
    if off < 7.0:
        process = shapes.ellipse(np.abs(x) - 27.0, y - 20.0, 17.0, 5.0)
        canvas.lay(process, CORTEX_HU * 0.65)
        canvas.lay(process + 2.0, MARROW_HU)
