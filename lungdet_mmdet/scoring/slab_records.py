# SPDX-License-Identifier: Apache-2.0
"""Slabs, their nodules and detections as scoring sees them: size bands, records, depths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.annotations.tables import PAPER_BANDS_MM, Finding, Nodule
from lungdet_mmdet.ct.slabs import DEPTH_STEPS, SlabGeometry
from lungdet_mmdet.errors import LungDetError


@dataclass(frozen=True)
class SizeBand:
    """Diameters over ``lower_mm`` up to and with ``upper_mm``; "all" also holds diameter 0."""

    name: str
    lower_mm: float
    upper_mm: float

    @property
    def coco_range(self) -> tuple[float, float]:
        """The band as pycocotools reads it: both ends belong to the range."""
        lowest = self.lower_mm if self.lower_mm <= 0 else np.nextafter(self.lower_mm, np.inf)
        return float(lowest), self.upper_mm

    @property
    def limits_text(self) -> str:
        """The limits in mm, such as "7-15 mm"."""
        if self.lower_mm <= 0:
            return f"<= {self.upper_mm:g} mm"
        if math.isinf(self.upper_mm):
            return f"> {self.lower_mm:g} mm"
        return f"{self.lower_mm:g}-{self.upper_mm:g} mm"

    def holds(self, diameter_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell for each diameter (N,) in mm whether it is in the band."""
        lowest, highest = self.coco_range
        return (diameter_mm >= lowest) & (diameter_mm <= highest)


def size_bands(edges_mm: Sequence[float] = PAPER_BANDS_MM) -> tuple[SizeBand, ...]:
    """Return the band "all" and one band per interval between the edges.

    Two edges make small, medium and large; any other number of edges makes bands named by their
    limits, such as "over_6mm_to_8mm". A diameter of exactly an edge is in the lower band. Raises
    LungDetError when the edges are not positive and rising.
    """
    edges = [float(edge) for edge in edges_mm]
    if any(low >= high for low, high in zip([0.0, *edges], edges, strict=False)):
        raise LungDetError(f"size band edges {edges} mm: give positive, rising diameters")
    limits = [0.0, *edges, float("inf")]
    names = ["small", "medium", "large"]
    if len(edges) != 2:
        names = [
            f"over_{low:g}mm_to_{high:g}mm" for low, high in zip(limits, limits[1:], strict=False)
        ]
    parts = zip(names, limits, limits[1:], strict=False) if edges else ()
    bands = [SizeBand(name, low, high) for name, low, high in parts]
    return (SizeBand("all", 0.0, float("inf")), *bands)


def count_by_band(
    diameters_mm: Sequence[float], edges_mm: Sequence[float] = PAPER_BANDS_MM
) -> tuple[tuple[str, int], ...]:
    """Return the limits of each band between the edges, and how many diameters lie in it."""
    diameters = np.array(diameters_mm, dtype=np.float64)
    return tuple(
        (band.limits_text, int(np.count_nonzero(band.holds(diameters))))
        for band in size_bands(edges_mm)[1:]
    )


