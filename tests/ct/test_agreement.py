"""Headers that say one thing twice, or not at all: refused, flagged, or read as what is meant."""

import math
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.ct.reading import read_scan, read_volume
from lungdet_mmdet.errors import LungDetError

pytestmark = pytest.mark.reliability("two statements in one header: NIfTI, NRRD, MetaImage")

SIZE_ZYX = (9, 6, 8)
VOLUME = np.arange(9 * 48, dtype=np.int16).reshape(SIZE_ZYX)
# Columns run to the left and rows backwards, as most CT is stored.
AFFINE = np.array([[-2.0, 0, 0, 20], [0, -2, 0, 30], [0, 0, 5, -100]])
# Half a turn about z: the same as AFFINE.
HALF_TURN = (0.0, 0.0, 1.0, 20.0, 30.0, -100.0)


def nifti(
    path, volume=VOLUME, *, pixdim=(2, 2, 5), sform=AFFINE, qform=None, slope=(1, 0), units=2
):
    code, bits = {"i2": (4, 16), "f4": (16, 32)}[volume.dtype.str[1:]]
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *volume.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, code, bits)
    struct.pack_into("<8f", head, 76, 1, *pixdim, 1, 1, 1, 1)
    struct.pack_into("<3f", head, 108, 352, *slope)
    head[123] = units
    struct.pack_into("<2h", head, 252, int(qform is not None), int(sform is not None))
    struct.pack_into("<6f", head, 256, *(qform or [0] * 6))
    if sform is not None:
        struct.pack_into("<12f", head, 280, *np.ravel(sform))
    head[344:348] = b"n+1\0"
    path.write_bytes(bytes(head) + volume.tobytes())
    return path


def nrrd(path, *fields, volume=VOLUME):
    x, y, z = volume.shape[::-1]
    lines = ["NRRD0004", "type: short", "dimension: 3", f"sizes: {x} {y} {z}", "encoding: raw",
             "endian: little", *fields]  # fmt: skip
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + volume.tobytes())
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"pixdim": (1, 1, 1)},
            r"two spacings: pixdim \[1.0, 1.0, 1.0\] mm, and \[2.0, 2.0, 5.0\]",
        ),
        ({"pixdim": (2, 2, 2.5)}, "two spacings"),
        ({"pixdim": (2, 2.01, 5)}, "two spacings"),
        ({"qform": (0, 0, 0, 20, 30, -100)}, "two places: qform and sform are up to"),
        ({"qform": (0, 0, 1, 20, 30, -90)}, "two places: qform and sform are up to 10.0 mm apart"),
        ({"units": 1}, "lengths in unit 1 of the standard, not in millimetres"),
        ({"units": 3}, "lengths in unit 3"),
        ({"slope": (1e-30, 0)}, "scl_slope"),
        ({"slope": (1, math.nan)}, "scl_inter nan"),
        ({"sform": AFFINE * math.nan}, "origin or direction that is no number"),
    ],
)
def test_nifti_fields_that_disagree_are_refused(tmp_path, options, words):
    with pytest.raises(LungDetError, match=words):
        read_scan(nifti(tmp_path / "a.nii", **options))


@pytest.mark.parametrize("offset", [0, 100, 348, math.nan])
def test_nifti_pixels_that_begin_within_the_header_are_refused(tmp_path, offset):
    path = nifti(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, offset)
    path.write_bytes(content)
    with pytest.raises(LungDetError, match="pixels behind the header"):
        read_scan(path)


@pytest.mark.parametrize(
    "options", [{}, {"qform": HALF_TURN}, {"sform": None, "qform": HALF_TURN}, {"units": 0}]
)
def test_nifti_fields_that_agree_are_read(tmp_path, options):
    scan = read_scan(nifti(tmp_path / "a.nii", **options))
    assert scan.flags == ()
    assert scan.geometry.spacing_zyx_mm == (5.0, 2.0, 2.0)
    assert np.allclose(scan.geometry.origin_xyz_mm, (-20, -30, -100), atol=1e-4)
    assert np.array_equal(scan.volume_hu, VOLUME)


