"""From findings to what the report shows."""

import dataclasses

import numpy as np

from lungdet_mmdet.apis.candidate_files import candidate_records
from lungdet_mmdet.apis.scan_results import lung_outline, report_scan
from lungdet_mmdet.scoring.candidates import Candidate, merge_slab_detections
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections


def found_with(findings, boxes_of_slab, threshold=0.5):
    """Findings with these boxes (corners, score) by slab, merged as the detector does."""
    detections = [
        SlabDetections(
            g.index,
            np.array([b for b, _ in boxes_of_slab.get(g.index, [])], float).reshape(-1, 4),
            np.array([s for _, s in boxes_of_slab.get(g.index, [])], float),
        )
        for g in findings.slab_geometries
    ]
    slabs = [Slab(g.index, "s", g) for g in findings.slab_geometries]
    joined = []
    candidates = merge_slab_detections(slabs, detections, joined=joined)
    return dataclasses.replace(
        findings, candidates=tuple(candidates), detections=tuple(detections), joined=tuple(joined),
        threshold=threshold,
    )  # fmt: skip


def test_boxes_carry_the_rank_of_the_candidate_they_were_joined_to(findings):
    here = [20.0, 30.0, 30.0, 40.0]
    found = found_with(
        findings,
        {
            2: [(here, 0.66)],
            3: [(here, 0.8), ([21.0, 30.0, 31.0, 40.0], 0.1), ([60, 60, 70, 70], 0.03)],
        },
    )
    records = candidate_records(found)
    shown = report_scan(found, records, name="s")
    boxes = {i: [(b.score, b.rank) for b in slab.boxes] for i, slab in enumerate(shown.slabs)}
    assert boxes.pop(2) == [(0.66, 1)]
    # The better of two boxes of one candidate; nothing is too faint for the page.
    assert boxes.pop(3) == [(0.8, 1), (0.03, 2)]
    assert not any(boxes.values())
    assert [c.score for c in shown.candidates] == [r["score"] for r in records] == [0.8, 0.03]
    assert [c.is_positive for c in shown.candidates] == [True, False]
    assert set(shown.candidates[0].crops) == {"axial", "coronal", "sagittal"}
    facts = dict(shown.facts)
    assert facts["read from"] == "phantom.mhd"
    assert facts["model trained on"] == "nothing: random weights"


def test_the_page_has_every_slice_under_its_number_in_the_file(findings):
    scan = findings.scan
    n = scan.geometry.size_zyx[0]
    shown = report_scan(findings, candidate_records(findings))
    assert len(shown.slices.jpegs) == n
    assert list(shown.slices.file_slices) == list(range(n))
    # The file's slices run downwards.
    top = scan.geometry.voxel_to_world((n - 1, 0, 0))
    direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    turned = dataclasses.replace(
        scan.geometry, origin_xyz_mm=tuple(top.tolist()), direction=direction
    )
    found = dataclasses.replace(findings, scan=dataclasses.replace(scan, file_geometry=turned))
    shown = report_scan(found, candidate_records(found))
    assert list(shown.slices.file_slices) == list(range(n))[::-1]
    assert report_scan(found, candidate_records(found), with_slices=False).slices is None


def test_candidates_lie_where_the_page_draws_them(findings):
    grid = findings.scan.geometry
    point = grid.voxel_to_world((4.0, 10.0, 20.0))
    candidate = Candidate("s", tuple(point.tolist()), 8.0, 0.9, (0.0, 1.0), (2,), 1)
    found = dataclasses.replace(findings, candidates=(candidate,), joined=())
    (shown,) = report_scan(found, candidate_records(found)).candidates
    assert np.allclose(shown.at_xyz, (20.0, 10.0, 4.0), atol=1e-3)


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
