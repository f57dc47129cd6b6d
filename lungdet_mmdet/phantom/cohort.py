# SPDX-License-Identifier: Apache-2.0
"""Write a cohort of phantoms to disk, in the shape in which LUNA16 is published."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.scan import write_metaimage, write_mha
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.findings import PhantomNodule
from lungdet_mmdet.phantom.scan import DEFAULT_MEAN_NODULES, Recipe, build_scan
from lungdet_mmdet.runs.atomic_files import sweep_leftovers, write_bytes, write_csv
from lungdet_mmdet.runs.files import (
    ANNOTATION_TABLE,
    EXCLUDED_TABLE,
    LUNG_MASK_FOLDER,
    NODULE_MASK_FOLDER,
    SERIES_TABLE,
    SIZE_CODES,
    is_ghost,
    phantom_uid,
)

N_SUBSETS = 10
_HEADER = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
_HEALTHY_EVERY = 3
"""One scan of every so many has no nodule: 287 of LUNA16's 888 have none."""


@dataclass(frozen=True)
class PlannedScan:
    """One scan of a cohort before it is built.

    Parameters
    ----------
    seriesuid : its series UID.
    subset : the folder it goes to, 0 to 9.
    seed : the seeds of all its random draws.
    size : "small", "fine" or "full".
    healthy : whether it has no nodule.
    mean_nodules : how many nodules a scan that is not healthy has on average.
    """

    seriesuid: str
    subset: int
    seed: tuple[int, ...]
    size: str
    healthy: bool
    mean_nodules: float = DEFAULT_MEAN_NODULES


@dataclass(frozen=True)
class WrittenScan:
    """The rows that a finished scan adds to the tables, and how many findings found no room.

    ``was_there`` says that all its files were there already, and equal; they were left alone.
    """

    seriesuid: str
    nodules: tuple[PhantomNodule, ...]
    excluded: tuple[PhantomNodule, ...]
    n_unplaced: int
    was_there: bool = False


def plan_cohort(
    *, n_scans: int, seed: int, size: str, mean_nodules: float = DEFAULT_MEAN_NODULES
) -> list[PlannedScan]:
    """Plan a cohort; the first scans of a larger cohort of the same seed are the same.

    Parameters
    ----------
    n_scans, seed : how many scans, and the seed of all their random draws.
    size : "small", "fine" or "full".
    mean_nodules : nodules per scan that has any, on average; at least 1.

    Raises
    ------
    LungDetError
        If the number of scans, the seed, the size or the mean makes no sense.
    """
    if not mean_nodules >= 1:
        raise LungDetError(f"mean number of nodules is {mean_nodules}: it must be at least 1")
    if n_scans < 1:
        raise LungDetError(f"number of phantom scans is {n_scans}: ask for at least 1")
    if size not in SIZE_CODES:
        raise LungDetError(f"phantom size is {size!r}: use one of {sorted(SIZE_CODES)}")
    uids = [phantom_uid(size=size, seed=seed, index=i) for i in range(n_scans)]
    plan = []
    for index, uid in enumerate(uids):
        block, place = divmod(index, _HEALTHY_EVERY)
        healthy_place = np.random.default_rng([seed, block]).integers(_HEALTHY_EVERY)
        plan.append(
            PlannedScan(
                uid,
                index % N_SUBSETS,
                (seed, index),
                size,
                bool(place == healthy_place),
                mean_nodules,
            )
        )
    return plan


