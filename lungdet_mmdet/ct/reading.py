# SPDX-License-Identifier: Apache-2.0
"""Reading a CT scan file into Hounsfield values with a known place in the patient."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom.reading import read_dicom_folder
from lungdet_mmdet.ct.geometry import (
    MAX_VOXELS,
    NO_DIRECTIONS,
    FileGrid,
    ScanGeometry,
    to_canonical,
)
from lungdet_mmdet.ct.metaimage_header import MetaImageHeader, read_metaimage_header
from lungdet_mmdet.ct.nifti import nifti_grid, read_nifti, read_nifti_header
from lungdet_mmdet.ct.resample import regular
from lungdet_mmdet.ct.scan import CTScan, as_int16_hu
from lungdet_mmdet.errors import LungDetError, TruncatedFileError
from lungdet_mmdet.runs.files import MAX_DEFLATE_RATIO, check_input_file, remaining_bytes

METAIMAGE_SUFFIXES = (".mhd", ".mha")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
SCAN_SUFFIXES = (*METAIMAGE_SUFFIXES, ".nrrd", *NIFTI_SUFFIXES)
_IMAGE_IO = {".mhd": "MetaImageIO", ".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}


def scan_suffix(path: Path) -> str:
    """Return the known scan suffix of `path` (".nii.gz" counts as one), or "" if there is none."""
    name = path.name.lower()
    return next((s for s in sorted(SCAN_SUFFIXES, key=len, reverse=True) if name.endswith(s)), "")


def grid_of_image(image: sitk.Image | sitk.ImageFileReader) -> FileGrid:
    """Return the grid of a 3-D image, or of a reader that knows its header.

    The only place where SimpleITK's axis order is turned.
    """
    x, y, z = image.GetSize()
    return FileGrid(
        size_zyx=(z, y, x),
        spacing_xyz_mm=np.array(image.GetSpacing()),
        origin_xyz_mm=np.array(image.GetOrigin()),
        axes_xyz=np.array(image.GetDirection()).reshape(3, 3),
    )


def read_scan(path: Path | str, *, series_uid: str | None = None) -> CTScan:
    """Read one scan file (.mhd, .mha, .nrrd, .nii, .nii.gz) or a DICOM folder.

    Parameters
    ----------
    path : the file; for .mhd the data file lies beside it.
    series_uid : which series of a DICOM folder; None takes the thinnest axial CT.

    Returns
    -------
    CTScan
        In canonical orientation, int16 Hounsfield values.

    Raises
    ------
    LungDetError
        If the file is missing, of unknown type, not a 3-D scalar image, damaged or truncated.
    """
    path = Path(path)
    if path.is_dir():
        return read_dicom_folder(path, series_uid=series_uid)
    values, grid, flags = _read_file(path)
    source = str(path)
    volume, file_geometry, tilt_flags = regular(
        as_int16_hu(values, source=source), grid, source=source
    )
    volume_hu, geometry = to_canonical(volume, file_geometry)
    return CTScan(
        volume_hu=np.ascontiguousarray(volume_hu),
        geometry=geometry,
        file_geometry=file_geometry,
        seriesuid=path.name[: -len(scan_suffix(path))],
        flags=(*flags, *tilt_flags),
    )


def read_volume(path: Path) -> tuple[np.ndarray, ScanGeometry]:
    """Read the values of one file as stored, labels above all, after the checks of its format.

    Returns
    -------
    values : array (z, y, x) of the file's own type.
    geometry : its grid.

    Raises
    ------
    LungDetError
        As `read_scan`, and if the slices lean: labels cannot be moved as grey levels are.
    """
    values, grid, _ = _read_file(path)
    return values, grid.upright(source=str(path))


def read_file_grid(path: Path) -> FileGrid:
    """Return the grid that a scan file states, without its pixels.

    Raises LungDetError as `read_scan`, but for what only the pixels can tell.
    """
    check_input_file(path)
    suffix = scan_suffix(path)
    if suffix in NIFTI_SUFFIXES:
        return nifti_grid(read_nifti_header(path))[0]
    if suffix in METAIMAGE_SUFFIXES:
        read_metaimage_header(path)
    with _itk_reader(path) as reader:
        reader.ReadImageInformation()
    if reader.GetDimension() != 3:
        raise LungDetError(f"{path}: {reader.GetDimension()}-D; one 3-D CT volume is needed")
    return grid_of_image(reader)


@contextmanager
def _itk_reader(path: Path) -> Iterator[sitk.ImageFileReader]:
    """Give a reader of one file; what ITK has to say of it becomes an error that names it."""
    reader = sitk.ImageFileReader()
    # Named, for ITK knows suffixes in small letters only.
    reader.SetImageIO(_IMAGE_IO[scan_suffix(path)])
    reader.SetFileName(str(path))
    try:
        yield reader
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LungDetError(
            f"{path}: cannot be read ({reason}); the file is damaged: copy or convert it again"
        ) from error


def _read_file(path: Path) -> tuple[np.ndarray, FileGrid, tuple[str, ...]]:
    """Return values (z, y, x), the grid that the file states, and remarks on it."""
    suffix = scan_suffix(path)
    if not suffix:
        raise LungDetError(
            f"{path}: unknown scan format; known: {', '.join(SCAN_SUFFIXES)} or a DICOM folder"
        )
    check_input_file(path)
    if suffix in NIFTI_SUFFIXES:
        return read_nifti(path)
    if suffix == ".nrrd":
        is_packed, flags = check_nrrd(path)
        values, grid = _read_pixels(path, size_xyz=None)
        if is_packed:
            check_gzip_pixels(path, values)
        return values, grid, flags
    header = read_metaimage_header(path)
    values, grid = _read_pixels(path, size_xyz=header.size_xyz)
    check_compressed_pixels(header, values)
    return values, grid, ()


def _read_pixels(
    path: Path, *, size_xyz: tuple[int, int, int] | None
) -> tuple[np.ndarray, FileGrid]:
    """Read a checked file; `size_xyz` is what the check found, None where it was not looked at."""
    with _itk_reader(path) as reader:
        reader.ReadImageInformation()
        size = reader.GetSize()
        if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
            raise LungDetError(
                f"{path}: {reader.GetDimension()}-D with {reader.GetNumberOfComponents()} "
                "values per pixel; one 3-D scalar CT volume is needed: convert a single series"
            )
        if math.prod(size) > MAX_VOXELS:
            raise LungDetError(
                f"{path}: {size} voxels; at most {MAX_VOXELS} can be read: the header is damaged, "
                "or this is no chest CT; copy or convert it again"
            )
        if size_xyz is not None and size != size_xyz:
            # Two readings of one header: neither the checks nor the pixels could be trusted.
            raise LungDetError(
                f"{path}: the header is ambiguous, its size reads as {size_xyz} and as {size}; "
                "convert the scan again"
            )
        image = reader.Execute()
    return sitk.GetArrayFromImage(image), grid_of_image(image)


_CHUNK_BYTES = 1 << 20
# zlib's own window size; 32 more lets it recognise a gzip header too, as SimpleITK does.
_ZLIB_OR_GZIP = zlib.MAX_WBITS + 32


def check_compressed_pixels(header: MetaImageHeader, pixels: np.ndarray) -> None:
    """Check the pixels of a compressed MetaImage against the file.

    Parameters
    ----------
    header : of the file; nothing is done where it is not compressed.
    pixels : array (z, y, x) as read from it, not yet converted.

    Raises
    ------
    LungDetError
        If the compressed stream is damaged, or holds another number of bytes than the header says.
    """
    if not header.compressed:
        return
    if pixels.nbytes == header.pixel_bytes:
        checksum = zlib.adler32(np.ascontiguousarray(pixels).data).to_bytes(4, "big")
        if _ends_in(header.data_path, checksum, header.data_offset + header.data_bytes):
            return
    # No proof of damage: gzip data, another byte order, or bytes behind the stream end here too.
    found = _inflated_bytes(header)
    if found != header.pixel_bytes:
        kind = TruncatedFileError if found < header.pixel_bytes else LungDetError
        raise kind(
            f"{header.data_path}: {found} bytes of pixels after decompression, the header "
            f"{header.path.name} promises {header.pixel_bytes}: the file is truncated or damaged; "
            "copy or download it again"
        )


def _ends_in(path: Path, checksum: bytes, end: int) -> bool:
    """Say whether the bytes of a file before `end` are a checksum."""
    with path.open("rb") as file:
        file.seek(max(end - len(checksum), 0))
        return file.read(len(checksum)) == checksum


def _inflated_bytes(header: MetaImageHeader) -> int:
    """Return how many bytes the stream holds, counted up to one more than expected."""
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    total = 0
    with header.data_path.open("rb") as file:
        file.seek(header.data_offset)
        try:
            while not stream.eof and total <= header.pixel_bytes:
                chunk = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
                if not chunk:
                    break
                total += len(stream.decompress(chunk, _CHUNK_BYTES))
            total += len(stream.flush())  # the little that a full output buffer held back
        except zlib.error as error:
            raise LungDetError(
                f"{header.data_path}: the compressed pixels are damaged ({error}); copy or "
                "download the file again"
            ) from error
    return total


_HEADER_LIMIT_BYTES = 65536
_VECTOR, _QUOTED = re.compile(r"\(([^()]*)\)"), re.compile(r'"([^"]*)"')
# Nothing said, or said that nothing is known, is millimetres by custom.
_MILLIMETRES = frozenset(
    {"mm", "millimeter", "millimetre", "millimeters", "millimetres", "", "???"}
)
SPACING_TOLERANCE_REL = 1e-3
# Spaces that say where the patient's sides are; the others are of a scanner, or of nothing.
_SPACES = frozenset(
    {"right-anterior-superior", "ras", "left-anterior-superior", "las"}
    | {"left-posterior-superior", "lps"}
)
# The format's names of one type; spaces stand for any number of them.
_BYTES_OF_TYPE = {
    1: "signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t",
    2: "short,short int,signed short,signed short int,int16,int16_t,"
    "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    4: "int,signed int,int32,int32_t,uint,unsigned int,uint32,uint32_t,float",
    8: "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t,"
    "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t,double",
}


def check_nrrd(path: Path) -> tuple[bool, tuple[str, ...]]:
    """Check a NRRD file as far as one can before SimpleITK reads it.

    That follows a header to a data file anywhere on the disk, asks for memory for whatever size it
    states, and reads damaged gzip pixels, or more pixels than there should be, without a word.

    Returns whether it is compressed, and flags: what the header does not say.

    Raises LungDetError if the header names another file, cannot be understood, or promises another
    number of bytes than there are; of gzip pixels, more than can be: see `check_gzip_pixels`.
    """
    fields, offset = _nrrd_fields(path)
    separate = fields.get("data file", fields.get("datafile"))
    if separate is not None:
        raise LungDetError(
            f"{path}: the header names a separate data file ('{separate}'); for safety "
            "only pixels inside the .nrrd file are read: save the scan as one .nrrd or .mha"
        )
    skips = {name for name in fields if name.replace(" ", "") in ("lineskip", "byteskip")}
    encoding = fields.get("encoding", "").lower()
    if skips or encoding not in ("raw", "gzip", "gz"):
        raise LungDetError(
            f"{path}: encoding '{encoding}'{', ' if skips else ''}{', '.join(sorted(skips))}: only "
            "raw and gzip pixels right behind the header are read; save the scan again"
        )
    promised, _ = _promised_bytes(path, fields)
    _check_nrrd_place(path, fields)
    held = path.stat().st_size - offset
    if encoding == "raw" or promised > MAX_DEFLATE_RATIO * held:
        # No gzip stream this short holds as much.
        _check_held(path, fields, held if encoding == "raw" else 0)
    is_placed = fields.get("space", "").lower() in _SPACES
    return encoding != "raw", () if is_placed else (NO_DIRECTIONS.format("no patient's 'space'"),)


def check_gzip_pixels(path: Path, pixels: np.ndarray) -> None:
    """Check the pixels (z, y, x) of a compressed NRRD file, not yet converted, against the file.

    Raises LungDetError if the stream is damaged, or holds another number of bytes than the header
    says.
    """
    checksum = zlib.crc32(np.ascontiguousarray(pixels).data), pixels.nbytes % (1 << 32)
    if _ends_in(path, struct.pack("<II", *checksum), path.stat().st_size):
        return
    # No proof of damage: another byte order, several streams, a byte more than the pixels.
    fields, offset = _nrrd_fields(path)
    _check_held(path, fields, _decompressed_bytes(path, offset, sum(_promised_bytes(path, fields))))


def _check_held(path: Path, fields: dict[str, str], held: int) -> None:
    """Refuse another number of bytes than the header promises; less than a slice more may be."""
    promised, slice_bytes = _promised_bytes(path, fields)
    if not promised <= held < promised + slice_bytes:
        raise LungDetError(
            f"{path}: {held} bytes of pixels, the header promises {promised} with sizes "
            f"'{fields['sizes']}' and type '{fields.get('type')}': the file is truncated or its "
            "header wrong; copy or convert it again"
        )


def _nrrd_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields up to the blank line, and the offset of the first byte behind it."""
    with path.open("rb") as file:
        head = file.read(_HEADER_LIMIT_BYTES)
    if not head.startswith(b"NRRD"):
        raise LungDetError(f"{path}: cannot be read: not a NRRD file; convert the scan again")
    blank = re.search(b"\n\n|\r\n\r\n", head)
    end, offset = blank.span() if blank else (len(head), len(head))
    fields: dict[str, str] = {}
    for line in head[:end].splitlines():
        name, _, value = line.decode("latin-1").partition(":")
        # "key:=value" is the user's own, whatever the key.
        if not value.startswith("="):
            fields[name.strip().lower()] = value.strip()
    return fields, offset


