import json
import re
import weakref

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_json
from lungdet_mmdet.scoring.slab_records import count_by_band
from lungdet_mmdet.splits.coco_checks import summarise
from lungdet_mmdet.splits.coco_json import coco_of_part, read_coco, read_slab_set, slab_statuses
from lungdet_mmdet.splits.labels import label_scan
from lungdet_mmdet.splits.split_part import RateRule, part_of_scans

ALL_SLABS = RateRule(None)


@pytest.fixture
def part(make_scan):
    scans = [
        make_scan(
            "1.2",
            n_slabs=3,
            nodules=[(20, 10, 3, 4), (20, 20, 8, 3), (20, 20, 400, 16)],
            excluded=[(40, 40, 20, -1)],
        ),
        make_scan("1.3", n_slabs=2),
    ]
    return part_of_scans("test", [label_scan(scan) for scan in scans], ALL_SLABS, seed=0)


@pytest.fixture
def coco(part):
    info = {"protocol": "strict", "seed": 0, "data": "phantom", "split": "test"}
    return coco_of_part(part, info=info, patients={"1.2": "A"})


def test_images_carry_the_record_of_their_slab(coco, part):
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4, 5]
    image = coco["images"][1]
    assert image["seriesuid"] == "1.2"
    assert image["slab_index"] == 1
    assert image["file_name"] == "1.2/001.png"
    assert {key: image[key] for key in part.slabs[1].slab.fields} == part.slabs[1].slab.fields


def test_annotations(coco):
    assert [annotation["id"] for annotation in coco["annotations"]] == [1, 2, 3, 4]
    # Nodule 0: centre at pixel 40, 20, radius 4 pixels.
    assert coco["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [36.5, 16.5, 8.0, 8.0],
        "area": 64.0,
        "iscrowd": 0,
        "kind": "nodule",
        "nodule_id": "1.2/0",
        "diameter_mm": 4,
        "overlap_mm": 4.0,
        "label": "sphere",
    }
    # Nodule 1 reaches from 6.5 to 9.5; the finding from 15 to 25, and touches slab 1 in a point.
    kinds = [(a["image_id"], a["kind"], a["iscrowd"]) for a in coco["annotations"]]
    assert kinds == [
        (1, "nodule", 0),
        (1, "grazed", 1),
        (2, "nodule", 0),
        (3, "excluded", 1),
    ]


def test_what_lies_beyond_coco(coco):
    assert coco["categories"] == [{"id": 1, "name": "nodule"}]
    assert coco["series"] == ["1.2", "1.3"]
    assert coco["patients"] == {"1.2": "A"}
    assert [nodule["nodule_id"] for nodule in coco["nodules"]] == ["1.2/0", "1.2/1", "1.2/2"]
    assert coco["unseen_nodules"] == [
        {
            "nodule_id": "1.2/2",
            "seriesuid": "1.2",
            "centre_xyz_mm": [20, 20, 400],
            "diameter_mm": 16,
            "reason": "in no slab",
        }
    ]
    assert coco["excluded"] == [
        {"seriesuid": "1.2", "centre_xyz_mm": [40, 40, 20], "diameter_mm": -1}
    ]


def test_discarded_nodules_do_not_count(make_scan):
    scan = make_scan("1", n_slabs=4, nodules=[(20, 20, 3, 4), (20, 20, 10, 4)])
    part = part_of_scans("test", [label_scan(scan)], RateRule(0.01), seed=0)
    coco = coco_of_part(part, info={})
    counting = {nodule["nodule_id"] for nodule in coco["nodules"]}
    discarded = {nodule["nodule_id"] for nodule in coco["discarded_nodules"]}
    assert len(counting) == len(discarded) == 1
    assert counting | discarded == {"1/0", "1/1"}
    assert coco["unseen_nodules"] == []


def test_findings_as_background_are_not_listed(part):
    assert coco_of_part(part, info={}, excluded_are_ignored=False)["excluded"] == []


def test_statuses(coco):
    assert slab_statuses(coco) == ["positive", "positive", "ignored", "healthy", "healthy"]


def test_summary(coco):
    summary = summarise(coco)
    assert (summary.slabs, summary.positives, summary.healthy, summary.ignored) == (5, 2, 2, 1)
    assert summary.rate == 0.5
    assert (summary.series, summary.series_without_nodules) == (2, 1)
    assert summary.nodules_by_band == (("<= 7 mm", 2), ("7-15 mm", 0), ("> 15 mm", 1))
    assert (summary.boxes, summary.ignore_regions, summary.unseen) == (2, 2, 1)
    assert (summary.lost_to_mask, summary.coverage_unknown) == (0, 3)


def test_nodules_below_nine_tenths_of_coverage_are_lost_to_the_mask(coco):
    for nodule, coverage in zip(coco["nodules"], (0.899, 0.9, 0.0), strict=True):
        nodule["coverage"] = coverage
    assert summarise(coco).lost_to_mask == 2


def test_an_edge_belongs_to_the_lower_band():
    assert count_by_band([7.0, 7.01, 15.0, 15.01]) == (
        ("<= 7 mm", 1),
        ("7-15 mm", 2),
        ("> 15 mm", 1),
    )


def test_an_empty_part_has_no_rate():
    coco = coco_of_part(part_of_scans("val", [], ALL_SLABS, seed=0), info={})
    assert summarise(coco).rate is None


def test_reading_names_what_is_wrong(tmp_path, coco):
    path = tmp_path / "test.json"
    for folder, remedy in (
        (tmp_path / "annotations", f"lungdet split {tmp_path}`"),
        (tmp_path / "fold3", f"lungdet split PREPARED_DIR --out {tmp_path / 'fold3'}`"),
    ):
        with pytest.raises(LungDetError, match=re.escape(remedy)):
            read_coco(folder / "test.json")
    path.write_text("{")
    with pytest.raises(LungDetError, match="cannot be read as JSON"):
        read_coco(path)
    path.write_text('{"images": [], "annotations": []}')
    with pytest.raises(LungDetError, match="lacks info, nodules, series"):
        read_coco(path)
    path.write_text(json.dumps(coco))
    assert read_coco(path) == coco


def test_who_reads_a_file_in_use_shares_it_until_it_is_written_anew(tmp_path):
    path = tmp_path / "val.json"
    coco = {"info": {}, "images": [], "annotations": [], "series": ["a"], "nodules": []}
    write_json(path, coco)
    first, records = read_coco(path), read_slab_set(path)

    assert read_coco(str(path)) is first
    assert read_slab_set(path) is records

    write_json(path, {**coco, "series": ["a", "b"]})
    assert read_coco(path)["series"] == list(read_slab_set(path).series) == ["a", "b"]


def test_what_nobody_holds_is_let_go(tmp_path):
    path = tmp_path / "val.json"
    write_json(path, {"info": {}, "images": [], "annotations": [], "series": ["a"], "nodules": []})
    held = weakref.ref(read_coco(path))

    assert held() is None
