# SPDX-License-Identifier: Apache-2.0
"""Changes of a slab for training, as functions of explicit parameters: the paper's, and pasting.

A maximum projection shows at each pixel the densest tissue on its way. A nodule set into a lung
would be seen wherever it is the denser one, so its projection is laid on by maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FULL_RANGE = 255.0


def _rotation(angle_deg: float, *, height: int, width: int) -> np.ndarray:
    """(2, 3) matrix that turns pixel-centre coordinates about the image centre."""
    return cv2.getRotationMatrix2D(((width - 1) / 2.0, (height - 1) / 2.0), angle_deg, 1.0)


def rotate_slab(image: np.ndarray, *, angle_deg: float) -> np.ndarray:
    """Rotate an image (y, x) or (y, x, c) counter-clockwise about its centre."""
    height, width = image.shape[:2]
    matrix = _rotation(angle_deg, height=height, width=width)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def rotate_boxes(
    boxes_xyxy_px: np.ndarray, *, angle_deg: float, height: int, width: int
) -> np.ndarray:
    """Rotate the centres of nodule boxes as :func:`rotate_slab` rotates their image.

    Parameters
    ----------
    boxes_xyxy_px : (N, 4) boxes; pixel i spans [i, i + 1].
    angle_deg : counter-clockwise angle in degrees.
    height, width : size of the image.

    Returns
    -------
    (N, 4) boxes of unchanged size: a sphere looks the same from every side.
    """
    boxes = np.asarray(boxes_xyxy_px, dtype=float).reshape(-1, 4)
    centres = 0.5 * (boxes[:, :2] + boxes[:, 2:]) - 0.5  # to pixel-centre coordinates
    half = 0.5 * (boxes[:, 2:] - boxes[:, :2])
    matrix = _rotation(angle_deg, height=height, width=width)
    turned = centres @ matrix[:, :2].T + matrix[:, 2] + 0.5
    return np.concatenate([turned - half, turned + half], axis=1)


def scale_brightness(image: np.ndarray, *, factor: float) -> np.ndarray:
    """Multiply grey levels by `factor`, clipped to 0..255, in the image's own dtype."""
    scaled = np.clip(image.astype(np.float32) * np.float32(factor), 0.0, FULL_RANGE)
    return np.rint(scaled).astype(np.uint8) if image.dtype == np.uint8 else scaled