def _promised_bytes(path: Path, fields: dict[str, str]) -> tuple[int, int]:
    """Return the bytes of all pixels, and of one slice."""
    words = fields.get("sizes", "").split()
    # Nothing has 20 digits; Python refuses to read thousands of them.
    sizes = [int(w) for w in words if w.isascii() and w.isdecimal() and len(w) < 20]
    kind = " ".join(fields.get("type", "").lower().split())
    n_bytes = next((n for n, names in _BYTES_OF_TYPE.items() if kind in names.split(",")), 0)
    is_sound = sizes and len(sizes) == len(words) and 0 < math.prod(sizes) <= MAX_VOXELS
    if not (is_sound and n_bytes):
        raise LungDetError(
            f"{path}: the header has sizes '{fields.get('sizes', '')[:80]}' and type '{kind[:80]}'"
            f": needed are sizes of at least 1, at most {MAX_VOXELS} voxels and a type of numbers; "
            "convert the scan again"
        )
    total = math.prod(sizes) * n_bytes
    return total, total // sizes[-1]


def _check_nrrd_place(path: Path, fields: dict[str, str]) -> None:
    """Refuse a header without spacings, in another unit, or with spacings that disagree."""
    directions = _VECTOR.findall(fields.get("space directions", ""))
    spacings = fields.get("spacings", "").split()
    stated = [value for word in spacings for value in _numbers([word]) if value > 0]
    if not directions and not stated:
        raise LungDetError(
            f"{path}: the header has neither 'spacings' nor 'space directions': the size of a "
            "voxel is not known; convert the scan again from DICOM"
        )
    stated_units = fields.get("space units", "") + fields.get("units", "")
    units = {unit.lower() for unit in _QUOTED.findall(stated_units)}
    if units - _MILLIMETRES:
        raise LungDetError(
            f"{path}: the header gives lengths in {', '.join(sorted(units - _MILLIMETRES))}, and "
            "only millimetres are read; convert the scan again"
        )
    if directions and spacings:
        lengths = [math.hypot(*v) for text in directions if (v := _numbers(text.split(",")))]
        if len(lengths) == len(stated) and any(
            abs(a - b) > SPACING_TOLERANCE_REL * b for a, b in zip(lengths, stated, strict=True)
        ):
            raise LungDetError(
                f"{path}: the header states two spacings: 'spacings' {stated}, and {lengths} in "
                "its 'space directions'; convert the scan again from DICOM"
            )


def _numbers(words: list[str]) -> list[float]:
    """Return finite numbers, or nothing where one of the words is none."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []


def _decompressed_bytes(path: Path, offset: int, limit: int) -> int:
    """Return how many bytes the gzip stream holds, counted up to `limit`."""
    with path.open("rb") as file:
        file.seek(offset)
        try:
            with gzip.open(file) as stream:
                return remaining_bytes(stream, at_most=limit)
        except (OSError, EOFError, zlib.error) as error:
            raise LungDetError(
                f"{path}: the compressed pixels are damaged ({error}); the file is truncated or "
                "damaged: copy or download it again"
            ) from error
