"""Phantoms with nodule masks, prepared: they know the truth."""

import json
import shutil

import numpy as np
import pytest

from lungdet_mmdet.annotations.mask_nodules import LOCATIONS
from lungdet_mmdet.annotations.scan_masks import read_labels
from lungdet_mmdet.ct.scan import write_mha
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.prep_pipeline import (
    PrepareJob,
    prep_steps,
    read_record,
    why_not_current,
)
from lungdet_mmdet.preparation.scan_job import prepare_scan
from lungdet_mmdet.splits.coco_json import read_slab_set
from lungdet_mmdet.splits.prepared import read_prepared


def painted_edges_mm(labels, geometry, label, faces_mm):
    """World x and y at which the painted voxels between two faces begin and end."""
    places = geometry.voxel_to_world(np.argwhere(labels == label))
    half_z = 0.5 * geometry.spacing_zyx_mm[0]
    held = (places[:, 2] + half_z > faces_mm[0] + 1e-6) & (
        places[:, 2] - half_z < faces_mm[1] - 1e-6
    )
    half = 0.5 * geometry.spacing_xyz_mm[:2]
    return places[held, :2].min(axis=0) - half, places[held, :2].max(axis=0) + half


def test_boxes_of_masks_meet_the_painted_nodules_to_half_a_pixel(prepared_phantoms):
    folder = read_luna16_folder(prepared_phantoms.luna16_dir)
    prepared = {
        scan.seriesuid: scan for scan in read_prepared(prepared_phantoms.prepared_dir).scans
    }
    off_px, checked = [], 0
    for scan in folder.scans:
        if scan.nodule_mask_path is None:
            continue
        labels, geometry = read_labels(scan.nodule_mask_path)
        record = prepared[scan.seriesuid]
        for number, nodule in enumerate(record.nodules, start=1):
            for mask in record.masks[nodule.nodule_id]:
                slab = record.slabs[mask.index].geometry
                if mask.overlap_mm < 7.5 or mask.visible_share < 1:
                    # Where a nodule ends, half a slice of depth decides what is in the slab.
                    continue
                low, high = painted_edges_mm(labels, geometry, number, slab.z_range_mm)
                origin, spacing = np.array(slab.origin_xyz_mm[:2]), np.array(slab.spacing_xy_mm)
                edges = [*((low - origin) / spacing + 0.5), *((high - origin) / spacing + 0.5)]
                off_px.append(np.abs(np.subtract(mask.box_xyxy_px, edges)).max())
                checked += 1
    assert checked >= 3
    assert max(off_px) <= 0.5 + 1e-6


def test_every_nodule_of_a_phantom_has_its_own_mask(prepared_phantoms):
    for scan in read_prepared(prepared_phantoms.prepared_dir).scans:
        assert set(scan.masks) == {nodule.nodule_id for nodule in scan.nodules}
        assert not scan.only_in_mask


def test_where_every_masked_nodule_sits_reaches_the_splits(prepared_phantoms):
    scans = read_prepared(prepared_phantoms.prepared_dir).scans
    known = {nodule_id: place for scan in scans for nodule_id, place in scan.locations.items()}
    assert set(known) == {nodule.nodule_id for scan in scans for nodule in scan.nodules}
    assert set(known.values()) <= set(LOCATIONS)
    in_splits = {}
    for part in ("train", "val", "test"):
        path = prepared_phantoms.prepared_dir / "annotations" / f"{part}.json"
        in_splits |= read_slab_set(path).locations
    assert in_splits
    assert in_splits.items() <= known.items()


@pytest.fixture
def one_scan(prepared_phantoms, tmp_path):
    """A copy of one phantom with nodules, and the folder's tables."""
    source = read_luna16_folder(prepared_phantoms.luna16_dir)
    scan = next(scan for scan in source.scans if scan.nodules)
    root = tmp_path / "luna16"
    (root / "subset0").mkdir(parents=True)
    for path in scan.path.parent.glob(f"{scan.seriesuid}.*"):
        shutil.copy(path, root / "subset0")
    shutil.copy(prepared_phantoms.luna16_dir / "annotations.csv", root)
    (root / "nodule_masks").mkdir()
    shutil.copy(scan.nodule_mask_path, root / "nodule_masks")
    return root


@pytest.fixture
def steps(repository):
    from mmengine.config import Config

    path = repository / "configs" / "_base_" / "prep_luna16.py"
    return prep_steps(Config.fromfile(path), source=str(path))


def test_masks_beside_the_scans_are_no_scans(one_scan):
    folder = read_luna16_folder(one_scan)
    (scan,) = folder.scans
    assert scan.nodule_mask_path.parent.name == "nodule_masks"
    assert any("1 of 1 scans have one" in note for note in folder.warnings)


def test_a_wrong_mask_costs_a_flag_and_not_the_scan(one_scan, steps, tmp_path):
    (scan,) = read_luna16_folder(one_scan).scans
    labels, geometry = read_labels(scan.nodule_mask_path)
    write_mha(one_scan / "nodule_masks", scan.seriesuid, 0.3 * labels, geometry)
    job = PrepareJob(scan, tmp_path / "out", steps)
    prepare_scan(job)
    record = json.loads((job.folder / "scan.json").read_text())
    assert any(flag.startswith("nodule mask not used: ") for flag in record["flags"])
    assert all("mask" not in nodule for nodule in record["nodules"])
    assert why_not_current(job, read_record(job.folder)) == []
    write_mha(one_scan / "nodule_masks", scan.seriesuid, labels, geometry)
    assert why_not_current(job, read_record(job.folder)) == ["its nodule mask changed"]


def test_masks_alone_are_a_table(one_scan):
    (one_scan / "annotations.csv").unlink()
    (scan,) = read_luna16_folder(one_scan).scans
    assert scan.nodules == ()
    shutil.rmtree(one_scan / "nodule_masks")
    with pytest.raises(LungDetError, match=r"annotations\.csv is missing"):
        read_luna16_folder(one_scan)
