# SPDX-License-Identifier: Apache-2.0
"""What annotation files hold: counted for each, and compared between the sides of a split."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungdet_mmdet.annotations.slab_boxes import WELL_COVERED
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_records import PAPER_BANDS_MM, count_by_band
from lungdet_mmdet.splits.coco_json import read_coco, slab_statuses
from lungdet_mmdet.splits.split_part import SplitPart

Crossing = tuple[tuple[str, tuple[str, ...]], ...]
_SHOWN = 10


@dataclass(frozen=True)
class LeakReport:
    """What stands on several sides.

    Parameters
    ----------
    protocols : protocol of each file, by side.
    series, patients, images : (name, the sides it stands on) of everything on two or more sides.
    warnings : one sentence each, for the log.
    """

    protocols: Mapping[str, str]
    series: Crossing
    patients: Crossing
    images: Crossing
    warnings: tuple[str, ...]


def check_leaks(paths: Mapping[str, str | Path | None], *, allow: bool = False) -> LeakReport:
    """Compare the annotation files that a run uses.

    Validation and test may be one and the same file; every other sharing is a leak. A series on two
    sides stops a run of the strict or fold protocol, and a patient a strict one. The paper
    protocol divides series by design and only warns, but no protocol may share an image. A
    patient on two sides of LUNA16's own subsets only warns, since the subsets are fixed.

    Parameters
    ----------
    paths : annotation file by side ("train", "val", "test"); sides with None are skipped.
    allow : warn instead of stopping, for a run that overfits on purpose.

    Raises
    ------
    LungDetError
        On a leak, with the list; also if a file cannot be read.
    """
    files = {side: Path(path) for side, path in paths.items() if path is not None}
    if "val" in files and "test" in files and files["val"].resolve() == files["test"].resolve():
        files["val and test"] = files.pop("val")
        del files["test"]
    cocos = {side: read_coco(path) for side, path in files.items()}
    report = find_leaks(cocos)
    stops = _reasons_to_stop(report)
    if stops and not allow:
        raise LungDetError(
            "the split leaks: "
            + "; ".join(stops)
            + f". Files: {', '.join(f'{side} {path}' for side, path in files.items())}. Make the "
            "splits again with `lungdet split --protocol strict`"
        )
    return report


def find_leaks(cocos: Mapping[str, Mapping[str, Any]]) -> LeakReport:
    """Find what stands on two sides; ``cocos`` are COCO dictionaries by side."""
    protocols = {side: str(coco["info"].get("protocol", "")) for side, coco in cocos.items()}
    series = _crossing({side: series_of(coco) for side, coco in cocos.items()})
    patients = _crossing(
        {side: set(coco.get("patients", {}).values()) for side, coco in cocos.items()}
    )
    images = _crossing(
        {side: {image["file_name"] for image in coco["images"]} for side, coco in cocos.items()}
    )
    warnings = []
    origins = {(protocols[side], cocos[side]["info"].get("fold")) for side in cocos}
    if len(origins) > 1:
        warnings.append(f"the files come from different protocols or folds: {protocols}")
    warnings += [
        _sentence(kind, found)
        for kind, found in (("series", series), ("patients", patients), ("images", images))
        if found
    ]
    return LeakReport(protocols, series, patients, images, tuple(warnings))


def _reasons_to_stop(report: LeakReport) -> list[str]:
    protocols = set(report.protocols.values())
    reasons = []
    if report.series and protocols != {"paper"}:
        reasons.append(_sentence("series", report.series))
    if report.patients and "strict" in protocols:
        reasons.append(_sentence("patients", report.patients))
    if report.images and not reasons:
        reasons.append(_sentence("images", report.images))
    return reasons


SERIES_KEY = "training_series"
"""In the ``meta`` of a checkpoint, and the ``data`` of a model file: digests of the series that it
learnt from, each with its split's name."""


def series_digest(uid: str) -> str:
    """Return what tells a series without naming it; such a digest stays as it is."""
    if _SERIES_DIGEST.fullmatch(uid):
        return uid
    return f"s{hashlib.sha256(uid.encode()).hexdigest()[:16]}"


_SERIES_DIGEST = re.compile(r"s[0-9a-f]{16}")


