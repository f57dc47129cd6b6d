"""Builders of NRRD and NIfTI files with one fault each; a builder takes a folder and a name."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk

from tests.faults.chest import chest, image_of

Builder = Callable[[Path, str], Path]
Bytes = Callable[[bytes], bytes]
# Offsets in a NIfTI-1 header.
DIM, DATATYPE, PIXDIM, SLOPE, SROW = 40, 70, 76, 112, 280


def stored(
    suffix: str, change: Bytes = bytes, *, compress: bool = True, image: sitk.Image | None = None
) -> Builder:
    """The chest, or another image, in that format, with changed bytes."""

    def build(folder: Path, name: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}{suffix}"
        sitk.WriteImage(image or image_of(chest()[0]), str(path), compress)
        path.write_bytes(change(path.read_bytes()))
        return path

    return build


def nrrd_header(old: str, new: str, *, compress: bool = True) -> Builder:
    """A NRRD file with a changed line of its header."""
    return stored(".nrrd", lambda b: b.replace(old.encode(), new.encode(), 1), compress=compress)


def nifti_header(offset: int, form: str, *values: float) -> Builder:
    """A .nii.gz file with changed numbers in its header; the gzip stream is whole."""

    def change(content: bytes) -> bytes:
        plain = bytearray(gzip.decompress(content))
        struct.pack_into(f"<{form}", plain, offset, *values)
        return gzip.compress(bytes(plain), 1)

    return stored(".nii.gz", change)
