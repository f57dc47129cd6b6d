"""The paper's augmentations of a slab, as functions of explicit parameters."""

from __future__ import annotations

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