def learnt_series(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the series that a checkpoint or model file says it learnt from.

    Each with the name of its split; empty where nothing is said.
    """
    noted = [(checkpoint.get(part) or {}).get(SERIES_KEY, {}) for part in ("meta", "data")]
    return joined_series(*({series_digest(uid): of[uid] for uid in of} for of in noted))


def joined_series(*learnt: Mapping[str, str]) -> dict[str, str]:
    """Join what was learnt from one after the other: of two splits a series bears no one's name."""
    joined: dict[str, str] = {}
    for part in learnt:
        for digest, name in part.items():
            joined[digest] = name if joined.get(digest, name) == name else "several splits"
    return dict(sorted(joined.items()))


def split_name(coco: Mapping[str, Any]) -> str:
    """Return what tells a split from others of the same scans."""
    info = coco["info"]
    return " ".join(str(info[key]) for key in ("protocol", "seed", "members") if key in info)


def members_digest(parts: Iterable[SplitPart]) -> str:
    """Return a digest of which slabs are in which part."""
    members = {
        part.name: sorted(str(slab.slab.fields["file_name"]) for slab in part.slabs)
        for part in parts
    }
    return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()[:12]


def series_of(coco: Mapping[str, Any]) -> set[str]:
    """Return the series of an annotation file, those without a slab, too."""
    return set(coco["series"]) | {image["seriesuid"] for image in coco["images"]}


def _crossing(members: Mapping[str, set[str]]) -> Crossing:
    sides: dict[str, list[str]] = defaultdict(list)
    for side, names in members.items():
        for name in names:
            sides[name].append(side)
    return tuple((name, tuple(on)) for name, on in sorted(sides.items()) if len(on) > 1)


def _sentence(kind: str, crossing: Crossing) -> str:
    listed = ", ".join(f"{name} ({' and '.join(on)})" for name, on in crossing[:_SHOWN])
    more = f" and {len(crossing) - _SHOWN} more" if len(crossing) > _SHOWN else ""
    return f"{len(crossing)} {kind} on several sides: {listed}{more}"


@dataclass(frozen=True)
class CohortSummary:
    """Counts of one annotation file.

    Parameters
    ----------
    split, protocol, data : what made the file.
    slabs, positives, healthy, ignored : ``slabs`` is the sum of the other three.
    rate : share of positives among positive and healthy slabs; None without either.
    series, series_without_nodules : scans, and those without a nodule that counts.
    nodules : nodules that count, unseen ones included.
    nodules_by_band : name and number per size band, by annotated diameter.
    boxes, ignore_regions : annotations to be found, and to be ignored.
    unseen : nodules that no slab shows, counted as missed.
    discarded : nodules whose slabs were left out for the rate or are of another part; not in
        ``nodules``.
    lost_to_mask : nodules with less than 90 % of their voxels in the lung mask.
    coverage_unknown : nodules for which that share is not known.
    labels : rule by which boxes were made: "auto", "sphere" or "mask".
    nodules_by_label : number of nodules whose boxes come from masks, and from spheres.
    """

    split: str
    protocol: str
    data: str
    slabs: int
    positives: int
    healthy: int
    ignored: int
    rate: float | None
    series: int
    series_without_nodules: int
    nodules: int
    nodules_by_band: tuple[tuple[str, int], ...]
    boxes: int
    ignore_regions: int
    unseen: int
    discarded: int
    lost_to_mask: int
    coverage_unknown: int
    labels: str
    nodules_by_label: tuple[tuple[str, int], ...]


def summarise(coco: Mapping[str, Any]) -> CohortSummary:
    """Count what a COCO dictionary of a split holds."""
    statuses = slab_statuses(coco)
    positives, healthy = statuses.count("positive"), statuses.count("healthy")
    nodules = coco["nodules"]
    coverages = [nodule.get("coverage") for nodule in nodules]
    discarded = coco.get("discarded_nodules", ())
    with_nodules = {nodule["seriesuid"] for nodule in (*nodules, *discarded)}
    boxes = sum(not annotation["iscrowd"] for annotation in coco["annotations"])
    info = coco["info"]
    return CohortSummary(
        split=str(info.get("split", "")),
        protocol=str(info.get("protocol", "")),
        data=str(info.get("data", "")),
        slabs=len(statuses),
        positives=positives,
        healthy=healthy,
        ignored=statuses.count("ignored"),
        rate=positives / (positives + healthy) if positives + healthy else None,
        series=len(coco["series"]),
        series_without_nodules=len(set(coco["series"]) - with_nodules),
        nodules=len(nodules),
        nodules_by_band=count_by_band([n["diameter_mm"] for n in nodules], PAPER_BANDS_MM),
        boxes=boxes,
        ignore_regions=len(coco["annotations"]) - boxes,
        unseen=len(coco.get("unseen_nodules", ())),
        discarded=len(discarded),
        lost_to_mask=sum(share is not None and share < WELL_COVERED for share in coverages),
        coverage_unknown=sum(share is None for share in coverages),
        labels=str(info.get("labels", "sphere")),
        nodules_by_label=count_by_label(nodules),
    )


def count_by_label(nodules: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """Return how many nodules of an annotation file have boxes from masks, and from spheres."""
    from_mask = sum(nodule.get("label") == "mask" for nodule in nodules)
    return ("mask", from_mask), ("sphere", len(nodules) - from_mask)


def label_text(summary: CohortSummary) -> str:
    """Return a summary's labels in words, e.g. ``auto: 12 mask, 3 sphere``."""
    counts = ", ".join(f"{count} {name}" for name, count in summary.nodules_by_label)
    return f"{summary.labels}: {counts}"