def test_a_nifti_without_directions_is_flagged(tmp_path):
    scan = read_scan(nifti(tmp_path / "a.nii", sform=None))
    assert scan.flags[0].startswith("the header says nothing about directions")
    assert np.array_equal(scan.volume_hu, VOLUME)


def test_nifti_is_read_as_itk_reads_it(tmp_path):
    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((0.820312, 0.7, 1.25))
    image.SetOrigin((10.0, 20.0, 30.0))
    image.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    for suffix in (".nii", ".nii.gz", ".mha"):
        sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    first, *others = (read_scan(tmp_path / f"a{s}") for s in (".mha", ".nii", ".nii.gz"))
    for scan in others:
        assert np.array_equal(scan.volume_hu, first.volume_hu)
        assert scan.geometry.spacing_zyx_mm == first.geometry.spacing_zyx_mm
        assert np.allclose(scan.geometry.direction, first.geometry.direction, atol=1e-6)
        assert np.allclose(scan.geometry.origin_xyz_mm, first.geometry.origin_xyz_mm, atol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_what_is_no_number_is_refused_in_every_format(tmp_path, suffix, bad):
    volume = VOLUME.astype("f4")
    volume[0, 0, :3] = bad
    path = tmp_path / f"a{suffix}"
    if suffix == ".nii":
        nifti(path, volume)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(path))
    with pytest.raises(LungDetError, match="3 voxels are NaN or infinite"):
        read_scan(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((), "neither 'spacings' nor 'space directions'"),
        (("spacings: nan nan nan",), "neither 'spacings'"),
        (('space units: "cm" "cm" "cm"', "spacings: 1 1 1"), "lengths in cm"),
        (('units: "um" "um" "um"', "spacings: 1 1 1"), "lengths in um"),
        (
            ("space: left-posterior-superior", "space directions: (2,0,0) (0,2,0) (0,0,5)",
             "spacings: 1 1 1"),
            "two spacings",
        ),
    ],
)  # fmt: skip
def test_nrrd_fields_that_are_missing_or_disagree_are_refused(tmp_path, fields, words):
    with pytest.raises(LungDetError, match=words):
        read_scan(nrrd(tmp_path / "a.nrrd", *fields))


def test_a_nrrd_in_millimetres_is_read(tmp_path):
    space = "space: left-posterior-superior"
    units = 'space units: "mm" "mm" "mm"'
    directions = "space directions: (2,0,0) (0,2,0) (0,0,5)"
    scan = read_scan(nrrd(tmp_path / "a.nrrd", space, units, directions))
    assert scan.geometry.spacing_zyx_mm == (5.0, 2.0, 2.0)


