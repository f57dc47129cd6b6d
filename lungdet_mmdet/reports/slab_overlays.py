# SPDX-License-Identifier: Apache-2.0
"""Slabs with boxes drawn on them: alone, in a grid, as cases of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from lungdet_mmdet.errors import LungDetError

# RGB
TRUTH_COLOUR = (60, 210, 90)
DETECTION_COLOUR = (235, 70, 70)
FAINT_COLOUR = (190, 120, 110)
IGNORED_COLOUR = (120, 140, 170)
TEXT_COLOUR = (225, 228, 232)
CAPTION_BACKGROUND = (24, 26, 30)
MIN_SHORT_SIDE = 640
CAPTION_HEIGHT = 30
SCALE_BAR_MM = 20.0
LABEL_SCALE = 0.5
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class OverlayBox:
    """One box to draw: xyxy in slab pixels, a colour (RGB) and a short label ("" for none).

    The label stands over the box, or under it: what is annotated and what was found on it would
    hide each other's.
    """

    box_xyxy_px: tuple[float, float, float, float]
    colour: tuple[int, int, int]
    label: str = ""
    label_below: bool = False

    def moved(self, left: float, top: float, factors_xy: tuple[float, float]) -> OverlayBox:
        """Return the box on a picture that starts at (left, top) and is enlarged by factors."""
        x0, y0, x1, y1 = self.box_xyxy_px
        fx, fy = factors_xy
        corners = ((x0 - left) * fx, (y0 - top) * fy, (x1 - left) * fx, (y1 - top) * fy)
        return replace(self, box_xyxy_px=corners)


def draw_slab(
    slab: np.ndarray,
    boxes: Sequence[OverlayBox],
    *,
    spacing_x_mm: float,
    caption: str = "",
    min_short_side: int = MIN_SHORT_SIDE,
) -> np.ndarray:
    """Draw boxes over one slab, enlarged so that a 3 mm nodule can be seen.

    Parameters
    ----------
    slab : uint8 array (y, x).
    boxes : drawn in this order.
    spacing_x_mm : pixel spacing, for the scale bar.
    caption : one line under the picture.
    min_short_side : the slab is enlarged by a whole factor until its short side is about this.

    Returns
    -------
    uint8 array (y, x, 3), RGB.
    """
    factor = max(1, round(min_short_side / min(slab.shape)))
    size = (slab.shape[1] * factor, slab.shape[0] * factor)
    picture = cv2.cvtColor(
        cv2.resize(slab, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB
    )
    for box in boxes:
        draw_box(picture, box.moved(0.0, 0.0, (factor, factor)))
    draw_scale_bar(picture, factor / spacing_x_mm)
    if not caption:
        return picture
    strip = np.full((CAPTION_HEIGHT, picture.shape[1], 3), CAPTION_BACKGROUND, dtype=np.uint8)
    cv2.putText(strip, caption, (8, 20), _FONT, 0.5, TEXT_COLOUR, 1, cv2.LINE_AA)
    return np.concatenate([picture, strip], axis=0)


def draw_box(picture: np.ndarray, box: OverlayBox) -> None:
    """Draw a box, in pixels of the picture (RGB), and its label into the picture."""
    # A rim of two pixels keeps the line off the nodule it frames.
    x0, y0, x1, y1 = (round(v) for v in box.box_xyxy_px)
    x0, y0, x1, y1 = x0 - 2, y0 - 2, x1 + 1, y1 + 1
    cv2.rectangle(picture, (x0, y0), (x1, y1), box.colour, 2, cv2.LINE_AA)
    if not box.label:
        return
    (width, height), _ = cv2.getTextSize(box.label, _FONT, LABEL_SCALE, 1)
    left = min(max(x0, 0), picture.shape[1] - width - 1)
    above, below = y0 - 5, y1 + height + 5
    base = below if box.label_below else above
    if base - height < 0:
        base = below
    elif base >= picture.shape[0]:
        base = above
    # On bright tissue letters cannot be read without a ground of their own.
    corner = (left + width + 2, base + 3)
    cv2.rectangle(picture, (left - 2, base - height - 3), corner, CAPTION_BACKGROUND, cv2.FILLED)
    cv2.putText(picture, box.label, (left, base), _FONT, LABEL_SCALE, box.colour, 1, cv2.LINE_AA)


def draw_scale_bar(
    picture: np.ndarray, pixels_per_mm: float, *, length_mm: float = SCALE_BAR_MM
) -> None:
    """Draw a bar of known length into the lower left corner of the picture."""
    length = round(length_mm * pixels_per_mm)
    y, x = picture.shape[0] - 14, 12
    for colour, thickness in ((CAPTION_BACKGROUND, 5), (TEXT_COLOUR, 2)):
        cv2.line(picture, (x, y), (x + length, y), colour, thickness)
    for colour, thickness in ((CAPTION_BACKGROUND, 3), (TEXT_COLOUR, 1)):
        cv2.putText(
            picture, f"{length_mm:g} mm", (x, y - 7), _FONT, 0.45, colour, thickness, cv2.LINE_AA
        )


def truth_boxes(annotations: Sequence[dict]) -> list[OverlayBox]:
    """Return the overlay boxes of a slab's COCO annotations; ignore regions in grey."""
    boxes = []
    for annotation in annotations:
        x, y, width, height = annotation["bbox"]
        ignored = bool(annotation["iscrowd"])
        boxes.append(
            OverlayBox(
                (x, y, x + width, y + height),
                IGNORED_COLOUR if ignored else TRUTH_COLOUR,
                "" if ignored else f"{annotation['diameter_mm']:.1f} mm",
                label_below=True,
            )
        )
    return boxes


