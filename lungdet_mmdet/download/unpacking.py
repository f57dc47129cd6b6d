"""Unpacking a zip into one flat folder, each file whole or not there."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import FILE_SUFFIX, output_error, write_json

CHUNK_BYTES = 1 << 20
# Files in use and file system tables want some room of their own.
RESERVE_BYTES = 1 << 28


@dataclass(frozen=True)
class UnpackedFile:
    """A file from an archive: name without folders, length, CRC-32 of its content."""

    name: str
    size_bytes: int
    crc32: int


@dataclass(frozen=True)
class UnpackRecord:
    """What an archive gave, as remembered beside the data.

    Parameters
    ----------
    archive : name of the zip file.
    checksum : of the zip file, e.g. ``md5:9c5f...``.
    folder : name of the folder that the files went to.
    files : what was unpacked.
    """

    archive: str
    checksum: str
    folder: str
    files: tuple[UnpackedFile, ...]

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        write_json(path, asdict(self))

    def whole_on_disk(self, root: Path) -> bool:
        """Whether every file is there with the right length (the content is not read)."""
        folder = root / self.folder
        return all(
            (folder / f.name).is_file() and (folder / f.name).stat().st_size == f.size_bytes
            for f in self.files
        )


def read_record(path: Path) -> UnpackRecord | None:
    """Return a record, or None where there is no readable one."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(UnpackedFile(**f) for f in fields.pop("files"))
        return UnpackRecord(**fields, files=files)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def crc32_of(path: Path) -> int:
    """Return the CRC-32 of a file's content."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def check_free_space(folder: Path, needed_bytes: int, free_bytes: int, *, what: str) -> None:
    """Raise LungDetError where `folder` has no room for what is to come."""
    if free_bytes < needed_bytes + RESERVE_BYTES:
        raise LungDetError(
            f"{folder}: {what} needs about {(needed_bytes + RESERVE_BYTES) / 1e9:.1f} GB, "
            f"{free_bytes / 1e9:.1f} GB are free; free some space, choose another folder, or fewer "
            "--subsets"
        )


def unpack(
    archive: Path,
    folder: Path,
    *,
    free_bytes: Callable[[Path], int],
    wanted: Callable[[str], bool] = lambda name: True,
) -> tuple[UnpackedFile, ...]:
    """Unpack the files of a zip straight into `folder`, without the archive's own folders.

    Files that are already there with the right content are left alone, so an interrupted call
    goes on where it was.

    Parameters
    ----------
    archive : the zip file.
    folder : is made where it is not there.
    free_bytes : free space below a folder.
    wanted : which files to unpack, by name without folders.

    Raises
    ------
    LungDetError
        If the archive is damaged, of a kind that Python cannot unpack, or there is no room.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            members = _members(source, wanted, archive)
            to_do = {n: m for n, m in members.items() if not _is_there(folder / n, m)}
            needed = sum(m.file_size for m in to_do.values())
            folder.mkdir(parents=True, exist_ok=True)
            check_free_space(folder, needed, free_bytes(folder), what=f"unpacking {archive.name}")
            with tqdm(
                total=needed, desc=f"unpack {archive.name}", unit="B", unit_scale=True
            ) as bar:
                for name, member in to_do.items():
                    _extract(source, member, folder / name, bar)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise LungDetError(
            f"{archive}: damaged archive ({error}); delete it and download it again"
        ) from error
    except NotImplementedError as error:
        raise LungDetError(
            f"{archive}: Python cannot unpack this archive ({error}); unpack it yourself with "
            f"`7z e {archive} -o{folder}` and run the same command again"
        ) from error
    except OSError as error:
        raise output_error(folder, error) from error
    return tuple(UnpackedFile(n, m.file_size, m.CRC) for n, m in sorted(members.items()))


def _members(
    source: zipfile.ZipFile, wanted: Callable[[str], bool], archive: Path
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in source.infolist():
        # Only the last part of the name counts: nothing can be written outside the folder.
        name = PurePosixPath(member.filename.replace("\\", "/")).name
        if member.is_dir() or name in ("", "..") or not wanted(name):
            continue
        first = members.setdefault(name, member)
        if (first.CRC, first.file_size) != (member.CRC, member.file_size):
            raise LungDetError(
                f"{archive}: holds two different files {name}, as {first.filename} and "
                f"{member.filename}; unpack it by hand"
            )
    return members


def _is_there(path: Path, member: zipfile.ZipInfo) -> bool:
    return (
        path.is_file() and path.stat().st_size == member.file_size and crc32_of(path) == member.CRC
    )


def _extract(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, bar: tqdm) -> None:
    temporary = target.with_name(f".{target.name}{FILE_SUFFIX}")
    try:
        # zipfile compares the CRC at the end of the member.
        with source.open(member) as packed, temporary.open("wb") as file:
            while chunk := packed.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
