"""A finding close up, beside the whole slab that shows where it lies."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.figures.slab_overlays import OverlayBox, draw_box, draw_scale_bar

FIELD_MM = 60.0
SIDE_PX = 320
CONTEXT_FACTOR = 2.5
GAP_PX = 4
FRAME_COLOUR = (250, 210, 90)
SCALE_BAR_MM = 10.0
JPEG_QUALITY = 90


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
    draw_scale_bar(close_up, per_mm, length_mm=SCALE_BAR_MM)

    fit = side_px / (slab.shape[0] * sy)
    whole_factors = (sx * fit, sy * fit)
    width = max(1, round(slab.shape[1] * whole_factors[0]))
    whole = _resampled(slab, 0.0, 0.0, whole_factors, (width, side_px))
    corners = (left, top, left + field_mm / sx, top + field_mm / sy)
    frame = OverlayBox(corners, FRAME_COLOUR).moved(0.0, 0.0, whole_factors)
    fx0, fy0, fx1, fy1 = (round(value) for value in frame.box_xyxy_px)
    cv2.rectangle(whole, (fx0, fy0), (fx1, fy1), FRAME_COLOUR, 1, cv2.LINE_AA)
    gap = np.full((side_px, GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([close_up, gap, whole], axis=1)


def encoded_jpeg(picture: np.ndarray) -> bytes:
    """Return an RGB picture (y, x, 3) as JPEG: a quarter of PNG's size on the noise of a lung."""
    # Full colour resolution: the boxes are thin coloured lines.
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise LungDetError(f"a picture of shape {picture.shape} cannot be encoded as JPEG")
    return encoded.tobytes()


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
