"""From findings to what the report shows."""

import dataclasses

import numpy as np

from lungdet_mmdet.apis.candidate_files import candidate_records
from lungdet_mmdet.apis.report_scan import lung_outline, report_scan
from lungdet_mmdet.scoring.candidates import Candidate
from lungdet_mmdet.scoring.slab_records import SlabDetections


def test_boxes_carry_the_rank_of_their_candidate(findings):
    slab = findings.slab_geometries[3]
    sx = slab.spacing_xy_mm[0]
    # Box centre at (25, 35) in box coordinates: pixel centre 24.5 and 34.5.
    centre = np.array(slab.origin_xyz_mm) + [24.5 * sx, 34.5 * sx, 0.0]
    candidate = Candidate("s", tuple(centre.tolist()), 10 * sx, 0.8, slab.z_range_mm, (3,), 1)
    detections = [
        SlabDetections(g.index, np.zeros((0, 4)), np.zeros(0)) for g in findings.slab_geometries
    ]
    detections[3] = SlabDetections(
        3, np.array([[20.0, 30.0, 30.0, 40.0], [60.0, 60.0, 70.0, 70.0]]), np.array([0.8, 0.3])
    )
    found = dataclasses.replace(
        findings, candidates=(candidate,), detections=tuple(detections), threshold=0.5
    )
    shown = report_scan(found, candidate_records(found))
    assert [(b.score, b.rank) for b in shown.slabs[3].boxes] == [(0.8, 1), (0.3, 0)]
    assert shown.candidates[0].slab == 3
    assert set(shown.candidates[0].crops) == {"axial", "coronal", "sagittal"}
    assert shown.slabs[3].plain.shape == shown.slabs[3].image.shape
    facts = dict(shown.facts)
    assert facts["read from"] == "phantom.mhd"
    assert facts["model trained on"] == "nothing: random weights"


def test_the_outline_is_that_of_the_slabs_own_slices(findings):
    mask = np.zeros((6, 40, 40), dtype=np.uint8)
    mask[0:3, 5:15, 10:30] = 1
    mask[3:6, 20:30, 10:30] = 1
    slab = findings.slab_geometries[0]
    found = dataclasses.replace(findings, lung_mask=mask, lung_mask_z=np.arange(6.0))
    (line,) = lung_outline(found, dataclasses.replace(slab, z_range_mm=(-0.5, 2.5)))
    assert (line.min(axis=0).tolist(), line.max(axis=0).tolist()) == ([10, 5], [29, 14])
    both = lung_outline(found, dataclasses.replace(slab, z_range_mm=(1.5, 4.5)))
    assert len(both) == 2
    assert lung_outline(found, dataclasses.replace(slab, z_range_mm=(50.0, 60.0))) == []
