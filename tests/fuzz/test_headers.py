"""Headers of scan files: read soundly or refused, whatever they say."""

import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.errors import LungDetError
from tests.fuzz.cases import TRIED, fuzzed
from tests.fuzz.conftest import VOLUME
from tests.fuzz.targets import try_scan

pytestmark = pytest.mark.reliability("fuzzing: headers")

ODD_WORDS = st.sampled_from(
    [
        *("nan", "inf", "-inf", "-1", "0", "1e300", "1e-320", "1e99999", "0x10", "6_4", "\u0664"),
        *("2147483648", "4294967297", "9" * 40, "True", "T", "MET_UCHAR", "MET_DOUBLE", "LOCAL"),
        *("LIST", "..", "/dev/zero", "%d", "=", ":", "\0", "\r"),
    ]
)
VALUES = st.lists(
    st.one_of(ODD_WORDS, st.integers().map(str), st.floats().map(str), st.text(max_size=6)),
    max_size=9,
).map(" ".join)
FIELDS = (
    *("NDims", "DimSize", "ElementType", "ElementSpacing", "ElementSize", "Offset", "Position"),
    *("TransformMatrix", "CenterOfRotation", "AnatomicalOrientation", "ElementNumberOfChannels"),
    *("BinaryData", "BinaryDataByteOrderMSB", "CompressedData", "CompressedDataSize"),
    *("HeaderSize", "Comment", "ElementDataFile"),
)
# Positions count from the start; a header is some hundred bytes.
PATCHES = st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=8)), max_size=6)


def patched(content: bytes, patches) -> bytes:
    out = bytearray(content)
    for position, data in patches:
        out[position : position + len(data)] = data
    return bytes(out)


@fuzzed()
@given(
    changes=st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=4),
    keep_others=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_metaimage_fields(fuzz_dir, sound_bytes, changes, keep_others, end):
    head = sound_bytes(".mha").split(b"LOCAL\n")[0].decode() + "LOCAL"
    lines = dict(line.split(" = ", 1) for line in head.splitlines())
    last = lines.pop("ElementDataFile")
    added = [(name, value) for name, value in changes if name != "ElementDataFile"]
    if not keep_others:
        lines |= dict(added)
        added = []
    last = dict(changes).get("ElementDataFile", last)
    text = end.join(f"{k} = {v}" for k, v in (*lines.items(), *added, ("ElementDataFile", last)))
    path = fuzz_dir / "fields.mha"
    content = (text + end).encode("utf-8", "surrogatepass")
    path.write_bytes(content + VOLUME.tobytes())
    try_scan(path, "headers")


@fuzzed()
@given(
    suffix=st.sampled_from([".mha", ".nrrd", ".nii"]), patches=PATCHES, length=st.integers(0, 700)
)
def test_bytes_of_any_header(fuzz_dir, sound_bytes, suffix, patches, length):
    content = patched(sound_bytes(suffix), patches)
    path = fuzz_dir / f"bytes{suffix}"
    path.write_bytes(content[: max(length, 1)] if length < 400 else content)
    try_scan(path, "headers")


@fuzzed()
@given(patches=PATCHES)
def test_a_compressed_nifti_header(fuzz_dir, sound_bytes, patches):
    path = fuzz_dir / "bytes.nii.gz"
    path.write_bytes(gzip.compress(patched(sound_bytes(".nii"), patches), 1))
    try_scan(path, "headers")


@fuzzed()
@given(
    content=st.binary(max_size=400), suffix=st.sampled_from([".mhd", ".nrrd", ".nii", ".nii.gz"])
)
def test_noise_is_no_scan(fuzz_dir, content, suffix):
    path = fuzz_dir / f"noise{suffix}"
    path.write_bytes(content)
    assert not try_scan(path, "headers")


@fuzzed()
@given(data=st.data(), suffix=st.sampled_from([".mha", ".nrrd", ".nii.gz"]))
def test_a_flipped_bit_in_compressed_pixels_never_changes_a_value(
    fuzz_dir, sound_bytes, data, suffix
):
    content = bytearray(sound_bytes(suffix, compress=True))
    begin = {".mha": content.find(b"LOCAL\n") + 6, ".nrrd": content.find(b"\n\n") + 2}.get(
        suffix, 0
    )
    position = data.draw(st.integers(begin, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path = fuzz_dir / f"flipped{suffix}"
    path.write_bytes(content)
    TRIED["pixels"] += 1
    try:
        volume = read_scan(path).volume_hu
    except LungDetError:
        return
    # Some bits of a stream's head carry nothing, such as the name of the system that wrote it.
    np.testing.assert_array_equal(volume, VOLUME)


@fuzzed()
@given(cut=st.integers(1, 2 * VOLUME.size), suffix=st.sampled_from([".mha", ".nrrd", ".nii"]))
def test_a_cut_off_file_is_never_filled_up(fuzz_dir, sound_bytes, cut, suffix):
    path = fuzz_dir / f"cut{suffix}"
    path.write_bytes(sound_bytes(suffix)[:-cut])
    assert not try_scan(path, "pixels")


@fuzzed()
@given(stream=st.binary(max_size=200), claim=st.integers(-5, 400))
def test_a_stream_that_was_never_compressed(fuzz_dir, stream, claim):
    path = fuzz_dir / "stream.mhd"
    sizes = " ".join(map(str, VOLUME.shape[::-1]))
    path.write_text(
        f"NDims = 3\nDimSize = {sizes}\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
        f"CompressedData = True\nCompressedDataSize = {claim}\nElementDataFile = stream.zraw\n"
    )
    # Half of the streams unpack, to whatever they hold.
    packed = zlib.compress(stream) if claim % 2 else stream
    (fuzz_dir / "stream.zraw").write_bytes(packed)
    assert not try_scan(path, "pixels")
