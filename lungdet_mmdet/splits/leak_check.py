# SPDX-License-Identifier: Apache-2.0
"""Does any series, patient or image stand on two sides of a split?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_json import read_coco

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
    series = _crossing({side: _series_of(coco) for side, coco in cocos.items()})
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


def _series_of(coco: Mapping[str, Any]) -> set[str]:
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
