"""The fault corpus: every way in which a scan or table is known to be broken, and what must happen.

A case with a ``says`` is refused with an error that matches it and names the file; one without is
used, with ``flag`` among its flags. What builds each case stands in the modules beside this one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tests.faults import dicom_builders as dcm
from tests.faults import metaimage_builders as mhd
from tests.faults import other_format_builders as other
from tests.faults.chest import chest
from tests.faults.table_texts import GOOD, HEADER, ROW, UID, row


@dataclass(frozen=True)
class Fault:
    """One case: its name, how it is made, and what must become of it."""

    name: str
    build: Callable[[Path, str], Path]
    says: str = ""
    flag: str = ""


@dataclass(frozen=True)
class TableFault:
    """One annotations.csv: what it holds, and what must be said of it.

    ``refused`` tells an error from a note beside a finished preparation.
    """

    name: str
    content: str | bytes
    says: str
    refused: bool = True


NAN = float("nan")
CUT = "truncated or damaged; copy or download"
ITEM = chest()[0].nbytes  # bytes of all pixels

METAIMAGE = (
    # Pixels that are not there, or not those that were written.
    Fault("zraw_cut", mhd.pixels(lambda b: b[:-40]), "the header promises .* truncated"),
    Fault("zraw_cut_and_size_corrected", mhd.recompressed(lambda b: b[:-4096]), CUT),
    Fault("zraw_longer_than_the_scan", mhd.recompressed(lambda b: b * 2), CUT),
    Fault("zraw_empty", mhd.pixels(lambda b: b""), "0 bytes of pixel data"),
    Fault(
        "zraw_bit_flipped_at_its_start", mhd.pixels(mhd.flipped(0)), "compressed pixels .*damaged"
    ),
    Fault("zraw_bit_flipped_in_its_midst", mhd.pixels(mhd.flipped(6000)), "damaged"),
    Fault("zraw_bit_flipped_in_its_checksum", mhd.pixels(mhd.flipped(-1)), "damaged"),
    Fault("zraw_is_text", mhd.pixels(lambda b: b"<html>" * 4096), "compressed pixels are damaged"),
    Fault(
        "raw_cut", mhd.pixels(lambda b: b[:-1], compress=False), f"{ITEM - 1} bytes of .* {ITEM}"
    ),
    Fault("raw_twice_as_long", mhd.pixels(lambda b: b * 2, compress=False), f"{ITEM * 2} bytes"),
    # Header fields.
    Fault("size_missing", mhd.header(DimSize=None), "DimSize is missing; copy"),
    Fault(
        "size_doubled", mhd.header(extra="DimSize = 64 64 30\n"), "stands twice.*remove the wrong"
    ),
    Fault("size_doubled_but_equal", mhd.header(extra="DimSize = 64 64 36\n")),
    Fault(
        "size_negative", mhd.header(DimSize="64 -64 36"), "'64 -64 36': sizes must be at least 1"
    ),
    Fault("size_zero", mhd.header(DimSize="64 64 0"), "'64 64 0': sizes must be at least 1"),
    Fault("size_huge", mhd.header(DimSize="1000000 1000000 1000000"), "at most 2147483648 voxels"),
    Fault(
        "size_huge_within_the_limit",
        mhd.header(DimSize="1290 1290 1290", ElementSpacing="1 1 1"),
        "cannot hold the 42933",
    ),
    Fault("size_overflows", mhd.header(DimSize="4294967360 64 36"), "at most 2147483648 voxels"),
    Fault("size_of_thousands_of_digits", mhd.header(DimSize="9" * 5000 + " 1 1"), "whole numbers"),
    Fault("size_with_underscore", mhd.header(DimSize="6_4 64 36"), "whole numbers are needed"),
    Fault("size_in_words", mhd.header(DimSize="many 64 36"), "'many 64 36': whole numbers"),
    Fault("spacing_missing", mhd.header(ElementSpacing=None), "is missing; copy or convert"),
    Fault("spacing_nan", mhd.header(ElementSpacing="5 nan 5"), "'5 nan 5': three finite spacings"),
    Fault("spacing_negative", mhd.header(ElementSpacing="5 5 -5"), "'5 5 -5': three finite"),
    Fault("spacing_zero", mhd.header(ElementSpacing="0 5 5"), "'0 5 5': three finite spacings"),
    Fault("spacing_infinite", mhd.header(ElementSpacing="inf 5 5"), "'inf 5 5': three finite"),
    Fault("spacing_in_metres", mhd.header(ElementSpacing="0.005 0.005 0.005"), "in another unit"),
    Fault("spacing_in_micrometres", mhd.spaced((5000.0,) * 3), "no side longer than 3000 mm"),
    Fault("spacing_huge", mhd.header(ElementSpacing="5 5 1e300"), "no side longer than 3000 mm"),
    Fault("origin_nan", mhd.header(Offset="nan 0 0"), "Offset is 'nan 0 0': 3 finite numbers"),
    Fault("origin_huge", mhd.header(Offset="1e30 0 0"), "no patient lies further than"),
    Fault("direction_zero", mhd.header(TransformMatrix="0 " * 9), "direction is .*orthogonal"),
    Fault("direction_sheared", mhd.header(TransformMatrix="1 .3 0 0 1 0 0 0 1"), "direction is"),
    Fault("direction_short", mhd.header(TransformMatrix="1 0 0 1"), "9 finite numbers are needed"),
    Fault("type_missing", mhd.header(ElementType=None), "ElementType is ''; known: MET_CHAR"),
    Fault("type_unknown", mhd.header(ElementType="MET_STRANGE"), "ElementType is 'MET_STRANGE'"),
    Fault("type_too_wide", mhd.header(ElementType="MET_INT"), CUT),
    Fault(
        "type_too_narrow", mhd.header(ElementType="MET_UCHAR", compress=False), "MET_UCHAR: one of"
    ),
    Fault("type_too_narrow_compressed", mhd.header(ElementType="MET_UCHAR"), CUT),
    Fault("type_without_sign", mhd.header(ElementType="MET_USHORT"), "hardly any lies at air"),
    Fault("pixels_as_text", mhd.header(BinaryData="False"), "pixels as text"),
    Fault("header_cut", mhd.header_bytes(lambda b: b[:150]), "no ElementDataFile .*copy the file"),
    Fault("header_empty", mhd.header_bytes(lambda b: b""), "no ElementDataFile"),
    Fault(
        "header_of_noise", mhd.header_bytes(lambda b: bytes(range(256)) * 8), "no ElementDataFile"
    ),
    Fault("header_of_one_endless_line", mhd.header(Comment=" " * 60000 + "x")),
    # Byte orders.
    Fault("big_endian", mhd.recompressed(mhd.swapped, BinaryDataByteOrderMSB="True")),
    Fault("big_endian_not_said", mhd.recompressed(mhd.swapped), "hardly any lies at air"),
    # Data files that lead elsewhere; the last part of each says what is there.
    Fault(
        "data_absolute", mhd.header(ElementDataFile="/etc/passwd"), "outside the header's own fol"
    ),
    Fault(
        "data_in_parent", mhd.header(ElementDataFile="../good/good.zraw"), "outside the header's"
    ),
    Fault("data_link_out", mhd.data_file(mhd.secret_beside), "outside the header's own folder"),
    Fault("data_folder", mhd.data_file(lambda p: p.mkdir()), "is a folder, not a file"),
    Fault("data_fifo", mhd.data_file(os.mkfifo), "not a regular file"),
    Fault("data_missing", mhd.data_file(lambda p: None), "no such file"),
    Fault("data_link_in_circle", mhd.data_file(lambda p: p.symlink_to(p.name)), "cannot be read"),
    Fault("data_name_too_long", mhd.header(ElementDataFile="a" * 300), "name too long"),
    Fault("data_name_not_utf8", mhd.header(ElementDataFile="a\udcff.raw"), "is not valid UTF-8"),
    Fault("data_name_empty", mhd.header(ElementDataFile=""), "ElementDataFile ''.*is a folder"),
    Fault("data_in_slices", mhd.header(ElementDataFile="LIST"), "a list of slice files"),
    # Something else where the header should be.
    Fault(
        "header_folder", mhd.scan_path(lambda p: p.mkdir()), "is a folder|no scan in this folder"
    ),
    Fault("header_fifo", mhd.scan_path(os.mkfifo), "not a regular file"),
    Fault("header_link_to_nothing", mhd.scan_path(lambda p: p.symlink_to("none")), "no such file"),
    Fault("header_name_not_utf8", mhd.named("\udcff"), "the name is not valid UTF-8; rename"),
    Fault("header_name_with_umlaut", mhd.named("M\u00fcller")),
)

VOLUMES = (
    Fault(
        "all_air",
        mhd.volume(lambda v: np.full_like(v, -1000)),
        "-1000 to -1000.*nobody was scanned",
    ),
    Fault("all_water", mhd.volume(np.zeros_like), "values run from 0 to 0.*at air"),
    Fault("constant_padding", mhd.volume(lambda v: np.full_like(v, -2000)), "from -2000 to -2000"),
    Fault("all_nan", mhd.volume(mhd.with_value(NAN)), f"{ITEM // 2} voxels are NaN or infinite"),
    Fault("one_nan", mhd.volume(mhd.with_value(NAN, 1e-9)), "1 voxels are NaN or infinite"),
    Fault("one_infinite", mhd.volume(mhd.with_value(np.inf, 1e-9)), "1 voxels are NaN or infinite"),
    Fault("float_beyond_int16", mhd.volume(mhd.with_value(1e30, 1e-9))),
    Fault("mr", mhd.volume(lambda v: (v + 1000) // 2), "from 0 to 520.*MR and other modalities"),
    Fault("intercept_not_applied", mhd.volume(lambda v: v + 1024), "without its rescale intercept"),
    Fault("abdomen", mhd.below_the_lungs, flag="no_lungs"),
    Fault("one_slice", mhd.volume(lambda v: v[17:18])),
    Fault("five_slices", mhd.volume(lambda v: v[15:20])),
    Fault("two_dimensional", mhd.scan_of(sitk.Image([64, 64], sitk.sitkInt16)), "one 3-D scan"),
    Fault(
        "four_dimensional", mhd.scan_of(sitk.Image([9, 9, 9, 2], sitk.sitkInt16)), "one 3-D scan"
    ),
    Fault("colour", mhd.scan_of(sitk.Image([9, 9, 9], sitk.sitkVectorUInt8, 3)), "a colour image"),
)

OTHER_FORMATS = (
    Fault("nrrd_cut", other.stored(".nrrd", lambda b: b[:-100]), "bytes but received .*damaged"),
    Fault("nrrd_bit_flipped", other.stored(".nrrd", mhd.flipped(-6000)), "pixels are damaged .CRC"),
    Fault(
        "nrrd_raw_cut", other.stored(".nrrd", lambda b: b[:-1], compress=False), f"{ITEM - 1} bytes"
    ),
    Fault("nrrd_size_huge", other.nrrd_header("64 64 36", "1000000 1000000 1000000"), "at most"),
    Fault(
        "nrrd_size_within_the_limit", other.nrrd_header("64 64 36", "1290 1290 1290"), "0 bytes of"
    ),
    Fault("nrrd_size_too_small", other.nrrd_header("64 64 36", "64 64 18"), "promises 147456"),
    Fault("nrrd_type_too_narrow", other.nrrd_header("short", "uchar", compress=False), "'uchar'"),
    Fault("nrrd_type_unknown", other.nrrd_header("short", "block"), "type 'block': needed"),
    Fault(
        "nrrd_elsewhere",
        other.nrrd_header("encoding", "data file: /etc/passwd\nencoding"),
        "separate",
    ),
    Fault(
        "nrrd_skips",
        other.nrrd_header("encoding", "byte skip: -1\nencoding"),
        "byte skip: only raw",
    ),
    Fault("nrrd_empty", other.stored(".nrrd", lambda b: b""), "not a NRRD file"),
    Fault("nifti_cut", other.stored(".nii.gz", lambda b: b[:-100]), "cannot be decompressed"),
    Fault("nifti_bit_flipped", other.stored(".nii.gz", mhd.flipped(-2000)), "CRC check failed"),
    Fault("nifti_raw_cut", other.stored(".nii", lambda b: b[:-1]), "file is truncated"),
    Fault(
        "nifti_size_huge",
        other.nifti_header(other.DIM + 2, "3h", *(30000,) * 3),
        "at most 2147483648",
    ),
    Fault("nifti_size_too_small", other.nifti_header(other.DIM + 6, "h", 18), "promises 147808"),
    Fault(
        "nifti_type_too_narrow", other.nifti_header(other.DATATYPE, "2h", 2, 8), "datatype 2: the"
    ),
    Fault(
        "nifti_bits_contradict", other.nifti_header(other.DATATYPE, "h", 2), "bits that fit the dat"
    ),
    Fault(
        "nifti_spacing_nan", other.nifti_header(other.PIXDIM + 4, "f", NAN), r"pixdim \(nan, 5.0"
    ),
    Fault(
        "nifti_spacing_zero", other.nifti_header(other.PIXDIM + 4, "f", 0.0), r"pixdim \(0.0, 5.0"
    ),
    Fault("nifti_place_nan", other.nifti_header(other.SROW, "12f", *(NAN,) * 12), "origin .*nan"),
    Fault("nifti_slope_infinite", other.nifti_header(other.SLOPE, "f", np.inf), "scl_slope inf"),
    Fault("nifti_slope_nan_means_none", other.nifti_header(other.SLOPE, "2f", NAN, NAN)),
    Fault("nifti_two_phases", other.stored(".nii", image=mhd.two_phases()), "4-D with 1 values"),
    Fault("nifti_one_phase_of_4d", other.stored(".nii", image=mhd.two_phases()[..., :1])),
)

DICOM = (
    Fault("implicit_vr", dcm.rewritten("1.2.840.10008.1.2")),
    Fault("big_endian_dicom", dcm.rewritten("1.2.840.10008.1.2.2")),
    Fault("deflated", dcm.rewritten("1.2.840.10008.1.2.1.99")),
    Fault("rle", dcm.compressed("1.2.840.10008.1.2.5")),
    Fault("jpeg_ls", dcm.compressed("1.2.840.10008.1.2.4.80")),
    Fault("jpeg_ls_damaged", dcm.flipped_stream, r"0005\.dcm: cannot be read .*export it again"),
    Fault("syntax_unknown", dcm.claims("1.2.3.4"), "cannot be read, as all 18 "),
    Fault("mixed_series", dcm.files(dcm.mixed)),
    Fault("odd_files_beside", dcm.files(dcm.joined_by_odd_files), flag="files beside the images"),
    Fault("slice_missing", dcm.removed(5), flag="interpolated to 10.00 mm"),
    Fault("slices_missing", dcm.removed(5, 6, 7, 8), "gap of 50.0 mm between 0004.dcm and"),
    Fault("slice_emptied", dcm.cut(0), r"0005\.dcm: cannot be read, perhaps cut off, emptied"),
    Fault("slice_cut_in_its_header", dcm.cut(600), r"0005\.dcm: cannot be read, perhaps cut off"),
    Fault("slice_cut", dcm.cut(-20), r"0005\.dcm: cannot be read, perhaps cut off"),
    Fault("slice_name_not_utf8", dcm.files(dcm.name_beyond_utf8), "cannot be read"),
    Fault("element_of_4_gb", dcm.files(dcm.endless_element), r"0005\.dcm: cannot be read, perhaps"),
    Fault("slices_doubled", dcm.files(dcm.doubled), flag="3 duplicated slices left out"),
    Fault("two_images_per_place", dcm.files(dcm.two_images_per_place), "18 positions hold several"),
    Fault("one_place", dcm.files(dcm.one_place), "only 1 positions"),
    Fault("secondary_capture", dcm.sop_class("1.2.840.10008.5.1.4.1.1.7"), "not CT Image Storage"),
    Fault("mr_series", dcm.tags(Modality="MR"), "modality MR, not CT"),
    Fault("colour_series", dcm.tags(SamplesPerPixel=3), "a colour image"),
    Fault("rows_huge", dcm.tags(Rows=65535), r"\(18, 65535, 64\) voxels"),
    Fault("rows_of_one_differ", dcm.tags(Rows=128, slices=slice(5, 6)), "two volumes in one"),
    Fault("bits_lie", dcm.tags(BitsAllocated=8, BitsStored=8, HighBit=7), "8192 bytes of pixels"),
    Fault("pixel_spacing_zero", dcm.tags(PixelSpacing=[0, 0]), "spacing .*three finite values > 0"),
    Fault("pixel_spacing_missing", dcm.tags(PixelSpacing=None), "0 slices with a position"),
    Fault("orientation_long", dcm.tags(ImageOrientationPatient=[2, 0, 0, 0, 1, 0]), "direction is"),
    Fault("orientation_zero", dcm.tags(ImageOrientationPatient=[0] * 6), "not axial"),
    Fault("slice_beside_the_line", dcm.moved((1e6, 0.0, 0.0)), r"0005\.dcm at .*position is wrong"),
    Fault("slice_far_above", dcm.moved((0.0, 0.0, 1e12)), "gap of .*slices are missing"),
    Fault("slope_zero", dcm.tags(RescaleSlope="0"), "rescale slope '0'"),
    Fault("slope_huge", dcm.tags(RescaleSlope="1e300"), "hardly any lies at air"),
    Fault("no_rescaling", dcm.tags(RescaleIntercept=None, RescaleSlope=None), "rescale intercept"),
    Fault("description_in_latin1", dcm.tags(**dcm.LATIN1)),
)

TABLES = (
    TableFault("byte_order_mark", "\ufeff" + GOOD, "nodules: 1;", refused=False),
    TableFault("windows_lines", GOOD.replace("\n", "\r\n"), "nodules: 1;", refused=False),
    TableFault(
        "semicolons", GOOD.replace(",", ";"), "columns separated by ';'.*: 1", refused=False
    ),
    TableFault(
        "decimal_commas",
        row("70x5", diameter="20x25").replace(",", ";").replace("x", ","),
        "decimal commas read as points: 2",
        refused=False,
    ),
    TableFault(
        "unknown_series",
        GOOD + ROW.replace(UID, "9.9"),
        "1 named by the tables but not on disk",
        refused=False,
    ),
    TableFault("repeated_line", GOOD + ROW, "repeated lines left out: 1", refused=False),
    TableFault("outside_the_scan", row(9000), "lost: 1", refused=False),
    TableFault("no_nodules", HEADER, "nodules: 0;", refused=False),
    TableFault("coordinate_beyond_the_room", row(1e300), "line 2: the centre is .*within 100000"),
    TableFault("coordinate_nan", row(y="nan"), "line 2: coordY is 'nan'"),
    TableFault("coordinate_infinite", row(z="-inf"), "line 2: coordZ is '-inf'"),
    TableFault("coordinate_missing", row(x=""), "line 2: coordX is ''"),
    TableFault("coordinate_with_underscore", row(x="7_0"), "line 2: coordX is '7_0'"),
    TableFault("decimal_commas_unquoted", row("70,5"), "line 2: 6 fields .*decimal comma"),
    TableFault("diameter_zero", row(diameter=0), r"diameter_mm is 0; it must lie in \(0, 200\]"),
    TableFault("diameter_negative", row(diameter=-4), "diameter_mm is -4"),
    TableFault("diameter_is_a_volume", row(diameter=4188), "diameter_mm is 4188"),
    TableFault("two_diameters", GOOD + ROW.replace("20", "21"), "two diameters for the nodule"),
    TableFault("column_missing", GOOD.replace("coordZ", "z"), "no column 'coordZ'"),
    TableFault("column_twice", GOOD.replace("coordZ", "coordX"), "'coordX' 2 times"),
    TableFault("empty", "", "the file is empty"),
    TableFault("uid_leads_elsewhere", GOOD.replace(UID, "../x"), "'../x' is no series UID"),
    TableFault("latin1", GOOD.encode() + b"\xe4", "is not UTF-8 text"),
    TableFault("utf16", GOOD.encode("utf-16"), "is not UTF-8 text"),
    TableFault("endless_field", GOOD + '"' + "x" * 200_000, "is not a line of a table"),
    TableFault("binary", bytes(range(128)) * 20, "table|column"),
)
