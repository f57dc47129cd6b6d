"""Prepared scans made by hand: axial, 10 mm of margin, 7.5 mm slabs from z = 0 upward."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lungdet_mmdet.annotations.tables import Finding, Nodule
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.splits.prepared import PreparedScan, PreparedSlab

# (x, y, z, diameter) in mm; a slab image spans x, y from -0.25 to 49.75 mm.
Sphere = tuple[float, float, float, float]


def slab_record(uid: str, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "file_name": f"{uid}/{index:03d}.png",
        "width": 100,
        "height": 100,
        "z_range_mm": [7.5 * index, 7.5 * index + 7.5],
        "spacing": [0.5, 0.5, 7.5],
        "origin": [0.0, 0.0, 7.5 * index + 3.75],
        "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
    }


@pytest.fixture(scope="session")
def make_scan() -> Callable[..., PreparedScan]:
    """Build one scan: ``make_scan(uid, n_slabs=, nodules=, excluded=, subset=)``."""

    def make(
        uid: str,
        *,
        n_slabs: int = 10,
        nodules: Sequence[Sphere] = (),
        excluded: Sequence[Sphere] = (),
        subset: int | None = None,
    ) -> PreparedScan:
        slabs = []
        for index in range(n_slabs):
            fields = slab_record(uid, index)
            geometry = SlabGeometry(
                index=index,
                width=100,
                height=100,
                z_range_mm=tuple(fields["z_range_mm"]),
                spacing_xy_mm=(0.5, 0.5),
                origin_xyz_mm=tuple(fields["origin"]),
            )
            slabs.append(PreparedSlab(geometry, fields))
        return PreparedScan(
            seriesuid=uid,
            subset=subset,
            slabs=tuple(slabs),
            nodules=tuple(
                Nodule(f"{uid}/{number}", uid, (x, y, z), d)
                for number, (x, y, z, d) in enumerate(nodules)
            ),
            excluded=tuple(Finding(uid, (x, y, z), d) for x, y, z, d in excluded),
            coverage={},
        )

    return make


@pytest.fixture
def write_prepared(tmp_path) -> Callable[[Sequence[PreparedScan]], Path]:
    """Write scans as a prepared folder; the images are empty files."""

    def write(scans: Sequence[PreparedScan]) -> Path:
        for scan in scans:
            folder = tmp_path / "prepared" / "slabs" / scan.seriesuid
            folder.mkdir(parents=True)
            for slab in scan.slabs:
                (folder / f"{slab.geometry.index:03d}.png").touch()
            record = {
                "seriesuid": scan.seriesuid,
                "subset": scan.subset,
                "status": "ok",
                "slabs": [slab.fields for slab in scan.slabs],
                "nodules": [
                    {
                        "nodule_id": nodule.nodule_id,
                        "centre_xyz_mm": nodule.centre_xyz_mm,
                        "diameter_mm": nodule.diameter_mm,
                        "coverage": 0.95,
                    }
                    for nodule in scan.nodules
                ],
                "excluded": [
                    {"centre_xyz_mm": finding.centre_xyz_mm, "diameter_mm": finding.diameter_mm}
                    for finding in scan.excluded
                ],
            }
            (folder / "scan.json").write_text(json.dumps(record))
        return tmp_path / "prepared"

    return write


@pytest.fixture(scope="session")
def small_cohort(make_scan) -> list[PreparedScan]:
    """Twelve scans of ten slabs, eight with one 5 mm nodule in the middle of slab 4."""
    return [
        make_scan(
            f"2.999.{number:02d}",
            nodules=[(20.0, 20.0, 33.75, 5.0)] if number < 8 else [],
            subset=number % 10,
        )
        for number in range(12)
    ]
