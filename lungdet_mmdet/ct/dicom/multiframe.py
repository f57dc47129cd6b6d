# SPDX-License-Identifier: Apache-2.0
"""The frames of an enhanced (multi-frame) CT: a slice each, placed by their functional groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lungdet_mmdet.ct.dicom.header import (
    CT_SOP_CLASSES,
    DicomSlice,
    numbers_of,
    read_dicom_header,
    walk_elements,
)

_SHARED, _PER_FRAME, _ITEM = (0x5200, 0x9229), (0x5200, 0x9230), (0xFFFE, 0xE000)
_POSITION, _ORIENTATION = (0x0020, 0x0032), (0x0020, 0x0037)
_SPACING, _THICKNESS = (0x0028, 0x0030), (0x0018, 0x0050)
_INTERCEPT, _SLOPE, _FRAME_TYPE = (0x0028, 0x1052), (0x0028, 0x1053), (0x0008, 0x9007)
_LEAVES = frozenset(
    {_POSITION, _ORIENTATION, _SPACING, _THICKNESS, _INTERCEPT, _SLOPE, _FRAME_TYPE}
)


class _Groups:
    """Gathers what the functional groups say, of all frames and of each."""

    def __init__(self) -> None:
        self.shared: dict[tuple[int, int], str] = {}
        self.frames: list[dict[tuple[int, int], str]] = []
        self._sequence: tuple[int, int] | None = None

    def __call__(self, tag: tuple[int, int], value: bytes, depth: int) -> None:
        if depth == 0 and tag != _ITEM:
            self._sequence = tag
        elif self._sequence == _PER_FRAME and tag == _ITEM and depth == 0:
            self.frames.append({})
        elif tag in _LEAVES and self._sequence in (_SHARED, _PER_FRAME):
            is_shared = self._sequence == _SHARED or not self.frames
            text = value.decode("ascii", "replace").strip("\0 ")
            (self.shared if is_shared else self.frames[-1])[tag] = text


def read_dicom_slices(path: Path) -> list[DicomSlice]:
    """Return the slices of a DICOM image: one, or one per frame of an enhanced CT.

    Returns
    -------
    list of DicomSlice
        Empty for files that are no images, or damaged. An image of several frames that does not
        place them stays one slice, without a place.
    """
    header = read_dicom_header(path)
    if header is None:
        return []
    if header.frames < 2 or header.sop_class_uid not in CT_SOP_CLASSES:
        return [header]
    groups = _Groups()
    walk_elements(path, deep=groups)
    if len(groups.frames) != header.frames:
        return [header]
    return [_frame(header, index, groups.shared | own) for index, own in enumerate(groups.frames)]


def _frame(header: DicomSlice, index: int, says: dict[tuple[int, int], str]) -> DicomSlice:
    return replace(
        header,
        frame=index,
        instance_number=index + 1,
        position_xyz_mm=numbers_of(says.get(_POSITION, ""), 3),
        orientation=numbers_of(says.get(_ORIENTATION, ""), 6),
        spacing_xy_mm=numbers_of(says.get(_SPACING, ""), 2)[::-1],
        thickness_mm=next(iter(numbers_of(says.get(_THICKNESS, ""), 1)), 0.0),
        rescaling=(says.get(_SLOPE, ""), says.get(_INTERCEPT, "")),
        image_type=says.get(_FRAME_TYPE, header.image_type),
        pixel_bytes=header.pixel_bytes * header.frames,
        n_images=0,
    )