def equivalent_diameter(
    boxes_xyxy_px: NDArray[np.float64], spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Return the diameter in mm of each box (N, 4): the square root of its area in mm^2."""
    width = np.maximum(boxes_xyxy_px[:, 2] - boxes_xyxy_px[:, 0], 0.0) * spacing_mm[0]
    height = np.maximum(boxes_xyxy_px[:, 3] - boxes_xyxy_px[:, 1], 0.0) * spacing_mm[1]
    return np.sqrt(width * height)


NODULE_CATEGORY = 1


@dataclass(frozen=True)
class TruthBox:
    """One annotated box on a slab.

    ``bbox_xywh_px`` is (x, y, width, height) in slab pixels. An ignored box is neither a nodule to
    find nor a place where a detection is wrong. ``kind`` is "nodule", "grazed" or "excluded".
    ``rle`` is the outline as COCO's run lengths, where the annotation file has them.
    """

    bbox_xywh_px: tuple[float, float, float, float]
    diameter_mm: float
    is_ignored: bool = False
    kind: str = "nodule"
    nodule_id: str = ""
    rle: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Slab:
    """One annotated slab: which scan it belongs to, where it lies, and its boxes.

    ``depth_file_name`` is the image of the depth of its maximum, "" where there is none.
    """

    img_id: int
    seriesuid: str
    geometry: SlabGeometry
    boxes: tuple[TruthBox, ...] = ()
    depth_file_name: str = ""

    @property
    def has_nodule(self) -> bool:
        """Whether a nodule is to be found here."""
        return any(not box.is_ignored for box in self.boxes)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing at all is annotated here, not even something to ignore."""
        return not self.boxes


@dataclass(frozen=True)
class SlabSet:
    """The annotated slabs of one split, with the scan-level truth behind them.

    ``excluded`` are findings that are neither right nor wrong to find; ``discarded`` are nodules
    that do not count, because their slabs were left out of the split on purpose; ``unseen`` are
    nodules that lie in no slab and count as missed. ``ratings`` are the readers' means by nodule
    id, ``locations`` where nodules sit ("isolated", "pleural", "vascular"), where they are known.
    ``failed`` are series that could not be prepared: nobody looked at them.
    """

    slabs: Mapping[int, Slab]
    series: tuple[str, ...]
    nodules: tuple[Nodule, ...] = ()
    excluded: tuple[Finding, ...] = ()
    discarded: tuple[Nodule, ...] = ()
    unseen: tuple[Nodule, ...] = ()
    failed: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    ratings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    locations: Mapping[str, str] = field(default_factory=dict)

    @property
    def not_looked_at(self) -> tuple[str, ...]:
        """Series that are no scans without false positives.

        By LUNA16's own rules every series of the challenge counts, whatever became of it.
        """
        return () if self.info.get("data") == "LUNA16" else self.failed

    def seen_by(self, detections: Iterable[SlabDetections]) -> SlabSet:
        """Return the set as far as it was looked at, see :meth:`restricted_to`.

        Raises LungDetError when a detection was made on another slab than the one of its image id:
        on another split, or on slabs prepared anew.
        """
        items = list(detections)
        for item in items:
            slab = self.slabs.get(item.img_id)
            if slab is None:
                continue
            made_on = (item.seriesuid or slab.seriesuid, item.slab_index)
            if made_on[0] != slab.seriesuid or made_on[1] not in (None, slab.geometry.index):
                raise LungDetError(
                    f"image {item.img_id} is slab {slab.geometry.index} of series "
                    f"{slab.seriesuid} in the annotation file, but was slab {made_on[1]} of "
                    f"{made_on[0]} to the model: these are two splits; give the metric the "
                    "ann_file of the dataset it is run on"
                )
        return self.restricted_to(item.img_id for item in items)

    def restricted_to(self, img_ids: Iterable[int]) -> SlabSet:
        """Return the set as far as it was looked at.

        Series of which no slab was looked at are left out; series that have no slab in this set at
        all stay in, for they are part of the split (a healthy scan whose slabs were all thinned
        away, a scan whose nodules are in no slab). Raises LungDetError when an image id is not in
        the set.
        """
        wanted = set(img_ids)
        unknown = sorted(wanted - set(self.slabs))
        if unknown:
            raise LungDetError(
                f"{len(unknown)} predicted image ids are not in the annotation file (first: "
                f"{unknown[0]!r}); give the metric the ann_file of the dataset it is run on"
            )
        with_slabs = {slab.seriesuid for slab in self.slabs.values()}
        looked_at = {self.slabs[img_id].seriesuid for img_id in wanted}
        kept = {uid for uid in self.series if uid in looked_at or uid not in with_slabs}
        ids = [item.nodule_id for item in self.nodules if item.seriesuid in kept]
        return SlabSet(
            slabs={img_id: self.slabs[img_id] for img_id in sorted(wanted)},
            series=tuple(uid for uid in self.series if uid in kept),
            nodules=tuple(item for item in self.nodules if item.seriesuid in kept),
            excluded=tuple(item for item in self.excluded if item.seriesuid in kept),
            discarded=tuple(item for item in self.discarded if item.seriesuid in kept),
            unseen=tuple(item for item in self.unseen if item.seriesuid in kept),
            failed=tuple(uid for uid in self.failed if uid in kept),
            info=self.info,
            ratings={uid: self.ratings[uid] for uid in ids if uid in self.ratings},
            locations={uid: self.locations[uid] for uid in ids if uid in self.locations},
        )


@dataclass(frozen=True)
class SlabDetections:
    """What a model found on one slab: boxes (N, 4) xyxy in slab pixels and scores (N,).

    ``z_mm`` (N,) says where each box lies along the slab normal, ``z_sd_mm`` (N,) how sure that is;
    None where the depth of the maximum is not known (``scoring.box_depths`` gives both).
    ``rles`` are the outlines as COCO's run lengths, one for each box, of a model that gives them.
    ``seriesuid`` and ``slab_index`` say which slab it was, None where the sample does not: image
    ids do not, for every split counts its slabs from 1.
    """

    img_id: int
    boxes_xyxy_px: NDArray[np.float64]
    scores: NDArray[np.float64]
    z_mm: NDArray[np.float64] | None = None
    z_sd_mm: NDArray[np.float64] | None = None
    rles: tuple[Mapping[str, Any], ...] | None = None
    seriesuid: str | None = None
    slab_index: int | None = None

    def __post_init__(self) -> None:
        """Bring the arrays to float64 and check that they belong together."""
        given = (self.z_mm, self.z_sd_mm)
        boxes = np.asarray(self.boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
        scores = np.asarray(self.scores, dtype=np.float64).reshape(-1)
        if len(boxes) != len(scores):
            raise LungDetError(
                f"slab {self.img_id}: {len(boxes)} boxes but {len(scores)} scores; one score is "
                "needed for each box"
            )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise LungDetError(
                f"slab {self.img_id}: a predicted box or score is not finite; the model has "
                "diverged, look at the training loss"
            )
        object.__setattr__(self, "boxes_xyxy_px", boxes)
        object.__setattr__(self, "scores", scores)
        if self.z_mm is None and self.z_sd_mm is None:
            return
        depths = [np.asarray(value, dtype=np.float64).reshape(-1) for value in given]
        if any(len(value) != len(boxes) or not np.isfinite(value).all() for value in depths):
            raise LungDetError(
                f"slab {self.img_id}: {len(boxes)} boxes, but depths {given}; a finite z_mm and "
                "z_sd_mm are needed for each box, or neither"
            )
        object.__setattr__(self, "z_mm", depths[0])
        object.__setattr__(self, "z_sd_mm", depths[1])

    @property
    def top_score(self) -> float:
        """The highest box score, 0.0 where nothing was found."""
        return float(self.scores.max()) if len(self.scores) else 0.0


def unique_by_slab(detections: Iterable[SlabDetections]) -> list[SlabDetections]:
    """Keep the first record of every slab, ordered by image id.

    Distributed runs pad the last batch with slabs that another process has already seen. Raises
    LungDetError when two slabs have the same image id.
    """
    first: dict[int, SlabDetections] = {}
    for item in detections:
        before = first.setdefault(item.img_id, item)
        if (before.seriesuid, before.slab_index) != (item.seriesuid, item.slab_index):
            raise LungDetError(
                f"image {item.img_id} is slab {before.slab_index} of {before.seriesuid} and slab "
                f"{item.slab_index} of {item.seriesuid}: two splits at once; test them one by one"
            )
    return [first[img_id] for img_id in sorted(first)]


# The core of a box: the ellipse of this share of its width and height. Further out lie the
# surroundings, whose maxima come from any slice.
CORE_SHARE = 0.7
# At least so many pixels across, however small the box.
MIN_CORE_PX = 1.5
# Standard deviation of a candidate's z: this much where all depths of its core agree, and this
# share of their own spread. Fitted to nodules of phantoms and real ones set into a real scan.
SD_FLOOR_MM = 0.6
SD_OF_SPREAD = 0.5


def with_depths(
    found: SlabDetections, slab: Slab, depths: NDArray[np.uint8] | None
) -> SlabDetections:
    """Return the detections of a slab with their positions along its normal.

    A box lies at the mean depth of the pixels of its core, and is as sure as these agree.

    Parameters
    ----------
    found : the boxes.
    slab : where the slab lies.
    depths : (y, x) as of ``mip_slabs``; None leaves the boxes on the mid-plane.
    """
    if depths is None:
        return found
    low, high = np.sort(slab.geometry.z_range_mm)
    shares = np.array([_core_depth(box, depths) for box in found.boxes_xyxy_px]).reshape(-1, 2)
    return replace(
        found,
        z_mm=low + shares[:, 0] * (high - low),
        z_sd_mm=np.hypot(SD_FLOOR_MM, SD_OF_SPREAD * shares[:, 1] * (high - low)),
    )


def _core_depth(box_xyxy_px: NDArray[np.float64], depths: NDArray[np.uint8]) -> tuple[float, float]:
    """Return mean and spread of the depths in the core of a box, as shares of the thickness."""
    core = core_pixels(box_xyxy_px, depths)
    if not core.size:
        return 0.5, 1 / np.sqrt(12)  # outside the image: anywhere
    return core.mean() / DEPTH_STEPS, core.std() / DEPTH_STEPS


def core_pixels(
    box_xyxy_px: NDArray[np.float64], image: NDArray, *, share: float = CORE_SHARE
) -> NDArray:
    """Return the pixels (N,) of an image (y, x) in the ellipse of a share of a box's sides."""
    height, width = image.shape
    middle = (box_xyxy_px[:2] + box_xyxy_px[2:]) / 2
    half = np.maximum((box_xyxy_px[2:] - box_xyxy_px[:2]) * share, MIN_CORE_PX) / 2
    first = np.clip(np.floor(middle - half), 0, (width, height)).astype(int)
    stop = np.clip(np.ceil(middle + half), 0, (width, height)).astype(int)
    across, down = (
        (np.arange(first[axis], stop[axis]) + 0.5 - middle[axis]) / half[axis] for axis in (0, 1)
    )
    patch = image[first[1] : stop[1], first[0] : stop[0]]
    core = patch[across**2 + down[:, None] ** 2 <= 1]
    return core if core.size else patch.ravel()


def missing_depths_note(n_missing: int, n_slabs: int) -> str | None:
    """Say in one line how many slabs have no depth, and what that does; None where all have."""
    if not n_missing:
        return None
    return (
        f"{n_missing} of {n_slabs} slabs have no depth of the maximum (prepared by an older "
        "version, or with depth=False): their candidates lie on the mid-plane, up to half a slab "
        "off. Prepare, and make the splits, again to place them"
    )


def read_depths(path: str | Path) -> NDArray[np.uint8] | None:
    """Read the depths that preparation wrote beside a slab, or None where there is no such image.

    Raises LungDetError if the file is there and cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        return None
    depths = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depths is None or depths.ndim != 2 or depths.dtype != np.uint8:
        raise LungDetError(
            f"{path}: is no 8-bit grey PNG; delete the scan's folder and prepare it again"
        )
    return depths.astype(np.uint8, copy=False)