def leaning(path, lean):
    """A volume whose slices run off along y by `lean` millimetres each, in three formats."""
    if path.suffix == ".nii":
        sform = AFFINE.copy()
        sform[1, 2] = -lean
        return nifti(path, sform=sform)
    if path.suffix == ".nrrd":
        return nrrd(path, "space: left-posterior-superior", "space origin: (-20,-30,-100)",
                    f"space directions: (2,0,0) (0,2,0) (0,{lean},5)")  # fmt: skip
    length = math.hypot(lean, 5)
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"TransformMatrix = 1 0 0 0 1 0 0 {lean / length} {5 / length}\nOffset = -20 -30 -100\n"
        f"ElementSpacing = 2 2 {length}\nDimSize = 8 6 9\nElementType = MET_SHORT\n"
        "ElementDataFile = LOCAL\n"
    )
    path.write_bytes(head.encode() + VOLUME.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_shear_by_rounding_is_none(tmp_path, suffix):
    scan = read_scan(leaning(tmp_path / f"a{suffix}", 5e-4))
    assert scan.flags == ()
    assert np.array_equal(scan.volume_hu, VOLUME)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_a_tilted_gantry_is_straightened_as_in_dicom(tmp_path, suffix):
    # 2 mm, one pixel, for every 5 mm: 21.8 degrees; the last of nine slices moves by 8 rows.
    scan = read_scan(leaning(tmp_path / f"a{suffix}", 2.0))
    assert scan.flags == ("gantry tilt of 21.8 degrees straightened",)
    assert scan.volume_hu.shape == (9, 14, 8)
    assert np.allclose(scan.geometry.spacing_zyx_mm, (5.0, 2.0, 2.0), atol=1e-6)
    for index in range(9):
        # Row 0 of every slice lies where the file says.
        world = np.array([-20.0, -30.0 + 2.0 * index, -100.0 + 5.0 * index])
        z, y, x = np.rint(scan.geometry.world_to_voxel(world)).astype(int)
        assert scan.volume_hu[z, y, x] == VOLUME[index, 0, 0]
    assert scan.volume_hu[8, 0, 0] == -1000


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_a_lean_beyond_every_gantry_is_refused_with_its_reason(tmp_path, suffix):
    with pytest.raises(LungDetError, match="lean by 54 degrees, more than any gantry"):
        read_scan(leaning(tmp_path / f"a{suffix}", 7.0))


@pytest.mark.parametrize("suffix", [".mhd", ".mha", ".nrrd", ".nii", ".nii.gz"])
def test_suffixes_in_capitals_are_read(tmp_path, suffix):
    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((2.0, 2.0, 5.0))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    path = (tmp_path / f"a{suffix}").rename(tmp_path / f"A{suffix.upper()}")
    assert np.array_equal(read_scan(path).volume_hu, VOLUME)


DIRECTIONS = "space directions: (2,0,0) (0,2,0) (0,0,5)"


@pytest.mark.parametrize(
    "fields",
    [
        ["spacings: 2 2 5"],
        ["space dimension: 3", DIRECTIONS],
        ["space: scanner-xyz", DIRECTIONS],
        ["space: 3D-right-handed", DIRECTIONS],
    ],
)
def test_a_nrrd_that_does_not_name_the_patients_sides_is_flagged(tmp_path, fields):
    scan = read_scan(nrrd(tmp_path / "a.nrrd", *fields))
    assert scan.flags[0].startswith("the header says nothing about directions")


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1)),
        ("LPS", (1, 1)),
        ("right-anterior-superior", (-1, -1)),
        ("RAS", (-1, -1)),
        ("left-anterior-superior", (1, -1)),
        ("LAS", (1, -1)),
    ],
)
def test_a_nrrd_that_names_the_patients_sides_lies_there(tmp_path, space, signs):
    path = nrrd(tmp_path / "a.nrrd", f"space: {space}", DIRECTIONS, "space origin: (10,20,30)")
    scan = read_scan(path)
    assert scan.flags == ()
    assert scan.file_geometry.origin_xyz_mm == (10.0 * signs[0], 20.0 * signs[1], 30.0)
    assert scan.file_geometry.direction[::4] == (*signs, 1.0)


def test_the_users_own_keys_of_a_nrrd_are_no_fields(tmp_path):
    place = ["space: LPS", DIRECTIONS]
    path = nrrd(tmp_path / "a.nrrd", *place, "type:=a note", "sizes:=1 1 1", "data file:=b.raw")
    assert np.array_equal(
        read_scan(path).volume_hu, read_scan(nrrd(tmp_path / "b.nrrd", *place)).volume_hu
    )


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_labels_on_leaning_slices_are_refused(tmp_path, suffix):
    # Grey levels are moved with their slices; labels as stored would lie beside their nodules.
    with pytest.raises(LungDetError, match=rf"a{suffix}: its slices lean by 21.8 degrees"):
        read_volume(leaning(tmp_path / f"a{suffix}", 2.0))
    values, _ = read_volume(leaning(tmp_path / f"b{suffix}", 0.0))
    assert np.array_equal(values, VOLUME)
