"""What is fed with hostile input; whatever comes in, only LungDetError may come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lungdet_mmdet.annotations.tables import (
    read_findings,
    read_nodules,
    read_patients,
    read_series,
    read_subsets,
)
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.run_files import read_submission
from tests.fuzz.cases import TRIED

TABLE_READERS: tuple[Callable, ...] = (
    read_nodules,
    read_findings,
    read_series,
    read_subsets,
    read_patients,
    lambda path: read_submission(path, series=["1.2.3"]),
)


def try_scan(path: Path, kind: str) -> bool:
    """Read a scan; True where it could be read, and is then a sound one."""
    TRIED[kind] += 1
    scan, reason = None, ""
    try:
        scan = read_scan(path)
    except LungDetError as error:
        reason = str(error)
    if scan is None:
        # Of two files that make up a scan, the guilty one is named.
        assert path.name.split(".")[0] in reason
        return False
    assert scan.volume_hu.dtype == np.int16
    assert scan.volume_hu.shape == scan.geometry.size_zyx
    assert np.isfinite([*scan.geometry.origin_xyz_mm, *scan.geometry.spacing_zyx_mm]).all()
    assert min(scan.geometry.spacing_zyx_mm) > 0
    return True


def try_tables(path: Path) -> int:
    """Read a table as each of LUNA16's; returns as how many it could be read."""
    TRIED["tables"] += 1
    accepted = 0
    for reader in TABLE_READERS:
        reason = ""
        try:
            reader(path)
            accepted += 1
        except LungDetError as error:
            reason = str(error)
        assert path.name in reason or not reason
    return accepted
