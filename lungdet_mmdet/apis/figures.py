# SPDX-License-Identifier: Apache-2.0
"""Pictures for a reader: the steps of preparation, slabs of a data set, what a detector found."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.config import Config

import lungdet_mmdet.plugin  # noqa: F401  (first: it keeps what mmdet prints on import away)
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.datasets.luna16_slabs import LUNA16SlabDataset, slab_kind
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.slab_test import (
    aim_test_at,
    annotation_file,
    run_network,
    slab_folder,
)
from lungdet_mmdet.evaluation.trained_checkpoint import applied_threshold, read_checkpoint
from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline, run_steps
from lungdet_mmdet.reports.method_figures import SlabStage, Stage, VolumeStage, pipeline_figure
from lungdet_mmdet.reports.prediction_figure import prediction_figure
from lungdet_mmdet.reports.slab_overlays import (
    IGNORED_COLOUR,
    TRUTH_COLOUR,
    OverlayBox,
    draw_slab,
    read_slab,
    truth_boxes,
)
from lungdet_mmdet.runs.files import is_phantom_uid
from lungdet_mmdet.scoring.run_files import read_predictions
from lungdet_mmdet.scoring.slab_matching import MatchedSlabs, match_slabs
from lungdet_mmdet.scoring.slab_outcomes import SlabOutcome, representative_slabs
from lungdet_mmdet.splits.coco_json import read_coco, read_slab_set

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


Kind = Literal["positive", "healthy", "ignored", "all"]
SHORT_SIDE_PX = 360


def choose_slabs(dataset: LUNA16SlabDataset, kind: Kind, *, count: int, seed: int) -> list[int]:
    """Draw slabs of one kind.

    Parameters
    ----------
    dataset : to draw from.
    kind : "positive" (with a nodule), "ignored" (with ignore regions only), "healthy" or "all".
    count : at most so many.
    seed : of the draw.

    Returns
    -------
    Sorted indices into the dataset.
    """
    indices = [
        i for i in range(len(dataset)) if kind in ("all", slab_kind(dataset.get_data_info(i)))
    ]
    drawn = np.random.default_rng(seed).permutation(np.array(indices, dtype=int))[:count]
    return sorted(drawn.tolist())


def slab_pictures(
    dataset: LUNA16SlabDataset, indices: Sequence[int], *, repeats: int = 1
) -> list[list[np.ndarray]]:
    """Draw each slab as stored, and beside it what the pipeline makes of it.

    Parameters
    ----------
    dataset : with its pipeline.
    indices : of the slabs.
    repeats : how often the pipeline is run on each slab; it draws new augmentations every time.

    Returns
    -------
    One row of uint8 pictures (y, x, 3) per slab. Where the pipeline carries no annotations, as in
    testing, its pictures have no boxes.
    """
    annotations = defaultdict(list)
    for annotation in read_coco(Path(dataset.ann_file))["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    rows = []
    for index in indices:
        info = dataset.get_data_info(index)
        low, high = info["z_range_mm"]
        where = f"slab {info['slab_index']} z {low:.1f} to {high:.1f}"
        here = annotations[info["img_id"]]
        stored = draw_slab(
            read_slab(info["img_path"]),
            truth_boxes(here),
            spacing_x_mm=info["spacing"][0],
            caption=f"..{info['seriesuid'][-8:]} {where}",
            min_short_side=SHORT_SIDE_PX,
        )
        shown = [_shown(dataset[index], info["spacing"][0]) for _ in range(repeats)]
        rows.append([stored, *shown])
    return rows


def _shown(packed: dict[str, Any], spacing_x_mm: float) -> np.ndarray:
    image, sample = packed["inputs"], packed["data_samples"]
    # (c, y, x); of slabs with three different channels, the middle one is the slab itself.
    grey = np.clip(np.rint(image[1].float().numpy()), 0, 255).astype(np.uint8)
    scale = sample.metainfo.get("scale_factor", (1.0, 1.0))[0]
    boxes = [
        *_boxes(sample.get("ignored_instances"), IGNORED_COLOUR),
        *_boxes(sample.get("gt_instances"), TRUTH_COLOUR),
    ]
    flipped = sample.metainfo.get("flip_direction")
    caption = "as the detector is shown it" + (f", flipped: {flipped}" if flipped else "")
    return draw_slab(
        grey,
        boxes,
        spacing_x_mm=spacing_x_mm / scale,
        caption=caption,
        min_short_side=SHORT_SIDE_PX,
    )


def _boxes(instances: Any, colour: tuple[int, int, int]) -> list[OverlayBox]:
    if instances is None or "bboxes" not in instances:
        return []
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    return [OverlayBox(tuple(box), colour) for box in boxes.tolist()]


def draw_gallery(
    config: Config,
    checkpoint: Path,
    *,
    split: str = "test",
    count: int = 6,
    threshold: float | None = None,
    predictions: Path | None = None,
) -> bytes:
    """Draw Figure 3 for a checkpoint as PNG.

    Parameters
    ----------
    config : as read by ``read_config``.
    checkpoint : weights to load, and the threshold they carry.
    split : "test" or "val".
    count : number of slabs.
    threshold : overrides the checkpoint's operating point.
    predictions : detections of an earlier test of this split; None runs the model.

    Raises
    ------
    LungDetError
        If there is no threshold, nothing to show, or the model cannot be run.
    """
    if count < 1:
        raise LungDetError(f"--count {count}: ask for at least one slab")
    content = read_checkpoint(checkpoint)
    applied = applied_threshold(content, given=threshold)
    if applied.value is None:
        raise LungDetError(
            f"{checkpoint}: no operating point in it, so hits and misses cannot be told apart; "
            "give --threshold"
        )
    aim_test_at(config, split)
    coco, slab_set = read_coco(annotation_file(config)), read_slab_set(annotation_file(config))
    if not slab_set.slabs:
        raise LungDetError(
            f"{annotation_file(config)}: no slab in this split; prepare more scans, or make the "
            "splits again with `lungdet split`"
        )
    matched = (
        _detected(config, checkpoint, content, applied.value)
        if predictions is None
        else match_slabs(slab_set, read_predictions(predictions))
    )
    chosen = representative_slabs(matched.outcomes, threshold=applied.value, count=count)
    if not chosen:
        raise LungDetError(
            f"{annotation_file(config)}: no slab with a nodule or a false positive at threshold "
            f"{applied.value:.3f}; lower it with --threshold"
        )
    return prediction_figure(
        chosen,
        _slab_files(coco, slab_folder(config), chosen),
        notes=[
            f"{slab_set.info['data']} data, {slab_set.info['protocol']} protocol, {split} split; "
            f"{checkpoint.name}, threshold {applied.value:.2f}",
            _selection_note(matched.outcomes, chosen),
        ],
    )


def _detected(
    config: Config, checkpoint: Path, content: Mapping[str, Any], threshold: float
) -> MatchedSlabs:
    with tempfile.TemporaryDirectory() as folder:
        config.work_dir = folder
        matched = run_network(config, checkpoint, content, threshold=threshold).matched
    if matched is None:
        raise LungDetError("figures are drawn by a run of one process; start it without a launcher")
    return matched


def _slab_files(
    coco: Mapping[str, Any], folder: Path, outcomes: Sequence[SlabOutcome]
) -> list[Path]:
    names = {item["id"]: item["file_name"] for item in coco["images"]}
    return [folder / names[outcome.slab.img_id] for outcome in outcomes]


def _selection_note(outcomes: Sequence[SlabOutcome], chosen: Sequence[SlabOutcome]) -> str:
    positives = sum(outcome.slab.has_nodule for outcome in outcomes)
    shown = sum(outcome.slab.has_nodule for outcome in chosen)
    note = f"{shown} of {positives} slabs with a nodule, from best to worst score"
    alarms = len(chosen) - shown
    return f"{note}; {alarms} loudest false alarms" if alarms else note
