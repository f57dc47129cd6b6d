# SPDX-License-Identifier: Apache-2.0
"""The annotation file of a split: COCO json written, read and counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from pycocotools import mask as coco_mask

from lungdet_mmdet.annotations.tables import UNKNOWN_DIAMETER, Finding, Nodule
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import ANNOTATION_FOLDER, check_series_name
from lungdet_mmdet.scoring.slab_records import (
    NODULE_CATEGORY,
    Slab,
    SlabSet,
    TruthBox,
)
from lungdet_mmdet.splits.labels import LabelledSlab, SlabLabel, Status
from lungdet_mmdet.splits.prepared import centre_of
from lungdet_mmdet.splits.split_part import SplitPart

Read = TypeVar("Read", "CocoContent", SlabSet)
# Pixels and millimetres are written to a ten-thousandth: far below a voxel, and short to read.
_DIGITS = 4
_ELLIPSE_CORNERS = 32


def coco_of_part(
    part: SplitPart,
    *,
    info: Mapping[str, Any],
    excluded_are_ignored: bool = True,
    patients: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the COCO dictionary of a part.

    ``images`` are the slab records plus ``id``, ``seriesuid`` and ``slab_index``; ``annotations``
    carry the category 1 with ``iscrowd`` 1 for ignore regions, ``label`` ("mask" or "sphere") and,
    where any scan of the part has masks, ``segmentation`` (RLE; an ellipse for a sphere). Ids count
    from 1. Beyond COCO: ``series`` (all series of the part), ``failed_series``
    (those of them that could not be prepared), ``nodules`` (all nodules that count,
    unseen ones included), ``unseen_nodules`` (to be counted as missed), ``discarded_nodules`` (do
    not count: their slabs were left out for the positive rate, or are another part's),
    ``excluded`` (irrelevant findings, repeated readers' lines included) and ``patients`` where
    known.
    """
    with_masks = any(scan.scan.masks for scan in part.scans)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, slab in enumerate(part.slabs, start=1):
        images.append(_image(image_id, slab))
        geometry = slab.slab.geometry
        size = (geometry.height, geometry.width) if with_masks else None
        for label in slab.labels:
            annotations.append(_annotation(len(annotations) + 1, image_id, label, size))
    uids = [scan.seriesuid for scan in part.scans]
    return {
        "info": dict(info),
        "categories": [{"id": NODULE_CATEGORY, "name": "nodule"}],
        "images": images,
        "annotations": annotations,
        "series": uids,
        "failed_series": [scan.seriesuid for scan in part.scans if scan.scan.failure is not None],
        "patients": {uid: patients[uid] for uid in uids if uid in patients} if patients else {},
        "nodules": _counting_nodules(part),
        "unseen_nodules": [
            {**_nodule(unseen.nodule), "reason": unseen.reason} for unseen in part.unseen
        ],
        "discarded_nodules": [_nodule(nodule) for nodule in part.discarded_nodules],
        "excluded": [
            {
                "seriesuid": finding.seriesuid,
                "centre_xyz_mm": list(finding.centre_xyz_mm),
                "diameter_mm": finding.diameter_mm,
            }
            for scan in part.scans
            for finding in scan.scan.excluded
            if excluded_are_ignored
        ],
    }


def _image(image_id: int, slab: LabelledSlab) -> dict[str, Any]:
    index = slab.slab.geometry.index
    return {**slab.slab.fields, "id": image_id, "seriesuid": slab.seriesuid, "slab_index": index}


def _annotation(
    annotation_id: int, image_id: int, label: SlabLabel, size: tuple[int, int] | None
) -> dict[str, Any]:
    x0, y0, x1, y1 = label.box_xyxy_px
    width, height = x1 - x0, y1 - y0
    segmentation = {} if size is None else {"segmentation": _segmentation(label, size)}
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": NODULE_CATEGORY,
        "bbox": [round(value, _DIGITS) for value in (x0, y0, width, height)],
        "area": round(width * height, _DIGITS),
        "iscrowd": int(label.kind != "nodule"),
        "kind": label.kind,
        "nodule_id": label.nodule_id,
        "diameter_mm": label.diameter_mm,
        "overlap_mm": round(label.overlap_mm, _DIGITS),
        "label": label.source,
        **segmentation,
    }


