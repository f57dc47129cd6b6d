"""Downloading LUNA16: its two public records, checked, unpacked, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.download.resuming import ResumingDownloader
from lungdet_mmdet.download.unpacking import (
    UnpackRecord,
    check_free_space,
    read_record,
    unpack,
)
from lungdet_mmdet.download.zenodo import ZENODO_API, RemoteFile, list_record, require_network
from lungdet_mmdet.errors import LungDetError

# https://zenodo.org/records/3723295 (subsets 0-6, tables) and .../4121926 (subsets 7-9).
RECORDS = (3723295, 4121926)
ALL_SUBSETS = tuple(range(10))
ANNOTATIONS = "annotations.csv"
EVALUATION = "evaluationScript.zip"
LUNG_MASKS = "seg-lungs-LUNA16.zip"
# Tables that the evaluation script brings along and the preparation reads.
EVALUATION_TABLES = ("annotations_excluded.csv", "seriesuids.csv")
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
    attempts, wait_s : see :class:`~lungdet_mmdet.download.resuming.ResumingDownloader`.
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
