"""Nodules of one projection set into another.

A maximum projection shows at each pixel the densest tissue on its way. A nodule set into a lung
would be seen wherever it is the denser one, so its projection is laid on by maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

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