def _segmentation(label: SlabLabel, size: tuple[int, int]) -> dict[str, Any]:
    """Return a label's run lengths: the mask's own, or those of the ellipse in a sphere's box."""
    if label.rle is not None:
        return {"size": list(size), "counts": label.rle}
    x0, y0, x1, y1 = label.box_xyxy_px
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    x = 0.5 * (x0 + x1 + (x1 - x0) * np.cos(angles))
    y = 0.5 * (y0 + y1 + (y1 - y0) * np.sin(angles))
    (rle,) = coco_mask.frPyObjects([np.column_stack([x, y]).ravel().tolist()], *size)
    return {"size": list(size), "counts": rle["counts"].decode("ascii")}


def _counting_nodules(part: SplitPart) -> list[dict[str, Any]]:
    counting = frozenset[str]().union(*(slab.nodule_ids for slab in part.slabs))
    counting |= {item.nodule.nodule_id for item in part.unseen}
    return [
        {
            **_nodule(nodule),
            "coverage": scan.scan.coverage.get(nodule.nodule_id),
            "label": "mask" if nodule.nodule_id in scan.scan.masks else "sphere",
            **_if_known("ratings", scan.scan.ratings.get(nodule.nodule_id)),
            **_if_known("location", scan.scan.locations.get(nodule.nodule_id)),
        }
        for scan in part.scans
        for nodule in scan.scan.nodules
        if nodule.nodule_id in counting
    ]


