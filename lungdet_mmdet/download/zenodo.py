"""What a public Zenodo record holds: names, sizes, checksums and addresses of its files."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.offline import OFFLINE_VARIABLE, is_offline

ZENODO_API = "https://zenodo.org/api/records"
TIMEOUT_S = 60


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
    try:
        response = requests.get(url, timeout=TIMEOUT_S, headers={"Accept": "application/json"})
        response.raise_for_status()
        answer = response.json()
        files = {f.name: f for f in map(_remote_file, answer["files"])}
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
