"""What a scan looks like after each step of a prep pipeline, for the figure that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.phantom.identity import is_phantom_uid
from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline, run_steps
from lungdet_mmdet.reports.pipeline_figure import SlabStage, Stage, VolumeStage, pipeline_figure

# These only cut the scan down: what is left looks as before.
_CUTTING_STEPS = ("DropPeripheralSlices", "CropToLungs")


@dataclass(frozen=True)
class ScanStages:
    """The pictures of one scan, in the order of the steps; all volumes are kept in memory.

    ``results`` is what the whole pipeline gave.
    """

    stages: tuple[Stage, ...]
    results: dict[str, Any]

    def plane_height_mm(self, nodule: Nodule | None) -> float:
        """Return the plane to show: through a nodule, else through the largest lung area.

        A nodule beyond the slabs gives the nearest plane that they hold.
        """
        geometry = self.results["geometry"]
        slabs = self.results["slab_geometries"]
        if nodule is not None:
            height = float(np.asarray(nodule.centre_xyz_mm) @ geometry.normal_xyz)
        else:
            mask = self.results["lung_mask"]
            areas = np.count_nonzero(mask.reshape(mask.shape[0], -1), axis=1)
            middle = geometry.voxel_to_world(np.array([float(areas.argmax()), 0.0, 0.0]))
            height = float(middle @ geometry.normal_xyz)
        # Half a slice off the outer faces, so that a slice lies there as well.
        rim = 0.5 * geometry.spacing_zyx_mm[0]
        lowest = min(slab.z_range_mm[0] for slab in slabs) + rim
        highest = max(slab.z_range_mm[1] for slab in slabs) - rim
        return min(max(height, lowest), highest)


def record_stages(scan_path: Path, steps: list[dict], *, imports: Sequence[str] = ()) -> ScanStages:
    """Run a prep pipeline on a scan and keep what it looks like after each step.

    Parameters
    ----------
    scan_path : file of the scan.
    steps, imports : see :func:`build_prep_pipeline`.

    Raises
    ------
    LungDetError
        If the scan cannot be prepared.
    """
    pipeline = build_prep_pipeline(steps, imports=imports)
    waiting = iter(pipeline.transforms)
    stages: list[Stage] = []

    def keep(name: str, results: dict) -> None:
        step = next(waiting)
        if name not in _CUTTING_STEPS:
            stages.append(_stage(name, vars(step), results))

    results, _ = run_steps(pipeline, {"scan_path": str(scan_path)}, after_step=keep)
    return ScanStages(tuple(stages), results)


def draw_pipeline(
    recorded: ScanStages, nodules: Sequence[Nodule], *, number: int | None = None
) -> bytes:
    """Draw Figure 1 of a scan as PNG.

    Parameters
    ----------
    recorded : of :func:`record_stages`.
    nodules : annotated in this scan; may be empty.
    number : which of them to show, from 1 by falling diameter; None takes the largest.
    """
    ordered = sorted(nodules, key=lambda nodule: -nodule.diameter_mm)
    shown = ordered.pop((number or 1) - 1) if ordered else None
    height = recorded.plane_height_mm(shown)
    uid = str(recorded.results["seriesuid"])
    kind = "phantom" if is_phantom_uid(uid) else "scan"
    note = f"{kind} {_short(uid)} at z = {height:.1f} mm"
    if shown is not None:
        note += f"; in green the annotated nodule of {shown.diameter_mm:.1f} mm"
        ordered.insert(0, shown)
    return pipeline_figure(recorded.stages, height_mm=height, nodules=ordered, notes=[note])


def _short(uid: str) -> str:
    return uid if len(uid) <= 16 else f"...{uid[-12:].lstrip('.')}"


def _stage(name: str, options: dict[str, Any], results: dict) -> Stage:
    title, detail = _words(name, options, results)
    if "slabs" in results:
        return SlabStage(title, detail, results["slabs"], tuple(results["slab_geometries"]))
    stage = VolumeStage(title, detail, results["volume"], results["geometry"])
    return replace(stage, tint=results["lung_mask"]) if name == "OtsuLungMask" else stage


def _words(name: str, options: dict[str, Any], results: dict) -> tuple[str, str]:
    """Return title and detail of a step; one that is not known is called by its name."""
    dz, dy, dx = results["geometry"].spacing_zyx_mm
    spacing = f"{dx:.3g} × {dy:.3g} × {dz:.3g} mm"
    if name == "LoadCTScan":
        return "Original slice", spacing
    if name == "ResampleScan":
        return "Resampled", spacing
    if name == "OtsuLungMask":
        return "Lung mask", f"{options['method']}, {results['lung_summary']['volume_l']:.1f} litres"
    if name == "WindowHU":
        low = options["level_hu"] - options["width_hu"] / 2
        window = f"{low:g} to {low + options['width_hu']:g} HU"
        return ("Masked" if results["masked"] else "Windowed"), window
    if name == "CLAHE":
        rows, columns = options["tiles_yx"]
        return "CLAHE", f"clip {options['clip_limit']:g}, {columns} × {rows} tiles"
    if name == "MIPSlabs":
        thickness = results["slab_geometries"][0].as_record()["spacing"][2]
        return "MIP slab", f"{thickness:.3g} mm, {round(thickness / dz)} slices"
    return name, ""
