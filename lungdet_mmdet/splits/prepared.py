# SPDX-License-Identifier: Apache-2.0
"""A prepared folder as values: the record ``scan.json`` of every scan, and the failed scans."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lungdet_mmdet.annotations.mask_nodules import SlabMask
from lungdet_mmdet.annotations.tables import Finding, Nodule
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import (
    FAILURES_NAME,
    RECORD_NAME,
    SLAB_FOLDER,
    check_series_name,
    is_phantom_uid,
    is_semireal_uid,
)
from lungdet_mmdet.runs.scan_runs import MISNAMED

# Root of the series UIDs of LIDC-IDRI, of which LUNA16 is a part.
LIDC_UID_ROOT = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
MADE_UP = ("phantom", "semi-real")
"""Names of data that show no patient as he was."""
PATIENTS = ("LUNA16", "CT scans")
NOT_PATIENTS = "not trained on patients"
"""How a flag begins that says so of a model."""


# There while scans are prepared again; left behind where that was interrupted.
UNFINISHED_NAME = "unfinished.json"


def check_finished(folder: Path) -> None:
    """Refuse a prepared folder in which some scans are of one pipeline and some of another.

    Raises
    ------
    LungDetError
        Naming the command that goes on.
    """
    if (folder / UNFINISHED_NAME).is_file():
        raise LungDetError(
            f"{folder}: its scans were being prepared again when the run ended early, so that some "
            "are of the pipeline before and some of the new one; run the "
            "same `lungdet prepare` again to its end"
        )


@dataclass(frozen=True)
class PreparedSlab:
    """One slab image: its geometry, and its record as it stands in ``scan.json``."""

    geometry: SlabGeometry
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class PreparedScan:
    """One prepared scan.

    Parameters
    ----------
    seriesuid : series UID.
    subset : official LUNA16 subset 0-9, or None.
    slabs : in the order of their index.
    nodules, excluded : annotated nodules and irrelevant findings.
    coverage : share of each nodule inside the lung mask, by nodule id, where it is known.
    failure : why the scan could not be prepared; such a scan has no slabs.
    masks : what each nodule's mask shows on the slabs, by nodule id, of those that have one.
    only_in_mask : ids of nodules that no table has.
    ratings : readers' mean ratings by nodule id, where they are known.
    locations : "isolated", "pleural" or "vascular" by nodule id, where a mask told.
    """

    seriesuid: str
    subset: int | None
    slabs: tuple[PreparedSlab, ...]
    nodules: tuple[Nodule, ...]
    excluded: tuple[Finding, ...]
    coverage: Mapping[str, float]
    failure: str | None = None
    masks: Mapping[str, tuple[SlabMask, ...]] = field(default_factory=dict)
    only_in_mask: frozenset[str] = frozenset()
    ratings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    locations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedCohort:
    """All scans of a prepared folder, sorted by series UID.

    ``data`` says what the scans are, see ``data_name``.
    """

    folder: Path
    scans: tuple[PreparedScan, ...]
    data: str
    warnings: tuple[str, ...] = ()


def read_prepared(folder: str | Path) -> PreparedCohort:
    """Read the prepared scans of a folder.

    Scans listed in ``failures.json`` come as scans without slabs: where the record carries their
    nodules, these are counted as unseen rather than forgotten.

    Raises
    ------
    LungDetError
        If nothing is prepared there, a record is damaged, or an image it names is missing.
    """
    folder = Path(folder)
    root = folder / SLAB_FOLDER
    if not root.is_dir():
        raise LungDetError(
            f"{folder}: holds no prepared scans (no folder {SLAB_FOLDER!r}); prepare them first "
            f"with `lungdet prepare LUNA16_DIR {folder}`"
        )
    check_finished(folder)
    scans: dict[str, PreparedScan] = {}
    unfinished = []
    for directory in sorted(root.iterdir()):
        # Hidden folders are scans in the making.
        if not directory.is_dir() or directory.name.startswith("."):
            continue
        record = directory / RECORD_NAME
        if record.is_file():
            scan = _read_scan(record)
            if scan.seriesuid != directory.name:
                raise LungDetError(
                    f"{record}: is the record of {scan.seriesuid}, in the folder of another scan; "
                    "delete the folder and prepare the scan again"
                )
            _check_images(scan, record)
            scans[scan.seriesuid] = scan
        else:
            unfinished.append(directory.name)
    for failed in _read_failures(folder / FAILURES_NAME):
        # Slabs of an earlier, successful preparation are out of date.
        scans[failed.seriesuid] = failed
    if not any(scan.slabs for scan in scans.values()):
        raise LungDetError(
            f"{root}: no scan has been prepared to the end; run `lungdet prepare` again "
            f"and look at {FAILURES_NAME}"
        )
    warnings: tuple[str, ...] = ()
    if unfinished:
        warnings = (f"{len(unfinished)} unfinished scans left out: {', '.join(unfinished[:5])}",)
    ordered = tuple(scans[uid] for uid in sorted(scans))
    return PreparedCohort(folder, ordered, data_name(tuple(scans)), warnings)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LungDetError(
            f"{path}: cannot be read as JSON ({error}); delete it and prepare again"
        ) from None


def _read_scan(path: Path) -> PreparedScan:
    record = _read_json(path)
    try:
        slabs = tuple(
            PreparedSlab(SlabGeometry.from_record(fields), fields)
            for fields in sorted(record["slabs"], key=lambda fields: fields["index"])
        )
        return _scan_of_record(record, slabs=slabs, failure=None)
    except (KeyError, TypeError, ValueError, LungDetError) as error:
        raise LungDetError(
            f"{path}: is not a complete scan record ({type(error).__name__}: {error}); delete the "
            "scan's folder and prepare it again"
        ) from error


def _scan_of_record(
    record: Mapping[str, Any], *, slabs: tuple[PreparedSlab, ...], failure: str | None
) -> PreparedScan:
    uid = check_series_name(str(record["seriesuid"]), source="its seriesuid")
    nodules, coverage = [], {}
    masks: dict[str, tuple[SlabMask, ...]] = {}
    ratings: dict[str, Mapping[str, Any]] = {}
    locations: dict[str, str] = {}
    only_in_mask = set()
    for number, fields in enumerate(record.get("nodules") or ()):
        nodule_id = str(fields.get("nodule_id", f"{uid}/{number}"))
        nodules.append(Nodule(nodule_id, uid, centre_of(fields), float(fields["diameter_mm"])))
        if fields.get("coverage") is not None:
            coverage[nodule_id] = float(fields["coverage"])
        if (mask := fields.get("mask")) is not None:
            masks[nodule_id] = tuple(_slab_mask(slab) for slab in mask["slabs"])
            if mask.get("ratings"):
                ratings[nodule_id] = dict(mask["ratings"])
            if mask.get("location"):
                locations[nodule_id] = str(mask["location"])
        if fields.get("only_in_mask"):
            only_in_mask.add(nodule_id)
    excluded = tuple(
        Finding(uid, centre_of(fields), float(fields.get("diameter_mm", -1)))
        for fields in record.get("excluded") or ()
    )
    subset = record.get("subset")
    subset = None if subset is None else int(subset)
    return PreparedScan(
        uid,
        subset,
        slabs,
        tuple(nodules),
        excluded,
        coverage,
        failure,
        masks,
        frozenset(only_in_mask),
        ratings,
        locations,
    )


def _slab_mask(fields: Mapping[str, Any]) -> SlabMask:
    x0, y0, x1, y1 = (float(value) for value in fields["box_xyxy_px"])
    return SlabMask(
        index=int(fields["index"]),
        overlap_mm=float(fields["overlap_mm"]),
        box_xyxy_px=(x0, y0, x1, y1),
        visible_share=float(fields["visible_share"]),
        rle=str(fields["rle"]),
        cuts_middle=bool(fields["cuts_middle"]),
    )


def centre_of(fields: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the centre of a nodule or finding as records and annotation files have it."""
    x, y, z = (float(value) for value in fields["centre_xyz_mm"])
    return x, y, z