def write_scan(out_dir: Path, planned: PlannedScan) -> WrittenScan:
    """Build one planned scan and write its image, its lung mask and the mask of its nodules.

    Each file appears under its name only when it is complete; one that is there already, and equal,
    is left alone, so that nobody prepares it again.
    """
    recipe = Recipe(nodules=() if planned.healthy else None, mean_nodules=planned.mean_nodules)
    scan = build_scan(planned.seed, size=planned.size, recipe=recipe)
    subset = out_dir / f"subset{planned.subset}"
    masks, nodule_masks = out_dir / LUNG_MASK_FOLDER, out_dir / NODULE_MASK_FOLDER
    uid, geometry = planned.seriesuid, scan.geometry
    headers = [subset / f"{uid}.mhd", masks / f"{uid}.mhd", nodule_masks / f"{uid}.mha"]
    before = [header.stat().st_mtime_ns for header in headers if header.is_file()]
    write_metaimage(subset, uid, scan.volume_hu, geometry, compress=True)
    write_metaimage(masks, uid, scan.lung_labels, geometry, compress=True)
    if scan.nodules:
        write_mha(nodule_masks, uid, scan.nodule_labels, geometry)
    else:
        headers[2].unlink(missing_ok=True)
    after = [header.stat().st_mtime_ns for header in headers if header.is_file()]
    return WrittenScan(uid, scan.nodules, scan.excluded, scan.n_unplaced, before == after)


def write_cohort(
    out_dir: Path,
    plan: list[PlannedScan],
    *,
    executor: Executor | None = None,
    on_scan: Callable[[WrittenScan], None] | None = None,
) -> list[WrittenScan]:
    """Write all scans of a plan, then the tables.

    Parameters
    ----------
    out_dir : folder of the cohort; of scans of the same plan that it holds already, only files that
        differ are written anew.
    executor : where the scans are built; None builds them here, one after the other.
    on_scan : called after each scan, in the order in which they finish.

    Raises
    ------
    LungDetError
        If the folder holds scans that do not belong to the plan: the tables would not fit them.
    """
    out_dir = Path(out_dir)
    refuse_foreign_scans(out_dir, {(f"subset{p.subset}", p.seriesuid) for p in plan})
    for name in [f"subset{i}" for i in range(N_SUBSETS)] + [LUNG_MASK_FOLDER]:
        (out_dir / name).mkdir(parents=True, exist_ok=True)
        sweep_leftovers(out_dir / name)
    sweep_leftovers(out_dir / NODULE_MASK_FOLDER)
    written: dict[str, WrittenScan] = {}
    for scan in _results(out_dir, plan, executor):
        written[scan.seriesuid] = scan
        if on_scan is not None:
            on_scan(scan)
    ordered = [written[p.seriesuid] for p in plan]
    _write_table(out_dir / ANNOTATION_TABLE, ((s.seriesuid, s.nodules) for s in ordered))
    _write_table(out_dir / EXCLUDED_TABLE, ((s.seriesuid, s.excluded) for s in ordered))
    series = "".join(f"{s.seriesuid}\n" for s in ordered)
    write_bytes(out_dir / SERIES_TABLE, series.encode("utf-8"))
    return ordered


def _results(
    out_dir: Path, plan: list[PlannedScan], executor: Executor | None
) -> Iterator[WrittenScan]:
    """Yield the scans as they finish; the first failure ends the run."""
    if executor is None:
        for planned in plan:
            yield write_scan(out_dir, planned)
        return
    pending = [executor.submit(write_scan, out_dir, planned) for planned in plan]
    try:
        for future in as_completed(pending):
            yield future.result()
    finally:
        for future in pending:
            future.cancel()


def refuse_foreign_scans(out_dir: Path, own: Collection[tuple[str, str]]) -> None:
    """Raise if a cohort's folder holds a scan that is not written: ``own`` names subset and series.

    Raises LungDetError naming the file.
    """
    for path in sorted(out_dir.glob("subset*/*.mhd")):
        if not is_ghost(path.name) and (path.parent.name, path.stem) not in own:
            raise LungDetError(
                f"{path} does not belong to the cohort that is to be written (other options, "
                "nodules or scans): choose an empty folder, or delete this one first"
            )


def _write_table(path: Path, rows: Iterable[tuple[str, tuple[PhantomNodule, ...]]]) -> None:
    """Write findings as LUNA16 does: one row each, world coordinates and diameter in mm."""
    lines = [
        [seriesuid, *(f"{v:.6f}" for v in finding.centre_xyz_mm), f"{finding.diameter_mm:g}"]
        for seriesuid, findings in rows
        for finding in findings
    ]
    write_csv(path, _HEADER, lines)
