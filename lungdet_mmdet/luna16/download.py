# SPDX-License-Identifier: Apache-2.0
"""LUNA16 fetched and unpacked: subsets and tables, resumable, checked."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.zenodo import (
    ZENODO_API,
    RemoteFile,
    ResumingDownloader,
    list_record,
    require_network,
)
from lungdet_mmdet.runs.atomic_files import FILE_SUFFIX, output_error, write_json
from lungdet_mmdet.runs.files import (
    ANNOTATION_TABLE,
    EXCLUDED_TABLE,
    LUNG_MASK_FOLDER,
    SERIES_TABLE,
)

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


# https://zenodo.org/records/3723295 (subsets 0-6, tables) and .../4121926 (subsets 7-9).
RECORDS = (3723295, 4121926)
ALL_SUBSETS = tuple(range(10))
ANNOTATIONS = ANNOTATION_TABLE
EVALUATION = "evaluationScript.zip"
LUNG_MASKS = f"{LUNG_MASK_FOLDER}.zip"
# Tables that the evaluation script brings along and the preparation reads.
EVALUATION_TABLES = (EXCLUDED_TABLE, SERIES_TABLE)
RECORD_FOLDER = ".luna16"
# A CT of 16-bit values takes up to twice the room of its zip (LUNA16: 120 GB from 66 GB).
UNPACKED_PER_ZIPPED = 2.0
LICENCE_NOTICE = """\
LUNA16 is published under the Creative Commons Attribution 4.0 licence; its scans come from
LIDC-IDRI (Creative Commons Attribution 3.0). By downloading you accept both. Cite:
  Setio et al., Medical Image Analysis 42 (2017), doi:10.1016/j.media.2017.06.015
  Armato et al., Medical Physics 38 (2011), doi:10.1118/1.3528204
Records: https://zenodo.org/records/3723295 and https://zenodo.org/records/4121926"""


@dataclass(frozen=True)
class DownloadSettings:
    """How to download.

    Parameters
    ----------
    api : address that answers ``<api>/<record>`` as Zenodo does.
    keep_zips : keep each archive after it has been unpacked.
    lung_masks : fetch LUNA16's own lung masks too.
    attempts, wait_s : see :class:`~lungdet_mmdet.luna16.zenodo.ResumingDownloader`.
    free_bytes : free space below a folder.
    tell : takes a line for the user.
    """

    api: str = ZENODO_API
    keep_zips: bool = False
    lung_masks: bool = False
    attempts: int = 6
    wait_s: float = 2.0
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    tell: Callable[[str], None] = print


def record_path(out_dir: Path, archive: str) -> Path:
    """Return where it is remembered what an archive gave."""
    return out_dir / RECORD_FOLDER / f"{Path(archive).stem}.json"


def target_folder(archive: str) -> str:
    """Return the folder, below the output folder, that an archive is unpacked into."""
    return "" if archive == EVALUATION else Path(archive).stem


def download_luna16(
    out_dir: Path, subsets: Sequence[int] = ALL_SUBSETS, settings: DownloadSettings | None = None
) -> list[str]:
    """Bring tables and subsets of LUNA16 into a folder; what is there already is left alone.

    Parameters
    ----------
    out_dir : gets ``subset<n>/``, ``annotations.csv``, ``annotations_excluded.csv``,
        ``seriesuids.csv`` and, if asked for, ``seg-lungs-LUNA16/``.
    subsets : which of the ten.
    settings : how.

    Returns
    -------
    list of str
        Names of the files that were fetched now.

    Raises
    ------
    LungDetError
        If the network is forbidden or fails, a checksum is wrong twice, or there is no room.
    """
    settings = settings or DownloadSettings()
    out_dir = Path(out_dir)
    _pooch()
    require_network()
    settings.tell(LICENCE_NOTICE)
    files = _wanted_files(subsets, settings)
    to_do = [file for file in files if not _is_done(out_dir, file)]
    settings.tell(f"{len(files) - len(to_do)} of {len(files)} files are there already")
    out_dir.mkdir(parents=True, exist_ok=True)
    check_free_space(
        out_dir,
        needed_bytes(to_do, out_dir, keep_zips=settings.keep_zips),
        settings.free_bytes(out_dir),
        what=f"LUNA16 ({len(to_do)} files)",
    )
    for file in to_do:
        path = fetch(file, out_dir, settings)
        if path.suffix == ".zip":
            _unpack(file, path, out_dir, settings)
    return [file.name for file in to_do]