def add_gaussian_noise(image: np.ndarray, *, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise, the same in all channels.

    Parameters
    ----------
    image : (y, x) or (y, x, c) array of grey levels 0..255.
    sd : standard deviation in grey levels.
    rng : the source of randomness.

    Returns
    -------
    float32 array of the image's shape, not clipped (noise stays unbiased at black).
    """
    noise = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(sd)
    return image.astype(np.float32) + (noise if image.ndim == 2 else noise[..., None])


def cut_window(image: np.ndarray, *, start_yx: tuple[int, int], size_px: int) -> np.ndarray:
    """Cut a square window out of an image (y, x) or (y, x, c); beyond the image it is black."""
    window = np.zeros((size_px, size_px, *image.shape[2:]), dtype=image.dtype)
    (y, x), (height, width) = start_yx, image.shape[:2]
    y0, y1 = max(0, y), min(height, y + size_px)
    x0, x1 = max(0, x), min(width, x + size_px)
    if y0 < y1 and x0 < x1:
        window[y0 - y : y1 - y, x0 - x : x1 - x] = image[y0:y1, x0:x1]
    return window


RIM_SHARE, RIM_PX = 0.3, 2.0
"""What a patch holds beyond the nodule's radius: this share of it and so many pixels."""

VISIBLE_GREY = 12
"""A nodule is seen where it is brighter than what it is pasted on by so much."""


@dataclass(frozen=True)
class NodulePatch:
    """A nodule cut out of a projection.

    Parameters
    ----------
    image : (n, n) or (n, n, c) uint8 grey levels, fading to black beyond the nodule's rim.
    diameter_px : side of the nodule's box, which is concentric with the patch.
    """

    image: np.ndarray
    diameter_px: float


def cut_nodule(
    image: np.ndarray,
    box_xyxy_px: np.ndarray,
    *,
    scale: float = 1.0,
    quarter_turns: int = 0,
    mirrored: bool = False,
) -> NodulePatch:
    """Cut a nodule out of a projection (y, x) or (y, x, c).

    Parameters
    ----------
    image : uint8 projection.
    box_xyxy_px : (4,) its box; pixel i spans [i, i + 1].
    scale : enlargement of the nodule.
    quarter_turns, mirrored : how the patch is turned, and whether it is mirrored.
    """
    x0, y0, x1, y1 = box_xyxy_px
    radius = 0.25 * scale * (x1 - x0 + y1 - y0)
    half = int(np.ceil(radius * (1.0 + RIM_SHARE) + RIM_PX))
    size = 2 * half + 1
    # Pixel centres: the box's middle comes to lie on the middle pixel of the patch.
    offset_x, offset_y = 0.5 * (x0 + x1) - 0.5, 0.5 * (y0 + y1) - 0.5
    matrix = np.array(
        [[scale, 0, half - scale * offset_x], [0, scale, half - scale * offset_y]], np.float64
    )
    patch = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
    steps = np.arange(size) - half
    distance = np.hypot(steps[:, None], steps[None, :])
    weight = np.clip((half - distance) / (half - radius), 0.0, 1.0)
    weight = weight if image.ndim == 2 else weight[..., None]
    patch = np.rot90(np.rint(patch * weight).astype(np.uint8), quarter_turns)
    return NodulePatch(np.ascontiguousarray(patch[:, ::-1] if mirrored else patch), 2.0 * radius)


def find_place(
    image: np.ndarray,
    patch: NodulePatch,
    taken_xyxy_px: np.ndarray,
    rng: np.random.RandomState,
    *,
    tries: int = 8,
) -> tuple[int, int] | None:
    """Draw a place in the lungs where the nodule can be seen.

    All of its box lies within the lungs (what is masked is black), touches no other box, and most
    of it is brighter there than what was. Of several channels the middle one decides.

    Returns
    -------
    Row and column of its middle pixel, or None where no place was found.
    """
    height, width = image.shape[:2]
    half, reach = patch.image.shape[0] // 2, int(np.ceil(0.5 * patch.diameter_px))
    if min(height, width) <= 2 * reach:
        return None
    image, inner = _middle_channel(image), _middle_channel(patch.image)
    inner = inner[half - reach : half + reach + 1, half - reach : half + reach + 1]
    for _ in range(tries):
        y = rng.randint(reach, height - reach)
        x = rng.randint(reach, width - reach)
        below = image[y - reach : y + reach + 1, x - reach : x + reach + 1]
        if below.shape != inner.shape or below.min() == 0:
            continue
        if np.mean(inner.astype(int) - below > VISIBLE_GREY) < 0.5:
            continue
        if len(taken_xyxy_px):
            low, high = taken_xyxy_px[:, :2] - reach - 2, taken_xyxy_px[:, 2:] + reach + 2
            if np.any(np.all((low < (x, y)) & ((x, y) < high), axis=1)):
                continue
        return y, x
    return None


def paste_nodule(
    image: np.ndarray, patch: NodulePatch, centre_yx: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Lay a nodule on a projection (y, x) or (y, x, c) by maximum.

    Returns
    -------
    The new projection, and the nodule's box (4,) xyxy in its pixels.
    """
    (y, x), half = centre_yx, patch.image.shape[0] // 2
    size = patch.image.shape[0]
    above, left = max(0, half - y), max(0, half - x)
    below, right = min(size, image.shape[0] - y + half), min(size, image.shape[1] - x + half)
    part = patch.image[above:below, left:right]
    result = image.copy()
    rows = slice(y - half + above, y - half + below)
    columns = slice(x - half + left, x - half + right)
    result[rows, columns] = np.maximum(result[rows, columns], part)
    radius = 0.5 * patch.diameter_px
    middle = np.array([x + 0.5, y + 0.5, x + 0.5, y + 0.5])
    return result, middle + np.array([-radius, -radius, radius, radius])


def _middle_channel(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else image[..., image.shape[2] // 2]
