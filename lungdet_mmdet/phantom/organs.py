# SPDX-License-Identifier: Apache-2.0
"""What a phantom's body holds beside the lungs: chest wall, organs, tissues."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.phantom import drawing
from lungdet_mmdet.phantom.anatomy import AORTA, GREAT_VESSELS, Anatomy
from lungdet_mmdet.phantom.drawing import (
    BLANKET_HU,
    CARTILAGE_HU,
    CORTEX_HU,
    FAT_HU,
    FLUID_HU,
    FOAM_HU,
    LIVER_HU,
    MARROW_HU,
    MUSCLE_HU,
    RIB_PITCH_MM,
    SKIN_HU,
    SPLEEN_HU,
    STOMACH_GAS_HU,
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
    sternum = drawing.rounded_box(x, y - (centre - depth - 8.0), 17.0 + 10.0 * (z > 25.0), 5.5)
    sternum = np.maximum(sternum, abs(z + 35.0) - 80.0)
    canvas.lay(sternum, CORTEX_HU * 0.6)
    canvas.lay(sternum + 1.6, MARROW_HU * 0.7 + 15.0 * texture)
    for sign in (-1.0, 1.0):
        blade = _turned(sign * x - 112.0 + 0.1 * (60.0 - z), y - centre - depth * 0.72, -0.75)
        plate = drawing.ellipse(blade[0], blade[1], 36.0, 3.6)
        plate = np.maximum(np.maximum(plate, abs(z - 35.0) - 75.0), 12.0 - cavity)
        canvas.lay(np.maximum(plate, body + 6.0), CORTEX_HU * 0.75)
        start, end = (sign * 24.0, centre - depth - 8.0, 46.0), (sign * 140.0, -2.0, 84.0)
        bone = drawing.capsule(x, y, z, start, end, 6.0)
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
    liver = drawing.ellipsoid((x + 45.0, y + 2.0, z + 170.0), (112.0, 92.0, 82.0))
    canvas.lay(np.maximum(liver, below), LIVER_HU + 4.0 * texture)
    spleen = drawing.ellipsoid((x - 92.0, y - 38.0, z + 165.0), (32.0, 44.0, 50.0))
    canvas.lay(np.maximum(spleen, below), SPLEEN_HU + 4.0 * texture)
    stomach = drawing.ellipsoid((x - 66.0, y + 28.0, z + 165.0), (44.0, 50.0, 48.0))
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
            loop = drawing.capsule(x, y, z, start, end, radius)
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
            part.lay(drawing.capsule(part.x, part.y, z, start, end, radius), anatomy.blood_hu)
    gullet_y = float(anatomy.spine_y(z)) - 27.0
    part = canvas.window((4.0, gullet_y), 12.0)
    part.lay(drawing.ellipse(part.x - 4.0, part.y - gullet_y, 9.0, 6.0), 35.0)


def paint_spine(anatomy: Anatomy, canvas: SliceCanvas) -> None:
    """Vertebral body or disc, spinal canal, arch and processes."""
    middle = float(anatomy.spine_y(canvas.z))
    canvas = canvas.window((0.0, middle + 24.0), 50.0)
    x, y, z = canvas.x, canvas.y - middle, canvas.z
    phase = (z + anatomy.rib_phase_mm) / RIB_PITCH_MM
    off = abs(phase - round(phase)) * RIB_PITCH_MM  # 0 in the middle of a vertebra
    body = drawing.rounded_box(x, y, 17.0 + 0.12 * off, 14.5)
    canvas.lay(np.hypot(x, y - 26.0) - 15.0, CORTEX_HU * 0.7)
    canvas.lay(np.hypot(x, y - 26.0) - 9.0, 30.0)
    if off > RIB_PITCH_MM / 2.0 - 3.0:
        canvas.lay(body, CARTILAGE_HU)
    else:
        canvas.lay(body, CORTEX_HU * 0.8)
        canvas.lay(body + 2.0, MARROW_HU + 0.0 * x)
    canvas.lay(drawing.ellipse(x, y - 40.0, 3.5, 9.0), CORTEX_HU * 0.6)
    if off < 7.0:
        process = drawing.ellipse(np.abs(x) - 27.0, y - 20.0, 17.0, 5.0)
        canvas.lay(process, CORTEX_HU * 0.65)
        canvas.lay(process + 2.0, MARROW_HU)


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
        mass = drawing.ellipsoid(
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
