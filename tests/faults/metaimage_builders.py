"""Builders of MetaImages with one fault each; a builder takes a folder and a name."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from tests.faults.chest import abdomen, chest, image_of

Builder = Callable[[Path, str], Path]
Bytes = Callable[[bytes], bytes]


def write_mhd(folder: Path, name: str, volume: np.ndarray | None = None, **options) -> Path:
    """Write ``name.mhd`` and its pixels, compressed unless ``compress=False``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mhd"
    image = image_of(chest()[0] if volume is None else volume, options.get("geometry"))
    sitk.WriteImage(image, str(path), options.get("compress", True))
    return path


def _edited(text: str, fields: dict[str, str | None], extra: str) -> str:
    """Change header fields (None drops one); new ones and `extra` go before ElementDataFile."""
    lines = dict(line.split(" = ", 1) for line in text.splitlines())
    lines |= {name: value for name, value in fields.items() if value is not None}
    last = lines.pop("ElementDataFile")
    kept = [f"{k} = {v}" for k, v in lines.items() if k not in fields or fields[k] is not None]
    if fields.get("ElementDataFile", "") is not None:
        extra += f"ElementDataFile = {last}\n"
    return "\n".join(kept) + "\n" + extra


def header(*, extra: str = "", compress: bool = True, **fields: str | None) -> Builder:
    """A header with fields that are changed, added or (None) left out."""

    def build(folder: Path, name: str) -> Path:
        path = write_mhd(folder, name, compress=compress)
        text = _edited(path.read_text(), fields, extra)
        path.write_bytes(os.fsencode(text))
        return path

    return build


def header_bytes(change: Bytes) -> Builder:
    """A header whose bytes are changed."""

    def build(folder: Path, name: str) -> Path:
        path = write_mhd(folder, name)
        path.write_bytes(change(path.read_bytes()))
        return path

    return build


def pixels(change: Bytes, *, compress: bool = True) -> Builder:
    """A pixel file whose bytes are changed."""

    def build(folder: Path, name: str) -> Path:
        # Voxels that no other case has: what a reader leaves open must not be filled by old
        # memory that happens to be right.
        volume = chest()[0].copy()
        volume[0, 0] = -1000 - zlib.crc32(name.encode()) % 100
        path = write_mhd(folder, name, volume, compress=compress)
        data = path.with_suffix(".zraw" if compress else ".raw")
        data.write_bytes(change(data.read_bytes()))
        return path

    return build


def recompressed(change: Bytes, **fields: str) -> Builder:
    """Pixels changed before they are compressed, so that the stream itself is whole."""

    def build(folder: Path, name: str) -> Path:
        path = write_mhd(folder, name)
        stream = zlib.compress(change(chest()[0].tobytes()), 1)
        path.with_suffix(".zraw").write_bytes(stream)
        changed = {"CompressedDataSize": str(len(stream)), **fields}
        path.write_text(_edited(path.read_text(), changed, ""))
        return path

    return build


def data_file(make: Callable[[Path], object], name_in_header: str = "other.bin") -> Builder:
    """A header that names as its pixels what ``make`` puts beside it."""

    def build(folder: Path, name: str) -> Path:
        own = name_in_header.replace("other", f"{name}-other")
        path = header(ElementDataFile=own, compress=False)(folder, name)
        make(folder / own)
        return path

    return build


def scan_path(make: Callable[[Path], object]) -> Builder:
    """Something else than a file where the header should be."""

    def build(folder: Path, name: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        make(folder / f"{name}.mhd")
        return folder / f"{name}.mhd"

    return build


def volume(make: Callable[[np.ndarray], np.ndarray]) -> Builder:
    """A sound file with other voxels, made from the chest's."""
    return lambda folder, name: write_mhd(folder, name, make(chest()[0]))


def below_the_lungs(folder: Path, name: str) -> Path:
    """An abdomen."""
    values, geometry = abdomen()
    return write_mhd(folder, name, values, geometry=geometry)


def scan_of(image: sitk.Image) -> Builder:
    """Any image of SimpleITK."""

    def build(folder: Path, name: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(folder / f"{name}.mhd"))
        return folder / f"{name}.mhd"

    return build


def secret_beside(path: Path) -> None:
    """A link to a file of the right size outside the folder."""
    secret = path.parent.parent / "outside.raw"
    secret.write_bytes(bytes(chest()[0].nbytes))
    path.symlink_to(secret)


def flipped(byte: int) -> Bytes:
    """Flip one bit of the byte at a position."""

    def change(content: bytes) -> bytes:
        damaged = bytearray(content)
        damaged[byte] ^= 4
        return bytes(damaged)

    return change


def swapped(content: bytes) -> bytes:
    """Return 16-bit values in the other byte order."""
    return np.frombuffer(content, "<i2").astype(">i2").tobytes()


def named(stem: str) -> Builder:
    """A sound scan whose file name begins in another way."""

    def build(folder: Path, name: str) -> Path:
        path = write_mhd(folder, name)
        # SimpleITK itself cannot write such names.
        return path.rename(folder / f"{stem}-{name}.mhd")

    return build


def two_phases() -> sitk.Image:
    """Return the chest twice, as a 4-D image."""
    return sitk.JoinSeries([image_of(chest()[0])] * 2)


def with_value(value: float, share: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    """Return a float copy in which the first voxels have that value."""

    def make(values: np.ndarray) -> np.ndarray:
        out = values.astype(np.float32)
        out.reshape(-1)[: int(np.ceil(share * out.size))] = value
        return out

    return make


def spaced(spacing_zyx_mm: tuple[float, float, float]) -> Builder:
    """The chest with another spacing in its header."""
    geometry = ScanGeometry(chest()[0].shape, spacing_zyx_mm, (0.0, 0.0, 0.0))
    return lambda folder, name: write_mhd(folder, name, geometry=geometry)
