# SPDX-License-Identifier: Apache-2.0
"""Labels of slabs: what is a positive, what is to be ignored, what is healthy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lungdet_mmdet.annotations.slab_boxes import (
    MIN_OVERLAP_MM,
    POSITIVE_RULES,
    PositiveRule,
    SlabStack,
    positive_slabs,
    positives_by_rule,
    sphere_boxes,
)
from lungdet_mmdet.annotations.tables import Finding, Nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.prepared import PreparedScan, PreparedSlab

Kind = Literal["nodule", "grazed", "excluded"]
Status = Literal["positive", "ignored", "healthy"]
ExcludedRule = Literal["ignore", "background"]
LabelSource = Literal["mask", "sphere"]
LabelRule = Literal["auto", "sphere", "mask"]

# A box with less of its area inside the image shows too little of the nodule to be asked for.
MIN_VISIBLE_SHARE = 0.5


@dataclass(frozen=True)
class SlabLabel:
    """One box on a slab.

    Parameters
    ----------
    kind : "nodule" is to be found; "grazed" and "excluded" are ignore regions.
    box_xyxy_px : continuous slab pixels, clipped to the image.
    overlap_mm : depth of the sphere or mask inside the slab.
    diameter_mm : of the sphere; 10 for excluded findings of unknown size.
    nodule_id : None for excluded findings.
    rle : the mask's run lengths over the image, as COCO has them; None for spheres.
    """

    kind: Kind
    box_xyxy_px: tuple[float, float, float, float]
    overlap_mm: float
    diameter_mm: float
    nodule_id: str | None
    rle: str | None = None

    @property
    def source(self) -> LabelSource:
        """What the box comes from."""
        return "sphere" if self.rle is None else "mask"


@dataclass(frozen=True)
class LabelledSlab:
    """A slab with its labels; the nodules it shows best are in ``best_of``."""

    seriesuid: str
    slab: PreparedSlab
    labels: tuple[SlabLabel, ...]
    best_of: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """Positive with a nodule to be found, ignored with other content, else healthy."""
        if any(label.kind == "nodule" for label in self.labels):
            return "positive"
        return "ignored" if self.labels else "healthy"

    @property
    def nodule_ids(self) -> frozenset[str]:
        """Ids of the nodules to be found on this slab."""
        return frozenset(str(la.nodule_id) for la in self.labels if la.kind == "nodule")

    @property
    def sort_key(self) -> tuple[str, int]:
        """Series UID and slab index."""
        return self.seriesuid, self.slab.geometry.index


@dataclass(frozen=True)
class UnseenNodule:
    """An annotated nodule that no slab shows: it counts as missed."""

    nodule: Nodule
    reason: str


@dataclass(frozen=True)
class LabelledScan:
    """A scan with its labelled slabs and the nodules that none of them shows."""

    scan: PreparedScan
    slabs: tuple[LabelledSlab, ...]
    unseen: tuple[UnseenNodule, ...]

    @property
    def seriesuid(self) -> str:
        """Series UID of the scan."""
        return self.scan.seriesuid


def label_scan(
    scan: PreparedScan,
    *,
    min_overlap_mm: float = MIN_OVERLAP_MM,
    excluded: ExcludedRule = "ignore",
    labels: LabelRule = "auto",
    positive: PositiveRule = "overlap",
) -> LabelledScan:
    """Label every slab of a scan.

    ``labels`` says what nodules and boxes come from: "sphere" the table alone, "auto" a nodule's
    mask where there is one (nodules that only the mask has count too), "mask" masks alone, so that
    nodules without one become irrelevant findings.

    A nodule is "nodule" on slabs that it reaches ``min_overlap_mm`` into and on the slab that shows
    it best, "grazed" on the others it touches; ``positive`` gives two other rules, under which a
    nodule on no slab is unseen (`positives_by_rule`). With ``excluded="ignore"`` irrelevant
    findings are ignore regions, except those whose centre lies inside an annotated nodule (single
    readers' marks of it): there the nodule counts. With "background" they are nothing at all, so
    that a detection on them is a false positive.
    """
    if excluded not in ("ignore", "background"):
        raise LungDetError(f"excluded is {excluded!r}: choose 'ignore' or 'background'")
    if positive not in POSITIVE_RULES:
        raise LungDetError(
            f"the positive rule is {positive!r}: choose one of {', '.join(POSITIVE_RULES)}"
        )
    scan = _by_rule(scan, labels)
    found: list[list[SlabLabel]] = [[] for _ in scan.slabs]
    best_of: list[list[str]] = [[] for _ in scan.slabs]
    unseen = []
    stack = SlabStack(tuple(slab.geometry for slab in scan.slabs))
    if scan.slabs:
        unseen = _label_nodules(scan, stack, (positive, min_overlap_mm), found, best_of)
        if excluded == "ignore":
            _label_findings(findings_to_ignore(scan), stack, found)
    else:
        reason = scan.failure or "the scan has no slabs"
        unseen = [UnseenNodule(nodule, reason) for nodule in scan.nodules]
    slabs = tuple(
        LabelledSlab(scan.seriesuid, slab, tuple(slab_labels), tuple(best))
        for slab, slab_labels, best in zip(scan.slabs, found, best_of, strict=True)
    )
    return LabelledScan(scan, slabs, tuple(unseen))


def _by_rule(scan: PreparedScan, labels: LabelRule) -> PreparedScan:
    """Return the scan with the nodules and masks that a rule lets count."""
    if labels == "auto":
        return scan
    if labels == "sphere":
        kept = tuple(n for n in scan.nodules if n.nodule_id not in scan.only_in_mask)
        return replace(scan, nodules=kept, masks={})
    if labels != "mask":
        raise LungDetError(f"labels is {labels!r}: choose 'auto', 'sphere' or 'mask'")
    kept = tuple(n for n in scan.nodules if n.nodule_id in scan.masks)
    without = (n for n in scan.nodules if n.nodule_id not in scan.masks)
    findings = tuple(Finding(n.seriesuid, n.centre_xyz_mm, n.diameter_mm) for n in without)
    return replace(scan, nodules=kept, excluded=scan.excluded + findings)


def findings_to_ignore(scan: PreparedScan) -> tuple[Finding, ...]:
    """Return the distinct irrelevant findings whose centre lies outside every nodule."""
    findings = tuple(dict.fromkeys(scan.excluded))
    if not scan.nodules or not findings:
        return findings
    centres = np.array([finding.centre_xyz_mm for finding in findings])  # (F, 3)
    nodules = np.array([nodule.centre_xyz_mm for nodule in scan.nodules])  # (N, 3)
    radii = np.array([nodule.diameter_mm / 2 for nodule in scan.nodules])
    distance = np.linalg.norm(centres[:, None] - nodules[None], axis=-1)  # (F, N)
    inside = np.any(distance < radii, axis=1)
    return tuple(f for f, is_inside in zip(findings, inside, strict=True) if not is_inside)


def _label_nodules(
    scan: PreparedScan,
    stack: SlabStack,
    rule: tuple[PositiveRule, float],
    labels: list[list[SlabLabel]],
    best_of: list[list[str]],
) -> list[UnseenNodule]:
    nodules = scan.nodules
    centres = np.array([n.centre_xyz_mm for n in nodules]).reshape(-1, 3)
    boxes, overlaps = sphere_boxes(centres, np.array([n.diameter_mm for n in nodules]), stack)
    clipped, visible = _clip(boxes, stack)
    middles = _cuts_middle(centres, np.array([n.diameter_mm for n in nodules]), stack)
    rles = [
        _put_masks(scan, row, clipped, overlaps, visible, middles) for row in range(len(nodules))
    ]
    thickness = stack.faces_mm[:, 1] - stack.faces_mm[:, 0]
    unseen = []
    for nodule, box, overlap, share, middle, rle in zip(
        nodules, clipped, overlaps, visible, middles, rles, strict=True
    ):
        shown = np.where(share >= MIN_VISIBLE_SHARE, overlap, 0.0)
        width = box[:, 2] - box[:, 0]
        positive = positives_by_rule(
            rule[0],
            shown,
            width,
            thickness_mm=thickness,
            cuts_middle=middle,
            min_overlap_mm=rule[1],
        )
        for place in np.flatnonzero((overlap > 0) & (share > 0)):
            kind: Kind = "nodule" if positive[place] else "grazed"
            labels[place].append(
                _label(
                    kind,
                    box[place],
                    overlap[place],
                    nodule.diameter_mm,
                    nodule.nodule_id,
                    None if rle is None else rle[place],
                )
            )
        best = positive_slabs(shown, width, min_overlap_mm=np.inf)
        if best.any() and not positive.any():
            unseen.append(UnseenNodule(nodule, f"on no slab by the rule '{rule[0]}'"))
        elif best.any():
            best_of[int(best.argmax())].append(nodule.nodule_id)
        else:
            touched = bool((overlap > 0).any())
            reason = "outside the image of its slabs" if touched else "in no slab"
            unseen.append(UnseenNodule(nodule, reason))
    return unseen


def _cuts_middle(centres: np.ndarray, diameters: np.ndarray, stack: SlabStack) -> np.ndarray:
    """Return (N, S) bool: whether each slab's middle plane meets each sphere."""
    height = np.einsum("nk,sk->ns", centres, stack.axes_xyz[:, :, 2])
    return np.abs(height - stack.faces_mm.mean(axis=1)) < 0.5 * diameters[:, None]


def _put_masks(
    scan: PreparedScan,
    row: int,
    boxes: np.ndarray,
    overlaps: np.ndarray,
    visible: np.ndarray,
    middles: np.ndarray,
) -> dict[int, str] | None:
    """Put a nodule's mask in the place of its sphere, where it has one; return RLEs by slab."""
    masks = scan.masks.get(scan.nodules[row].nodule_id)
    if masks is None:
        return None
    place_of = {slab.geometry.index: place for place, slab in enumerate(scan.slabs)}
    overlaps[row] = visible[row] = 0.0
    middles[row] = False
    rles = {}
    for mask in masks:
        place = place_of[mask.index]
        boxes[row, place] = mask.box_xyxy_px
        overlaps[row, place] = mask.overlap_mm
        visible[row, place] = mask.visible_share
        middles[row, place] = mask.cuts_middle
        rles[place] = mask.rle
    return rles


def _label_findings(
    findings: tuple[Finding, ...], stack: SlabStack, labels: list[list[SlabLabel]]
) -> None:
    centres = np.array([f.centre_xyz_mm for f in findings]).reshape(-1, 3)
    boxes, overlaps = sphere_boxes(centres, np.array([f.extent_mm for f in findings]), stack)
    clipped, visible = _clip(boxes, stack)
    for row, place in zip(*np.nonzero((overlaps > 0) & (visible > 0)), strict=True):
        extent = findings[row].extent_mm
        labels[place].append(
            _label("excluded", clipped[row, place], overlaps[row, place], extent, None)
        )


def _clip(boxes_xyxy_px: np.ndarray, stack: SlabStack) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, S, 4) boxes clipped to their images and (N, S) share of the area that is left."""
    size = np.array([(slab.width, slab.height) for slab in stack.slabs], dtype=float)
    clipped = np.clip(boxes_xyxy_px, 0.0, np.concatenate([size, size], axis=1))
    area = np.prod(boxes_xyxy_px[..., 2:] - boxes_xyxy_px[..., :2], axis=-1)
    left = np.prod(clipped[..., 2:] - clipped[..., :2], axis=-1)
    return clipped, np.divide(left, area, out=np.zeros_like(area), where=area > 0)


def _label(
    kind: Kind,
    box: np.ndarray,
    overlap: float,
    diameter: float,
    nodule_id: str | None,
    rle: str | None = None,
) -> SlabLabel:
    x0, y0, x1, y1 = box.tolist()
    return SlabLabel(kind, (x0, y0, x1, y1), float(overlap), float(diameter), nodule_id, rle)
