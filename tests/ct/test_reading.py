import gzip
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.reading import as_int16_hu, read_scan, scan_suffix
from lungdet_mmdet.ct.scan import write_metaimage
from lungdet_mmdet.errors import LungDetError, MissingFileError

VOLUME = np.random.default_rng(0).integers(-1000, 400, (5, 6, 7)).astype(np.int16)


def image_of(volume: np.ndarray = VOLUME) -> sitk.Image:
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-10.0, 20.0, -300.0))
    return image


def write_compressed(path: Path, stream: bytes, *, with_size: bool = True) -> Path:
    """Write `path` and beside it a .zraw of any content, with the header that fits VOLUME."""
    sitk.WriteImage(image_of(), str(path), True)
    size = f"CompressedDataSize = {len(stream)}\n" if with_size else ""
    path.write_text(re.sub(r"CompressedDataSize = \d+\n", size, path.read_text()))
    path.with_suffix(".zraw").write_bytes(stream)
    return path


@pytest.mark.parametrize(
    ("suffix", "compressed"),
    [
        (".mhd", False),
        (".mhd", True),
        (".mha", False),
        (".mha", True),
        (".nrrd", True),
        (".nii", False),
        (".nii.gz", True),
    ],
)
def test_every_format_gives_the_same_scan(tmp_path, suffix, compressed):
    path = tmp_path / f"1.2.840.99{suffix}"
    sitk.WriteImage(image_of(), str(path), compressed)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)
    assert scan.volume_hu.dtype == np.int16
    assert scan.seriesuid == "1.2.840.99"
    assert scan.geometry.size_zyx == (5, 6, 7)
    assert scan.geometry.spacing_zyx_mm == pytest.approx((2.5, 0.8, 0.7))
    assert scan.geometry.origin_xyz_mm == pytest.approx((-10.0, 20.0, -300.0))


def test_a_flipped_scan_is_turned_and_keeps_its_file_geometry(tmp_path):
    image = image_of(VOLUME[:, ::-1, ::-1])
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "flipped.mha"))
    scan = read_scan(tmp_path / "flipped.mha")
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)
    assert scan.volume_hu.flags.c_contiguous
    assert scan.file_geometry.origin_xyz_mm == pytest.approx((-10.0, 20.0, -300.0))
    # The far end: 6 steps of 0.7 mm and 5 of 0.8 mm back.
    assert scan.geometry.origin_xyz_mm == pytest.approx((-14.2, 16.0, -300.0))


@pytest.mark.parametrize("compressed", [False, True])
def test_big_endian_pixels(tmp_path, compressed):
    pixels = VOLUME.astype(">i2").tobytes()
    path = write_compressed(tmp_path / "big.mhd", zlib.compress(pixels) if compressed else pixels)
    text = path.read_text().replace("ByteOrderMSB = False", "ByteOrderMSB = True")
    if not compressed:
        text = text.replace("CompressedData = True", "CompressedData = False")
    path.write_text(text)
    np.testing.assert_array_equal(read_scan(path).volume_hu, VOLUME)


@pytest.mark.parametrize("with_size", [True, False])
@pytest.mark.parametrize(
    "stream",
    [zlib.compress(VOLUME.tobytes()), gzip.compress(VOLUME.tobytes())],
    ids=["zlib", "gzip"],
)
def test_whole_streams_are_read(tmp_path, stream, with_size):
    path = write_compressed(tmp_path / "scan.mhd", stream, with_size=with_size)
    np.testing.assert_array_equal(read_scan(path).volume_hu, VOLUME)


def test_bytes_behind_a_whole_stream_are_harmless(tmp_path):
    path = write_compressed(tmp_path / "scan.mhd", zlib.compress(VOLUME.tobytes()) + b"tail")
    np.testing.assert_array_equal(read_scan(path).volume_hu, VOLUME)


@pytest.mark.parametrize("with_size", [True, False])
@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (zlib.compress(VOLUME.tobytes()[:200]), "200 bytes of pixels after decompression"),
        (zlib.compress(VOLUME.tobytes() * 2), "promises 420"),
        (zlib.compress(VOLUME.tobytes())[:-60], "bytes of pixels after decompression"),
        (b"no stream at all" * 8, "compressed pixels are damaged"),
    ],
    ids=["short", "long", "cut", "garbage"],
)
def test_a_compressed_scan_with_too_few_or_wrong_bytes_is_refused(
    tmp_path, stream, message, with_size
):
    # SimpleITK reads every one of them and fills the rest with old memory.
    path = write_compressed(tmp_path / "scan.mhd", stream, with_size=with_size)
    with pytest.raises(LungDetError, match=message) as caught:
        read_scan(path)
    assert "scan.zraw" in str(caught.value)


def test_a_damaged_stream_of_the_right_length_is_refused(tmp_path):
    stream = bytearray(zlib.compress(VOLUME.tobytes(), 0))  # stored, so that it still unpacks
    stream[100] ^= 1
    path = write_compressed(tmp_path / "scan.mhd", bytes(stream))
    with pytest.raises(LungDetError, match="damaged"):
        read_scan(path)