def _if_known(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if value else {}


def _nodule(nodule: Nodule) -> dict[str, Any]:
    return {
        "nodule_id": nodule.nodule_id,
        "seriesuid": nodule.seriesuid,
        "centre_xyz_mm": list(nodule.centre_xyz_mm),
        "diameter_mm": nodule.diameter_mm,
    }


class CocoContent(dict[str, Any]):
    """The parsed content of an annotation file; a plain dict cannot be shared while in use."""


def _shared_while_in_use(read: Callable[[Path], Read]) -> Callable[[str | Path], Read]:
    """Read a file once for all who hold the result, and let it go with the last of them.

    Data sets, metrics and reports of one run read the same file, which may hold a gigabyte. The
    result must not be changed. A file that was written anew is read anew.
    """
    held: WeakValueDictionary[tuple[int, ...], Read] = WeakValueDictionary()

    @wraps(read)
    def shared(path: str | Path) -> Read:
        path = Path(path)
        if not path.is_file():
            return read(path)
        file = path.stat()
        key = (file.st_dev, file.st_ino, file.st_mtime_ns, file.st_size)
        content = held.get(key)
        if content is None:
            content = held[key] = read(path)
        return content

    return shared


def split_command(path: str | Path) -> str:
    """Return the command line that writes such an annotation file again."""
    folder = Path(path).parent
    if folder.name == ANNOTATION_FOLDER:
        return f"lungdet split {folder.parent}"
    return f"lungdet split PREPARED_DIR --out {folder}"


@_shared_while_in_use
def read_coco(path: Path) -> CocoContent:
    """Read one of the annotation files.

    Raises
    ------
    LungDetError
        If it is missing, no JSON, or not a file written by ``lungdet split``.
    """
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LungDetError(
            f"{path}: no such file; write the splits with `{split_command(path)}`"
        ) from None
    except (OSError, ValueError) as error:
        raise LungDetError(
            f"{path}: cannot be read as JSON ({error}); make the splits again"
        ) from None
    if not isinstance(coco, dict):
        raise LungDetError(f"{path}: holds a {type(coco).__name__}; make the splits again")
    for image in coco.get("images", ()):
        check_slab_image(image, source=str(path))
    missing = {"info", "images", "annotations", "series", "nodules"} - set(coco)
    if missing:
        raise LungDetError(
            f"{path}: lacks {', '.join(sorted(missing))}; make the splits again with "
            "`lungdet split`"
        )
    return CocoContent(coco)


@_shared_while_in_use
def read_slab_set(path: Path) -> SlabSet:
    """Read one of the annotation files as records, for scoring.

    Raises
    ------
    LungDetError
        As ``read_coco``, and when an image or annotation lacks a field.
    """
    coco = read_coco(path)
    try:
        return slab_set_from_coco(coco)
    except (KeyError, TypeError, ValueError) as error:
        raise LungDetError(
            f"{path}: an image or annotation has a missing or unusable field ({error}); make the "
            "splits again with this version of the package"
        ) from error


def slab_set_from_coco(content: Mapping[str, Any]) -> SlabSet:
    """Build a slab set from the parsed COCO json of one split."""
    boxes: dict[int, list[TruthBox]] = {}
    for annotation in content["annotations"]:
        is_ignored = bool(annotation.get("iscrowd", 0))
        x, y, width, height = (float(value) for value in annotation["bbox"])
        box = TruthBox(
            bbox_xywh_px=(x, y, width, height),
            diameter_mm=float(annotation["diameter_mm"]),
            is_ignored=is_ignored,
            kind=annotation.get("kind") or ("grazed" if is_ignored else "nodule"),
            nodule_id=str(annotation.get("nodule_id") or ""),
            rle=annotation.get("segmentation"),
        )
        boxes.setdefault(annotation["image_id"], []).append(box)
    slabs = {
        image["id"]: _slab_of(image, boxes.get(image["id"], ())) for image in content["images"]
    }
    of_slabs = sorted({slab.seriesuid for slab in slabs.values()})
    return SlabSet(
        slabs=slabs,
        series=tuple(dict.fromkeys([*content.get("series", ()), *of_slabs])),
        nodules=tuple(_nodule_of(item) for item in content.get("nodules", ())),
        excluded=tuple(_finding_of(item) for item in content.get("excluded", ())),
        discarded=tuple(_nodule_of(item) for item in content.get("discarded_nodules", ())),
        unseen=tuple(_nodule_of(item) for item in content.get("unseen_nodules", ())),
        failed=tuple(content.get("failed_series", ())),
        info=content.get("info", {}),
        ratings={
            str(item["nodule_id"]): dict(item["ratings"])
            for item in content.get("nodules", ())
            if item.get("ratings")
        },
        locations={
            str(item["nodule_id"]): str(item["location"])
            for item in content.get("nodules", ())
            if item.get("location")
        },
    )


def _slab_of(image: Mapping[str, Any], boxes: Sequence[TruthBox]) -> Slab:
    return Slab(
        img_id=image["id"],
        seriesuid=image["seriesuid"],
        geometry=SlabGeometry.from_record(image),
        boxes=tuple(boxes),
        depth_file_name=str(image.get("depth_file_name") or ""),
    )


def _nodule_of(item: Mapping[str, Any]) -> Nodule:
    return Nodule(
        str(item["nodule_id"]), item["seriesuid"], centre_of(item), float(item["diameter_mm"])
    )


def _finding_of(item: Mapping[str, Any]) -> Finding:
    diameter_mm = item.get("diameter_mm")
    known = UNKNOWN_DIAMETER if diameter_mm is None else float(diameter_mm)
    return Finding(item["seriesuid"], centre_of(item), known)


def check_slab_image(image: Mapping[str, Any], *, source: str) -> None:
    """Refuse a slab whose series or file leads out of the prepared folder.

    Raises
    ------
    LungDetError
        Naming `source` and the value.
    """
    uid = check_series_name(str(image.get("seriesuid", "")), source=source)
    for key in ("file_name", "depth_file_name"):
        name = str(image.get(key) or f"{uid}/")
        if PurePosixPath(name).parts[:-1] != (uid,) and name != f"{uid}/":
            raise LungDetError(
                f"{source}: the image {name!r} of series {uid} is not in the series' own folder; "
                "make the splits again with `lungdet split`"
            )


def slab_statuses(coco: Mapping[str, Any]) -> list[Status]:
    """Return "positive", "ignored" or "healthy" for every image, in the order of ``images``.

    Only healthy slabs may be counted or drawn as such; ignored ones hold nothing but ignore
    regions.
    """
    status: dict[int, Status] = {image["id"]: "healthy" for image in coco["images"]}
    for annotation in coco["annotations"]:
        image_id = annotation["image_id"]
        if not annotation["iscrowd"]:
            status[image_id] = "positive"
        elif status[image_id] == "healthy":
            status[image_id] = "ignored"
    return [status[image["id"]] for image in coco["images"]]