def _wanted_files(subsets: Iterable[int], settings: DownloadSettings) -> list[RemoteFile]:
    subsets = sorted(set(subsets))
    if unknown := [n for n in subsets if n not in ALL_SUBSETS]:
        raise LungDetError(f"subset {unknown[0]} does not exist; LUNA16 has subsets 0 to 9")
    listed: dict[str, RemoteFile] = {}
    for record in RECORDS:
        files, licence = list_record(record, api=settings.api)
        settings.tell(f"record {record}: {len(files)} files, licence {licence or 'not stated'}")
        listed |= {name: file for name, file in files.items() if name not in listed}
    names = [ANNOTATIONS, EVALUATION, *([LUNG_MASKS] if settings.lung_masks else [])]
    names += [f"subset{n}.zip" for n in subsets]
    if absent := [name for name in names if name not in listed]:
        raise LungDetError(
            f"{settings.api}: the records {RECORDS} do not list {', '.join(absent)}; "
            "look at their pages in a browser"
        )
    return [listed[name] for name in names]


def _is_done(out_dir: Path, file: RemoteFile) -> bool:
    if file.name.endswith(".zip"):
        record = read_record(record_path(out_dir, file.name))
        return (
            record is not None
            and record.checksum == file.checksum
            and record.whole_on_disk(out_dir)
        )
    path = out_dir / file.name
    return path.is_file() and _pooch().hashes.hash_matches(str(path), file.checksum)


def needed_bytes(files: Sequence[RemoteFile], out_dir: Path, *, keep_zips: bool) -> int:
    """Return about how much more room a download takes at its peak, unpacked files included."""
    peak = settled = 0
    for file in files:
        archive, part = out_dir / file.name, out_dir / f"{file.name}.part"
        there = next((p.stat().st_size for p in (archive, part) if p.is_file()), 0)
        to_fetch = max(file.size_bytes - there, 0)
        unpacked = int(file.size_bytes * UNPACKED_PER_ZIPPED) if archive.suffix == ".zip" else 0
        # Zip and content lie side by side for a while.
        peak = max(peak, settled + to_fetch + unpacked)
        kept = to_fetch if keep_zips or not unpacked else -there
        settled += kept + unpacked
    return max(peak, settled)


def fetch(file: RemoteFile, folder: Path, settings: DownloadSettings) -> Path:
    """Fetch one file into `folder` and check its checksum; a wrong one is fetched once more.

    Raises
    ------
    LungDetError
        If it cannot be fetched, or its checksum is wrong again.
    """
    registry = _pooch().create(
        path=folder,
        base_url="",
        registry={file.name: file.checksum},
        urls={file.name: file.url},
    )
    downloader = ResumingDownloader(
        file, folder, attempts=settings.attempts, wait_s=settings.wait_s
    )
    for _ in range(2):
        try:
            return Path(registry.fetch(file.name, downloader=downloader))
        except ValueError as error:
            settings.tell(f"{file.name}: wrong checksum, fetched again")
            wrong = error
    raise LungDetError(
        f"{file.url}: the checksum is wrong after two downloads ({wrong}); a proxy may be "
        "changing the file: try another network"
    )


def _unpack(file: RemoteFile, path: Path, out_dir: Path, settings: DownloadSettings) -> None:
    folder = target_folder(file.name)
    only_tables = file.name == EVALUATION
    files = unpack(
        path,
        out_dir / folder,
        free_bytes=settings.free_bytes,
        wanted=lambda name: not only_tables or name in EVALUATION_TABLES,
    )
    UnpackRecord(file.name, file.checksum, folder, files).write(record_path(out_dir, file.name))
    if not settings.keep_zips:
        path.unlink()


def _pooch():  # noqa: ANN202 - a module that may be absent
    try:
        import pooch
    except ImportError as error:
        raise LungDetError(
            "downloading needs pooch: pip install 'lungdet-mmdet[download]'"
        ) from error
    # Its messages about single files double the progress bars.
    pooch.get_logger().setLevel("WARNING")
    return pooch