@pytest.mark.parametrize(
    ("name", "keep"),
    [("scan.nrrd", -1), ("scan.nii", -1), ("scan.nii", 100), ("scan.nii.gz", -1),
     ("scan.nii.gz", 60), ("scan.nii.gz", 300), ("scan.mha", -1)],
)  # fmt: skip
def test_a_truncated_file_is_refused(tmp_path, name, keep):
    path = tmp_path / name
    sitk.WriteImage(image_of(), str(path), name.endswith("gz"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LungDetError, match=name):
        read_scan(path)


def test_a_nifti_whose_header_is_nonsense_is_refused(tmp_path):
    path = tmp_path / "scan.nii"
    sitk.WriteImage(image_of(), str(path))
    content = bytearray(path.read_bytes())
    content[42:44] = (-7).to_bytes(2, "little", signed=True)  # dim[1]
    path.write_bytes(content)
    with pytest.raises(LungDetError, match=r"dim \(3, -7, 6, 5"):
        read_scan(path)


def test_a_nrrd_that_points_to_another_file_is_refused(tmp_path):
    (tmp_path / "pixels.raw").write_bytes(VOLUME.tobytes())
    path = tmp_path / "scan.nrrd"
    path.write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 7 6 5\nencoding: raw\nendian: little\n"
        f"Data File: {tmp_path}/pixels.raw\n"
    )
    with pytest.raises(LungDetError, match="separate data file"):
        read_scan(path)


def test_a_nrrd_of_impossible_size_is_refused_before_memory_is_asked_for(tmp_path):
    path = tmp_path / "scan.nrrd"
    path.write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 70000 60000 500\nencoding: raw\n"
        "endian: little\n\n"
    )
    with pytest.raises(LungDetError, match="sizes '70000 60000 500' .* at most"):
        read_scan(path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (sitk.Image([4, 4], sitk.sitkInt16), "2-D with 1 values"),
        (sitk.Image([4, 4, 4, 2], sitk.sitkInt16), "4-D with 1 values"),
        (sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), "3-D with 3 values"),
    ],
    ids=["2-D", "4-D", "colour"],
)
def test_only_one_3d_scalar_volume_is_a_scan(tmp_path, image, message):
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(image, str(path))
    with pytest.raises(LungDetError, match=message):
        read_scan(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scan.txt", b"x", "unknown scan format; known: .mhd, .mha"),
        ("scan.nrrd", b"not a scan", "cannot be read"),
        ("scan.nii", b"not a scan", "not a NIfTI file"),
        ("scan.nii.gz", b"not a scan", "cannot be decompressed"),
        ("scan.mhd", b"not a scan", "not a MetaImage header"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LungDetError, match=message) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["absent.mhd", "absent.nii.gz"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(LungDetError, match=f"{name}: no such file"):
        read_scan(tmp_path / name)


@pytest.mark.parametrize("matrix", ["2 0 0 0 1 0 0 0 1", "1 0.3 0 0 1 0 0 0 1"])
def test_a_direction_that_is_none_names_the_file(tmp_path, matrix):
    path = tmp_path / "scan.mhd"
    sitk.WriteImage(image_of(), str(path))
    text = re.sub("TransformMatrix = .*", f"TransformMatrix = {matrix}", path.read_text())
    path.write_text(text)
    with pytest.raises(LungDetError, match="scan.mhd: direction is"):
        read_scan(path)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.mhd", ".mhd"), ("A.NII.GZ", ".nii.gz"), ("1.2.3.nii", ".nii"), ("a.gz", ""), ("a", "")],
)
def test_known_suffixes(name, suffix):
    assert scan_suffix(Path(name)) == suffix


def test_integers_beyond_int16_are_clipped():
    values = np.array([[[-(2**20), -5, 2**20]]], np.int32)
    assert as_int16_hu(values, source="x").tolist() == [[[-32768, -5, 32767]]]
    assert as_int16_hu(np.array([65535], np.uint16), source="x").tolist() == [32767]


def test_floats_are_rounded():
    assert as_int16_hu(np.array([-1000.4, 1.6, 1e9]), source="x").tolist() == [-1000, 2, 32767]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_voxels_that_are_no_number_are_refused(bad):
    with pytest.raises(LungDetError, match="x: 1 voxels are NaN or infinite"):
        as_int16_hu(np.array([0.0, bad]), source="x")


def test_int16_is_not_copied():
    assert as_int16_hu(VOLUME, source="x") is VOLUME


@pytest.mark.realdata
def test_real_scans_are_read_whole(luna16_sample):
    paths = sorted(luna16_sample.glob("subset*/*.mhd"))
    scan = read_scan(next(p for p in paths if p.stem.endswith("003264")))
    assert scan.volume_hu.shape == (140, 512, 512)
    assert scan.geometry.spacing_zyx_mm == pytest.approx((2.5, 0.820312, 0.820312))
    # Soft tissue and air are there, as everywhere in a chest.
    assert np.percentile(scan.volume_hu, 1) < -950
    assert 0 < np.percentile(scan.volume_hu, 95) < 200


def test_a_scan_killed_while_it_is_replaced_is_not_half_of_each(tmp_path, monkeypatch):
    grid = ScanGeometry((2, 3, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    write_metaimage(tmp_path, "a", np.zeros((2, 3, 4), np.int16), grid)
    replace = os.replace

    def killed_behind_the_pixels(source, target):
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed_behind_the_pixels)
    other = ScanGeometry((2, 3, 4), (1.0, 1.0, 1.0), (50.0, 0.0, 0.0))
    with pytest.raises(KeyboardInterrupt):
        write_metaimage(tmp_path, "a", np.ones((2, 3, 4), np.int16), other)
    with pytest.raises(MissingFileError):
        read_scan(tmp_path / "a.mhd")
