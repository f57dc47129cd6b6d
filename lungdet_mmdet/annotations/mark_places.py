# SPDX-License-Identifier: Apache-2.0
"""Marks of any source brought to scans at hand and to LPS millimetres."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lungdet_mmdet.annotations.nodule_sources import Mark, Marks
from lungdet_mmdet.annotations.tables import UNKNOWN_DIAMETER, Finding, Nodule, check_sphere
from lungdet_mmdet.ct.geometry import FileGrid
from lungdet_mmdet.ct.reading import scan_suffix
from lungdet_mmdet.errors import LungDetError

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])

# Aerated lung; what is less dense than this holds no nodule, ground glass included.
NOTHING_BELOW_HU = -750.0
_QUESTION = (
    "are the coordinates LPS millimetres? --coords ras and --coords voxel read others, "
    "--columns names the columns"
)


def question_of_scans(scans: Iterable[tuple[Sequence[Nodule], FileGrid]]) -> str | None:
    """Return what to ask where most nodules lie outside their scans, else None."""
    count, inside = 0, Counter[str]()
    for nodules, grid in scans:
        size_xyz = np.array(grid.size_zyx[::-1])
        for nodule in nodules:
            point = np.array(nodule.centre_xyz_mm)
            guesses = (point, point * RAS_TO_LPS, grid.voxel_to_world(point))
            count += 1
            for name, guess in zip(("lps", "turned", "voxel"), guesses, strict=True):
                voxel = grid.world_to_voxel(guess)
                inside[name] += bool(np.all(voxel > -0.5) and np.all(voxel < size_xyz - 0.5))
    if count == 0 or 2 * inside["lps"] >= count:
        return None
    return (
        f"{count - inside['lps']} of {count} nodules lie outside their scans: {_QUESTION} (with x "
        f"and y turned round {inside['turned']} lie inside, read as voxels {inside['voxel']})"
    )


def question_of_lungs(nodules: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what to ask where most nodules lie outside the lungs or in nothing but air.

    Parameters
    ----------
    nodules : with ``coverage``, and with ``hu`` and ``hu_turned`` where they are known: mean HU of
        the core, and of the place with x and y turned round.
    """

    def is_solid(value: float | None) -> bool:
        return value is not None and value >= NOTHING_BELOW_HU

    wrong = [
        n for n in nodules if n["coverage"] == 0 or not is_solid(n.get("hu", NOTHING_BELOW_HU))
    ]
    if 2 * len(wrong) <= len(nodules):
        return None
    turned = sum(is_solid(n.get("hu_turned")) for n in nodules)
    return (
        f"{len(wrong)} of {len(nodules)} nodules lie outside the lungs, or where there is nothing "
        f"but air: {_QUESTION} (with x and y turned round {turned} lie on tissue)"
    )


@dataclass(frozen=True)
class PlacedMarks:
    """Nodules and findings in LPS millimetres, by series; names of scans that are not at hand.

    ``unknown`` are the scans whose nodules cannot be placed, each with the reason: without them
    they would pass for healthy.
    """

    nodules: tuple[Nodule, ...]
    findings: tuple[Finding, ...]
    listed: frozenset[str]
    missing: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


class ScanNames:
    """Finds the scan that a source of annotations means: by series UID, file, path or folder.

    Parameters
    ----------
    names : the names that each series goes by, its own first.
    """

    def __init__(self, names: Mapping[str, Iterable[str]]) -> None:
        self._owners: dict[str, set[str]] = {}
        for uid, others in names.items():
            for name in (uid, *others):
                self._owners.setdefault(_plain(name), set()).add(uid)

    def find(self, texts: Sequence[str], *, place: str) -> str | None:
        """Return the series UID of the first name that is known; None where none is.

        Raises LungDetError if a name is of several scans.
        """
        for text in texts:
            owners: set[str] = set()
            for name in _spellings(text):
                owners = self._owners.get(name, set())
                if owners:
                    break
            if len(owners) > 1:
                raise LungDetError(
                    f"{place}: {text!r} can be {len(owners)} scans ({', '.join(sorted(owners)[:3])}"
                    "); name the scan by its path below the folder"
                )
            if owners:
                return next(iter(owners))
        return None


