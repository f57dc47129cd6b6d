"""Several pictures on one page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungdet_mmdet.errors import LungDetError

GAP_PX = 8
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
    height = max(picture.shape[0] for picture in pictures) + GAP_PX
    width = max(picture.shape[1] for picture in pictures) + GAP_PX
    columns = max(len(row) for row in rows)
    page = np.empty((len(rows) * height + GAP_PX, columns * width + GAP_PX, 3), dtype=np.uint8)
    page[:] = PAGE_COLOUR
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = GAP_PX + y * height, GAP_PX + x * width
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return page
