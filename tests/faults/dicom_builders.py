"""Builders of DICOM folders with one fault each; a builder takes a folder and a name."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID

from lungdet_mmdet.ct.geometry import ScanGeometry
from tests.faults.chest import chest
from tests.support.dicom_export import write_dicom_series

Builder = Callable[[Path, str], Path]
Edit = Callable[[Any], object]
# Every second slice of the chest is enough of it.
STEP_MM = 10.0
LATIN1 = {"SpecificCharacterSet": "ISO_IR 100", "SeriesDescription": "\u00dcbersicht"}


def uid_of(name: str) -> str:
    """Return a series UID of a case's own."""
    return f"2.999.7426866.{zlib.crc32(name.encode())}"


def write_series(folder: Path, name: str) -> list[Path]:
    """Write the chest as 18 slices of 64 x 64 pixels."""
    volume, geometry = chest()
    volume = volume[::2]
    spacing = (STEP_MM, *geometry.spacing_zyx_mm[1:])
    thick = ScanGeometry(volume.shape, spacing, geometry.origin_xyz_mm)
    return write_dicom_series(folder, volume, thick, seriesuid=uid_of(name))


def edited(edit: Edit, *, slices: slice = slice(None)) -> Builder:
    """A series with changed datasets, in some slices or all."""

    def build(folder: Path, name: str) -> Path:
        for path in write_series(folder, name)[slices]:
            dataset = pydicom.dcmread(path)
            edit(dataset)
            dataset.save_as(path)
        return folder

    return build


def tags(*, slices: slice = slice(None), **values: object) -> Builder:
    """A series with other values of some tags; None removes a tag."""

    def edit(dataset: Any) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edited(edit, slices=slices)


def sop_class(uid: str) -> Builder:
    """Images that say to be of another kind."""

    def edit(dataset: Any) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(uid)

    return edited(edit)


def compressed(syntax: str) -> Builder:
    """A series whose pixels are compressed without loss."""
    return edited(lambda d: d.compress(UID(syntax), generate_instance_uid=False))


def rewritten(syntax: str) -> Builder:
    """A series in another uncompressed transfer syntax."""

    def build(folder: Path, name: str) -> Path:
        uid = UID(syntax)
        for path in write_series(folder, name):
            dataset = pydicom.dcmread(path)
            if not uid.is_little_endian:
                pixels = np.frombuffer(dataset.PixelData, "<u2").astype(">u2")
                dataset.PixelData = pixels.tobytes()
            dataset.file_meta.TransferSyntaxUID = uid
            pydicom.dcmwrite(
                path,
                dataset,
                implicit_vr=uid.is_implicit_VR,
                little_endian=uid.is_little_endian,
                enforce_file_format=True,
            )
        return folder

    return build


def claims(syntax: str) -> Builder:
    """A series that only says to be in another transfer syntax of the same length."""

    def build(folder: Path, name: str) -> Path:
        old, new = b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0")
        for path in write_series(folder, name):
            path.write_bytes(path.read_bytes().replace(old, new, 1))
        return folder

    return build


def files(change: Callable[[list[Path]], object]) -> Builder:
    """A series whose files are changed, removed or joined by others."""

    def build(folder: Path, name: str) -> Path:
        change(write_series(folder, name))
        return folder

    return build


def removed(*indices: int) -> Builder:
    """A series from which slices are missing."""
    return files(lambda paths: [paths[i].unlink() for i in indices])


def doubled(paths: list[Path]) -> None:
    """Copy three slices."""
    for path in paths[4:7]:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))


def two_images_per_place(paths: list[Path]) -> None:
    """Add another image at the place of every slice."""
    for index, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.9.{index}"
        dataset.PixelData = bytes(len(dataset.PixelData))
        dataset.save_as(path.with_name(f"other-{path.name}"))


def one_place(paths: list[Path]) -> None:
    """Let every file be a copy of the first."""
    for path in paths[1:]:
        shutil.copy(paths[0], path)


def mixed(paths: list[Path]) -> None:
    """Add a thicker series, a localizer and a note to the folder."""
    other = pydicom.dcmread(paths[0]).SeriesInstanceUID + ".1"
    volume, geometry = chest()
    thick = ScanGeometry((9, 64, 64), (20.0, 5.0, 5.0), geometry.origin_xyz_mm)
    folder = paths[0].parent
    added = write_dicom_series(folder / "thick", volume[::4], thick, seriesuid=other)
    added += write_dicom_series(
        folder / "scout", volume[:2], ScanGeometry((2, 64, 64), (5.0,) * 3, (0.0,) * 3),
        seriesuid=other + ".2",
    )  # fmt: skip
    first = pydicom.dcmread(paths[0])
    for path in added:  # all in the study of the first series
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.PatientID = first.StudyInstanceUID, first.PatientID
        dataset.save_as(path)
    (folder / "notes.txt").write_text("no DICOM")


def joined_by_odd_files(paths: list[Path]) -> None:
    """Add what is no DICOM: a pipe, a link in a circle, a folder and an empty file."""
    folder = paths[0].parent
    os.mkfifo(folder / "pipe.dcm")
    (folder / "circle.dcm").symlink_to("circle.dcm")
    (folder / "folder.dcm").mkdir()
    (folder / "empty.dcm").write_bytes(b"")


def cut(n_bytes: int) -> Builder:
    """A series with one file that ends early."""

    def change(paths: list[Path]) -> None:
        paths[5].write_bytes(paths[5].read_bytes()[:n_bytes])

    return files(change)


def moved(by_xyz_mm: tuple[float, float, float]) -> Builder:
    """A series in which one slice states another place."""

    def edit(dataset: Any) -> None:
        place = np.add([float(v) for v in dataset.ImagePositionPatient], by_xyz_mm)
        dataset.ImagePositionPatient = [f"{v:.10g}" for v in place]

    return edited(edit, slices=slice(5, 6))


def endless_element(paths: list[Path]) -> None:
    """Let the slice thickness of one file be an element of unknown kind and 4 GB."""
    content = paths[5].read_bytes()
    short = b"\x18\x00\x50\x00DS"
    start = content.index(short)
    endless = b"\x18\x00\x50\x00UN\0\0\xf0\xff\xff\xff"
    paths[5].write_bytes(content[:start] + endless + content[start + len(endless) :])


def name_beyond_utf8(paths: list[Path]) -> None:
    """Give one slice a file name that is not UTF-8."""
    os.rename(paths[5], os.path.join(os.fsencode(paths[5].parent), b"\xff.dcm"))


def flipped_stream(folder: Path, name: str) -> Path:
    """Compressed pixels of one slice with damaged bytes in their midst."""
    compressed("1.2.840.10008.1.2.4.80")(folder, name)
    path = folder / "0005.dcm"
    content = bytearray(path.read_bytes())
    start = content.index(b"\xe0\x7f\x10\x00") + 60
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    return folder