def detection_boxes(boxes_xyxy_px: np.ndarray, scores: np.ndarray) -> list[OverlayBox]:
    """Return the overlay boxes of detections, weakest first, so that the strongest lie on top."""
    return [
        OverlayBox(tuple(boxes_xyxy_px[i].tolist()), DETECTION_COLOUR, f"{scores[i]:.2f}")
        for i in np.argsort(scores, kind="stable")
    ]


def read_slab(path: str | Path) -> np.ndarray:
    """Read a slab PNG as uint8 (y, x); of three different channels the middle one is the slab.

    Raises LungDetError if the file is missing or no image.
    """
    slab = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if slab is None:
        raise LungDetError(f"{path}: missing or not an image; prepare the scan again")
    return slab if slab.ndim == 2 else slab[..., 1]


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write an RGB picture (y, x, 3).

    Raises LungDetError if the file cannot be written.
    """
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise LungDetError(f"{path}: cannot be written")


GRID_GAP_PX = 8
PAGE_COLOUR = (24, 26, 30)


def picture_grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Lay pictures out in rows, each cell as large as the largest picture.

    Parameters
    ----------
    rows : uint8 arrays (y, x, 3); rows may be of different lengths.

    Returns
    -------
    uint8 array (y, x, 3).

    Raises
    ------
    LungDetError
        If there is no picture.
    """
    pictures = [picture for row in rows for picture in row]
    if not pictures:
        raise LungDetError("a page needs at least one picture")
    height = max(picture.shape[0] for picture in pictures) + GRID_GAP_PX
    width = max(picture.shape[1] for picture in pictures) + GRID_GAP_PX
    columns = max(len(row) for row in rows)
    page = np.empty(
        (len(rows) * height + GRID_GAP_PX, columns * width + GRID_GAP_PX, 3), dtype=np.uint8
    )
    page[:] = PAGE_COLOUR
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = GRID_GAP_PX + y * height, GRID_GAP_PX + x * width
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return page


FIELD_MM = 60.0
SIDE_PX = 320
CONTEXT_FACTOR = 2.5
CASE_GAP_PX = 4
FRAME_COLOUR = (250, 210, 90)
CASE_SCALE_BAR_MM = 10.0


def case_picture(
    slab: np.ndarray,
    focus_xyxy_px: tuple[float, float, float, float],
    boxes: Sequence[OverlayBox],
    *,
    spacing_xy_mm: tuple[float, float],
    field_mm: float = FIELD_MM,
    side_px: int = SIDE_PX,
) -> np.ndarray:
    """Return a close-up with boxes and a scale bar, and beside it the slab with the field framed.

    Parameters
    ----------
    slab : uint8 array (y, x).
    focus_xyxy_px : what the close-up is centred on, in slab pixels.
    boxes : drawn into the close-up, in this order, in slab pixels.
    spacing_xy_mm : size of a pixel; the close-up shows equal lengths in x and y.
    field_mm : side of the square field; larger where the focus needs more context.
    side_px : side of the close-up, and height of the slab beside it.

    Returns
    -------
    uint8 array (side_px, >= side_px, 3), RGB.
    """
    x0, y0, x1, y1 = focus_xyxy_px
    sx, sy = spacing_xy_mm
    field_mm = max(field_mm, CONTEXT_FACTOR * max((x1 - x0) * sx, (y1 - y0) * sy))
    left = (x0 + x1) / 2 - field_mm / sx / 2
    top = (y0 + y1) / 2 - field_mm / sy / 2
    per_mm = side_px / field_mm
    factors = (sx * per_mm, sy * per_mm)
    close_up = _resampled(slab, left, top, factors, (side_px, side_px))
    for box in boxes:
        draw_box(close_up, box.moved(left, top, factors))
    draw_scale_bar(close_up, per_mm, length_mm=CASE_SCALE_BAR_MM)

    fit = side_px / (slab.shape[0] * sy)
    whole_factors = (sx * fit, sy * fit)
    width = max(1, round(slab.shape[1] * whole_factors[0]))
    whole = _resampled(slab, 0.0, 0.0, whole_factors, (width, side_px))
    corners = (left, top, left + field_mm / sx, top + field_mm / sy)
    frame = OverlayBox(corners, FRAME_COLOUR).moved(0.0, 0.0, whole_factors)
    fx0, fy0, fx1, fy1 = (round(value) for value in frame.box_xyxy_px)
    cv2.rectangle(whole, (fx0, fy0), (fx1, fy1), FRAME_COLOUR, 1, cv2.LINE_AA)
    gap = np.full((side_px, CASE_GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([close_up, gap, whole], axis=1)


def _resampled(
    slab: np.ndarray,
    left: float,
    top: float,
    factors_xy: tuple[float, float],
    size_xy: tuple[int, int],
) -> np.ndarray:
    """Return the part of the slab from (left, top) on, enlarged, as RGB; black outside."""
    fx, fy = factors_xy
    # Pixel i spans [i, i + 1] in box coordinates; OpenCV counts from the centre of pixel 0.
    matrix = np.array(
        [[fx, 0.0, (0.5 - left) * fx - 0.5], [0.0, fy, (0.5 - top) * fy - 0.5]], dtype=np.float64
    )
    if min(factors_xy) < 1.0:
        # Warping does not average, so thin vessels would flicker where the slab is made smaller.
        slab = cv2.GaussianBlur(slab, (0, 0), 0.4 / min(factors_xy))
    flat = cv2.warpAffine(slab, matrix, size_xy, flags=cv2.INTER_CUBIC, borderValue=0)
    return cv2.cvtColor(flat, cv2.COLOR_GRAY2RGB)
