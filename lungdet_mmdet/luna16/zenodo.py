# SPDX-License-Identifier: Apache-2.0
"""The public archive of LUNA16: its file list, and downloads that go on where they stopped."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import lungdet_mmdet
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import output_error
from lungdet_mmdet.runs.workplace import OFFLINE_VARIABLE, is_offline

ZENODO_API = "https://zenodo.org/api/records"
TIMEOUT_S = 60
# Zenodo refuses clients that do not say who they are.
USER_AGENT = f"lungdet_mmdet/{lungdet_mmdet.__version__} (+https://pypi.org/project/lungdet-mmdet)"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record.

    Parameters
    ----------
    name : e.g. ``subset0.zip``.
    url : where its bytes are.
    size_bytes : its length.
    checksum : as pooch takes it, e.g. ``md5:9c5f...``.
    """

    name: str
    url: str
    size_bytes: int
    checksum: str


def require_network() -> None:
    """Raise LungDetError where the environment forbids network access (LUNGDET_OFFLINE=1)."""
    if is_offline():
        raise LungDetError(
            f"{OFFLINE_VARIABLE}={os.environ[OFFLINE_VARIABLE]} forbids network access; unset it "
            "to download, or use --verify, which needs no network"
        )


def list_record(record: int, *, api: str = ZENODO_API) -> tuple[dict[str, RemoteFile], str]:
    """Return the files of a record by name, and its licence ("" where it names none).

    Checksums come from the record itself, over HTTPS, at the time of the download.

    Raises
    ------
    LungDetError
        If the network is forbidden or fails, or the answer is not a record's.
    """
    require_network()
    import requests

    url = f"{api}/{record}"
    headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
    try:
        response = requests.get(url, timeout=TIMEOUT_S, headers=headers)
        response.raise_for_status()
        answer = response.json()
        files = {f.name: f for f in map(_remote_file, answer["files"])}
    except requests.exceptions.HTTPError as error:
        raise LungDetError(
            f"{url}: the server refuses ({error}); look at the record's page in a browser, or name "
            "a mirror with --api"
        ) from error
    except requests.exceptions.RequestException as error:
        raise LungDetError(
            f"{url}: the list of files cannot be read ({error}); check the network connection and "
            "try again later"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise LungDetError(
            f"{url}: not the answer of a Zenodo record ({error!r}); try again later, or name a "
            "mirror with --api"
        ) from error
    licence = answer.get("metadata", {}).get("license") or {}
    return files, str(licence.get("id", "")) if isinstance(licence, dict) else str(licence)


def _remote_file(entry: dict) -> RemoteFile:
    links = entry["links"]
    checksum = str(entry["checksum"])
    name = str(entry["key"])
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ValueError(f"file name {name!r}")
    return RemoteFile(
        name=name,
        url=links.get("content") or links["self"],
        size_bytes=int(entry["size"]),
        checksum=checksum if ":" in checksum else f"md5:{checksum}",
    )


CHUNK_BYTES = 1 << 20
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416
# Too many requests, and errors that pass: worth waiting for.
PASSING_ERRORS = (429, 500, 502, 503, 504)
LONGEST_WAIT_S = 120.0
LOG_EVERY_S = 30.0


class ResumingDownloader:
    """A downloader for pooch that goes on where an earlier attempt, or run, was cut off.

    Bytes gather in ``<name>.part`` beside the target, which outlives the process.

    Parameters
    ----------
    file : what to fetch.
    folder : where the target, and so its part, lie.
    attempts : tries in a row without one new byte before giving up.
    wait_s : pause before the second such try; doubled each time.
    """

    def __init__(
        self, file: RemoteFile, folder: Path, *, attempts: int = 6, wait_s: float = 2.0
    ) -> None:
        self.file = file
        self.part = folder / f"{file.name}.part"
        self.attempts = attempts
        self.wait_s = wait_s

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Fetch `url` and put it in place of `output_file`, as pooch asks.

        Raises
        ------
        LungDetError
            If the network is forbidden or stays away, the file is not there, or the disk is full.
            What was fetched is kept for the next run.
        """
        require_network()
        self._drop_overlong_part()
        with tqdm(
            total=self.file.size_bytes,
            initial=self._fetched(),
            desc=self.file.name,
            unit="B",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else LOG_EVERY_S,
        ) as bar:
            fruitless = 0
            # An empty file needs its request too: only the server's answer makes the part.
            while not self.part.exists() or self._fetched() < self.file.size_bytes:
                before = self._fetched()
                problem, wait_s = self._fetch_on(url, bar)
                if self._fetched() > before or not problem:
                    fruitless = 0
                    continue
                fruitless += 1
                if fruitless >= self.attempts:
                    raise LungDetError(
                        f"{url}: {problem}; {self._fetched()} of {self.file.size_bytes} bytes are "
                        f"kept in {self.part}: run the same command again to go on from there"
                    )
                time.sleep(max(wait_s, self.wait_s * 2 ** (fruitless - 1)))
        if self._fetched() != self.file.size_bytes:
            found = self._fetched()
            self.part.unlink()
            raise LungDetError(
                f"{url}: {found} bytes came, the record promises {self.file.size_bytes}; "
                "run the same command again"
            )
        os.replace(self.part, output_file)

    def _fetched(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _drop_overlong_part(self) -> None:
        if self._fetched() > self.file.size_bytes:
            self.part.unlink()

    def _fetch_on(self, url: str, bar: tqdm) -> tuple[str, float]:
        """Fetch from the part's end; return what went wrong ("" for nothing) and a wait asked."""
        import requests

        begin = self._fetched()
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        # The length on disk must be the one that was sent.
        headers["Accept-Encoding"] = "identity"
        headers["User-Agent"] = USER_AGENT
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT_S, headers=headers) as response:
                if response.status_code in PASSING_ERRORS:
                    return f"the server answers {response.status_code}", _asked_wait_s(response)
                if response.status_code == RANGE_NOT_SATISFIABLE:
                    self.part.unlink(missing_ok=True)
                    return "the server's file is shorter than what was fetched before", 0.0
                if not response.ok:
                    raise LungDetError(
                        f"{url}: the server answers {response.status_code} {response.reason}; "
                        "look at the record's page in a browser"
                    )
                resumed = response.status_code == PARTIAL_CONTENT
                self._append(response, begin if resumed else 0, bar)
        except requests.exceptions.RequestException as error:
            return f"the connection failed ({error})", 0.0
        if self._fetched() < self.file.size_bytes:
            return "the connection was closed too early", 0.0
        return "", 0.0

    def _append(self, response: Any, begin: int, bar: tqdm) -> None:
        # Else a cut line raises in the midst of a chunk, and what had come of it is lost.
        response.raw.enforce_content_length = False
        try:
            with self.part.open("ab") as part:
                # A server that ignores the range sends everything again.
                part.truncate(begin)
                bar.n = begin
                for chunk in response.iter_content(CHUNK_BYTES):
                    part.write(chunk)
                    bar.update(len(chunk))
                    if part.tell() > self.file.size_bytes:
                        return  # more than the record promises: no end is waited for
        except OSError as error:
            # requests' own errors are OSErrors too; only those of the file have a number.
            if error.errno is None:
                raise
            raise output_error(self.part, error) from error


def _asked_wait_s(response: Any) -> float:
    try:
        return min(float(response.headers.get("Retry-After", 0)), LONGEST_WAIT_S)
    except ValueError:
        return 0.0
