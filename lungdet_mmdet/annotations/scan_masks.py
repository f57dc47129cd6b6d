# SPDX-License-Identifier: Apache-2.0
"""The nodule mask of one scan: found, read, checked against the scan, matched to the table.

What is wrong with a mask never costs the scan: a flag says it, and the table's spheres remain.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lungdet_mmdet.annotations.lidc import RATINGS
from lungdet_mmdet.annotations.mask_nodules import (
    LabelledNodule,
    common_shift_mm,
    match_to_table,
    nodules_of_labels,
    slab_masks,
)
from lungdet_mmdet.annotations.tables import Nodule, read_csv_rows
from lungdet_mmdet.ct.geometry import FileGrid, ScanGeometry, place_problem
from lungdet_mmdet.ct.reading import read_volume, scan_suffix
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.runs.files import MASK_FOLDER, PATIENT_TABLE, RATING_TABLE, search_files

DICOM_SUFFIX = ".dcm"


def label_suffix(path: Path) -> str:
    """Return the known suffix of a label volume (".nii.gz" counts as one), or "" if none."""
    return DICOM_SUFFIX if path.name.lower().endswith(DICOM_SUFFIX) else scan_suffix(path)


def read_labels(path: Path) -> tuple[np.ndarray, ScanGeometry]:
    """Read a label volume: a MetaImage, NRRD or NIfTI file, or a DICOM segmentation.

    Returns
    -------
    labels : integer array (z, y, x) as stored; 0 is nothing. Segments of a DICOM segmentation have
        their segment numbers.
    geometry : its grid.

    Raises
    ------
    LungDetError
        If the file is damaged, or its values are not whole numbers.
    """
    if label_suffix(path) == DICOM_SUFFIX:
        return _read_dicom_seg(path)
    values, geometry = read_volume(path)
    if np.issubdtype(values.dtype, np.floating):
        whole = np.rint(values)
        if not np.array_equal(whole, values):
            odd = values[whole != values]
            raise LungDetError(
                f"{path}: {odd.size} values are not whole numbers, e.g. {float(odd[0]):g}; labels "
                "are 0, 1, 2, ...: threshold probabilities first, and store integers"
            )
        values = whole.astype(np.int32)
    return values, geometry


def referenced_series(path: Path) -> str:
    """Return the UID of the series that a DICOM segmentation was made on.

    Raises LungDetError if the file is no DICOM segmentation, or names no series.
    """
    _check_packages()
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, OSError) as error:
        raise LungDetError(
            f"{path}: cannot be read as DICOM ({error}); copy the segmentation again"
        ) from None
    series = header.get("ReferencedSeriesSequence")
    if header.get("Modality") != "SEG" or not series:
        raise LungDetError(
            f"{path}: Modality is {header.get('Modality')!r} and {len(series or ())} series are "
            "referenced; a DICOM segmentation (SEG) of one series is needed"
        )
    return str(series[0].SeriesInstanceUID)


def _check_packages() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("highdicom", "pydicom")):
        raise LungDetError("DICOM segmentations need highdicom: pip install 'lungdet-mmdet[dicom]'")


def _read_dicom_seg(path: Path) -> tuple[np.ndarray, ScanGeometry]:
    _check_packages()
    import highdicom as hd

    try:
        volume = hd.seg.segread(path).get_volume(combine_segments=True)
    # highdicom has no error of its own: what is wrong in a file comes out as any of these.
    except (ValueError, RuntimeError, TypeError, AttributeError, KeyError, OSError) as error:
        raise LungDetError(
            f"{path}: cannot be read as a DICOM segmentation on a regular grid ({error}); export "
            "it again, without overlapping segments"
        ) from error
    # highdicom's axes are those of the array; here the columns are x, y, z.
    grid = FileGrid(
        size_zyx=volume.spatial_shape,
        spacing_xyz_mm=np.array(volume.spacing)[::-1],
        origin_xyz_mm=np.array(volume.position),
        axes_xyz=np.asarray(volume.direction)[:, ::-1],
    )
    return np.asarray(volume.array), grid.upright(source=str(path))


# Centres this much of the diameter apart are of one nodule, but worth a look.
_FAR_SHARE = 0.25
_FAR_MM = 3.0

Ratings = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class NoduleMaskFolder:
    """A folder of nodule masks.

    Parameters
    ----------
    root : the folder.
    files : the mask of each series.
    ratings : by series UID and label, from ``nodules.csv`` where it is there.
    patients : ``patients.csv``, where it is there.
    warnings : files that could not be used.
    """

    root: Path
    files: Mapping[str, Path]
    ratings: Mapping[str, Ratings] = field(default_factory=dict)
    patients: Path | None = None
    warnings: tuple[str, ...] = ()


def read_mask_folder(root: Path) -> NoduleMaskFolder:
    """Find the masks ``UID.mha`` (``.mhd``, ``.nrrd``, ``.nii``, ``.nii.gz``) or ``*.dcm``.

    They lie in the folder itself or in ``masks/``, as ``lungdet lidc-labels`` writes them. DICOM
    segmentations say by themselves which series they belong to. Raises LungDetError if the folder
    is missing or holds no mask, or a series has two.
    """
    root = Path(root)
    if not root.is_dir():
        raise LungDetError(f"{root}: no such folder; name the folder with the nodule masks")
    place = root / MASK_FOLDER if (root / MASK_FOLDER).is_dir() else root
    files: dict[str, Path] = {}
    search = search_files(place)
    warnings = search.notes()
    for path in sorted(search.files):
        suffix = label_suffix(path)
        if not suffix or not path.is_file():
            continue
        try:
            is_dicom = suffix == DICOM_SUFFIX
            uid = referenced_series(path) if is_dicom else path.name[: -len(suffix)]
        except LungDetError as error:
            warnings.append(str(error))
            continue
        uid = printable(uid)
        if uid in files:
            raise LungDetError(
                f"{place}: series {uid} has two nodule masks, {files[uid].name} and {path.name}; "
                "remove one"
            )
        files[uid] = path
    if not files:
        raise LungDetError(
            f"{place}: no nodule mask (UID.mha, .mhd, .nrrd, .nii, .nii.gz, or DICOM segmentations "
            "*.dcm); name the folder that holds them"
        )
    table, patients = root / RATING_TABLE, root / PATIENT_TABLE
    return NoduleMaskFolder(
        root=root,
        files=files,
        ratings=read_ratings(table) if table.is_file() else {},
        patients=patients if patients.is_file() else None,
        warnings=tuple(warnings),
    )


def read_ratings(path: Path) -> dict[str, dict[int, dict[str, float]]]:
    """Read the readers' mean ratings of ``nodules.csv``, by series UID and label.

    Blank ratings are absent.
    """
    rows = read_csv_rows(path)
    found: dict[str, dict[int, dict[str, float]]] = {}
    columns = ("seriesuid", "label", "readers", *RATINGS)
    for number, (uid, label, readers, *values) in rows.records(columns):
        ratings = {
            name: rows.number(text, number, name)
            for name, text in zip(RATINGS, values, strict=True)
            if text
        }
        if readers:
            ratings["readers"] = rows.number(readers, number, "readers")
        found.setdefault(uid, {})[int(rows.number(label, number, "label"))] = ratings
    return found


@dataclass(frozen=True)
class ScanMasks:
    """The usable nodules of a scan's mask.

    Parameters
    ----------
    geometry : grid of the mask.
    of_table : by id of the table's nodule.
    others : nodules that only the mask has, with the ids and spheres they get.
    flags : what was wrong or odd.
    """

    geometry: ScanGeometry | None = None
    of_table: Mapping[str, LabelledNodule] = field(default_factory=dict)
    others: tuple[tuple[Nodule, LabelledNodule], ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def labelled(self) -> list[LabelledNodule]:
        """Every nodule of the mask."""
        return [*self.of_table.values(), *(found for _, found in self.others)]


def masks_of_scan(
    path: Path,
    scan_geometry: ScanGeometry,
    table: Sequence[Nodule],
    *,
    seriesuid: str,
    ratings: Ratings | None = None,
) -> ScanMasks:
    """Read a scan's mask; one that cannot be used gives a flag and nothing else.

    Parameters
    ----------
    path : of the mask.
    scan_geometry : grid of the scan as stored.
    table : the table's nodules of the scan.
    seriesuid : for the ids of nodules that only the mask has.
    ratings : by label; where there are some, each value is one nodule, in one piece or not.
    """
    try:
        labels, geometry = read_labels(path)
        problem = place_problem(geometry, scan_geometry, source=str(path))
        if problem is not None:
            raise LungDetError(problem)
        labelled = nodules_of_labels(
            labels, geometry, source=str(path), one_per_value=bool(ratings)
        )
        if (shift := common_shift_mm(table, labelled)) is not None:
            raise LungDetError(
                f"{path}: its nodules lie ({', '.join(f'{v:.1f}' for v in shift)}) mm off those of "
                "the table; correct the mask's origin, or write it again on the scan's grid"
            )
        matched, nearest_mm = match_to_table(table, labelled)
        if table and labelled and not matched:
            raise LungDetError(
                f"{path}: none of its {len(labelled)} nodules lies at one of the table's "
                f"{len(table)}; the nearest is {nearest_mm:.1f} mm away. Check the mask's origin "
                "and axes"
            )
    except LungDetError as error:
        return ScanMasks(flags=(f"nodule mask not used: {error}",))
    return ScanMasks(
        geometry,
        matched,
        tuple(_only_in_mask(seriesuid, labelled, matched)),
        tuple(_flags(path, scan_geometry, geometry, table, labelled, matched)),
    )


def _only_in_mask(
    uid: str, labelled: Sequence[LabelledNodule], matched: Mapping[str, LabelledNodule]
) -> list[tuple[Nodule, LabelledNodule]]:
    known = {found.label for found in matched.values()}
    return [
        (Nodule(f"{uid}/mask{found.label}", uid, found.centre_xyz_mm, found.diameter_mm), found)
        for found in labelled
        if found.label not in known
    ]


def _flags(
    path: Path,
    scan_geometry: ScanGeometry,
    geometry: ScanGeometry,
    table: Sequence[Nodule],
    labelled: Sequence[LabelledNodule],
    matched: Mapping[str, LabelledNodule],
) -> list[str]:
    name = path.name
    if not labelled:
        return [f"nodule mask {name} is empty: the table's spheres are used; give the labels anew"]
    flags = []
    if geometry.size_zyx != scan_geometry.size_zyx:
        flags.append(
            f"nodule mask {name} has {geometry.size_zyx} voxels, the scan "
            f"{scan_geometry.size_zyx}: resampled"
        )
    flags += [
        f"nodule mask {name}: label {found.label} is in {found.components} parts"
        for found in labelled
        if found.components > 1
    ]
    others = len(labelled) - len(matched)
    if table and others:
        flags.append(f"nodule mask {name}: {others} nodules are not in the table and count")
    if missing := [n.nodule_id for n in table if n.nodule_id not in matched]:
        flags.append(
            f"nodule mask {name}: {len(missing)} of the table's {len(table)} nodules have no mask"
        )
    for nodule in table:
        if (mask := matched.get(nodule.nodule_id)) is None:
            continue
        away = float(np.linalg.norm(np.subtract(mask.centre_xyz_mm, nodule.centre_xyz_mm)))
        if away > max(_FAR_MM, _FAR_SHARE * nodule.diameter_mm):
            flags.append(
                f"nodule mask {name}: label {mask.label} lies {away:.1f} mm from the table's "
                f"{nodule.diameter_mm:.1f} mm nodule: look at it, and mend the mask or the table"
            )
    return flags


def mask_record(
    found: LabelledNodule,
    geometry: ScanGeometry,
    target: ScanGeometry,
    slabs: Sequence[SlabGeometry],
    ratings: Ratings,
) -> dict[str, Any]:
    """Return what a scan's record keeps of one nodule's mask, as plain JSON values."""
    record: dict[str, Any] = {
        "label": found.label,
        "centre_xyz_mm": [round(value, 3) for value in found.centre_xyz_mm],
        "diameter_mm": round(found.diameter_mm, 3),
        "slabs": [
            asdict(slab)
            | {
                "overlap_mm": round(slab.overlap_mm, 4),
                "box_xyxy_px": list(slab.box_xyxy_px),
                "visible_share": round(slab.visible_share, 4),
            }
            for slab in slab_masks(found, geometry, target, slabs)
        ],
    }
    if found.label in ratings:
        record["ratings"] = dict(ratings[found.label])
    return record