def _check_images(scan: PreparedScan, record: Path) -> None:
    """Refuse a record that names images which are not in its own folder."""
    present = {f"{scan.seriesuid}/{path.name}" for path in record.parent.iterdir()}
    for slab in scan.slabs:
        name = slab.fields.get("file_name")
        if name not in present:
            raise LungDetError(
                f"{record}: names the image {name}, which is not in {record.parent}; delete the "
                "scan's folder and prepare it again"
            )


def _read_failures(path: Path) -> list[PreparedScan]:
    if not path.is_file():
        return []
    content = _read_json(path)
    records = content.get("failures", []) if isinstance(content, dict) else content
    failed = []
    for record in records:
        if record.get("stage") == MISNAMED:
            continue
        reason = f"preparation failed ({record.get('stage')}: {record.get('reason')})"
        failed.append(_scan_of_record(record, slabs=(), failure=reason))
    return failed


def data_name(seriesuids: Collection[str]) -> str:
    """Return what the scans are, by their UIDs, for every number that is printed of them.

    "phantom", "semi-real", "LUNA16" (series of LIDC-IDRI), "CT scans" (any others), or several
    joined by "and".
    """
    kinds = dict.fromkeys((*MADE_UP, *PATIENTS), 0)
    for uid in seriesuids:
        if is_phantom_uid(uid):
            kinds["phantom"] += 1
        elif is_semireal_uid(uid):
            kinds["semi-real"] += 1
        elif uid.startswith(LIDC_UID_ROOT):
            kinds["LUNA16"] += 1
        else:
            kinds["CT scans"] += 1
    return " and ".join(kind for kind, count in kinds.items() if count)


def training_flag(trained_on: str, seriesuid: str) -> str:
    """Return what to say of a model that looks at a patient and has learnt from anything else.

    Parameters
    ----------
    trained_on : what the model says of its data, as :func:`data_name` gives it.
    seriesuid : the scan; of a made-up one nothing needs to be said, and "" is returned.
    """
    if data_name([seriesuid]) in MADE_UP or set(trained_on.split(" and ")) <= set(PATIENTS):
        return ""
    return (
        f"{NOT_PATIENTS} as they are: the model was trained on {trained_on} data; its scores say "
        "nothing about a patient"
    )