def _plain(name: str) -> str:
    name = name.replace("\\", "/").strip("/ ")
    return name[: len(name) - len(scan_suffix(Path(name)))].lower()


def _spellings(text: str) -> list[str]:
    """Return a name as it stands, without its folders, and as LNDb numbers its files."""
    plain = _plain(text)
    spellings = [plain, PurePosixPath(plain).name]
    if re.fullmatch(r"\d{1,4}(\.0)?", plain):
        spellings.append(f"lndb-{int(float(plain)):04d}")
    return spellings


def place_marks(
    marks: Marks, names: ScanNames, grid_of: Callable[[str], FileGrid], *, source: str
) -> PlacedMarks:
    """Bring marks to LPS millimetres of the scans at hand.

    Parameters
    ----------
    marks : see `read_marks`.
    names : of the scans.
    grid_of : gives a scan's grid, for marks in voxels; called once per such scan. Where it raises
        LungDetError, the nodules of the scan are not known.
    source : of the marks, for messages.

    Raises
    ------
    LungDetError
        If a mark has no sound place or size, or none is of a scan at hand.
    """
    nodules: dict[tuple[str, tuple[float, ...]], Nodule] = {}
    findings: dict[Finding, None] = {}
    grids: dict[str, FileGrid] = {}
    unknown: dict[str, str] = {}
    repairs: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    missing: dict[str, None] = {}
    listed = set()
    for mark in marks.rows:
        uid = names.find(mark.scans, place=mark.place)
        if uid is None:
            missing[mark.scans[0]] = None
            continue
        listed.add(uid)
        if mark.point is None or uid in unknown:
            continue
        if mark.coords == "voxel" and uid not in grids:
            try:
                grids[uid] = grid_of(uid)
            except LungDetError as error:
                unknown[uid] = f"its nodules cannot be placed: {error}"
                continue
        centre, diameter = _in_mm(mark, grids.get(uid))
        if not mark.is_nodule:
            known = diameter if diameter > 0 else UNKNOWN_DIAMETER
            check_sphere(centre, known, place=mark.place, unknown_allowed=True)
            findings[Finding(uid, centre, known)] = None
            continue
        check_sphere(centre, diameter, place=mark.place)
        if (before := nodules.get((uid, centre))) is not None:
            if before.diameter_mm != diameter:
                raise LungDetError(
                    f"{mark.place}: series {uid} has two diameters for the nodule at {centre}; "
                    "remove the wrong line"
                )
            repairs["repeated marks left out"] += 1
            continue
        nodules[uid, centre] = Nodule(f"{uid}/{numbers[uid]}", uid, centre, diameter)
        numbers[uid] += 1
    if marks.rows and not listed:
        raise LungDetError(
            f"{source}: names {len(missing)} scans, e.g. {next(iter(missing))!r}, and none of them "
            "is here; name the column of the scans with --columns scan=NAME, or check that folder "
            "and annotations belong together"
        )
    notes = tuple(f"{what}: {count}" for what, count in sorted(repairs.items()))
    return PlacedMarks(
        tuple(nodules.values()),
        tuple(findings),
        frozenset(listed),
        tuple(sorted(missing)),
        (*marks.warnings, *notes),
        unknown,
    )


def _in_mm(mark: Mark, grid: FileGrid | None) -> tuple[tuple[float, float, float], float]:
    """Return centre (LPS) and diameter of a mark; extents count as those of an ellipsoid."""
    point = np.array(mark.point, dtype=float)
    size = None if mark.size is None else np.abs(np.array(mark.size, dtype=float))
    if grid is not None and mark.coords == "voxel":
        point = grid.voxel_to_world(point)
        size = None if size is None else size * grid.spacing_xyz_mm
    elif mark.coords == "ras":
        point = point * RAS_TO_LPS
    diameter = math.nan if mark.diameter_mm is None else mark.diameter_mm
    if size is not None:
        diameter = float(np.cbrt(np.prod(size)))
    x, y, z = point.tolist()
    return (x, y, z), 0.0 if math.isnan(diameter) else diameter
