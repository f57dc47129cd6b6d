from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lungdet_mmdet.annotations.mask_nodules import SlabMask
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_checks import label_text, summarise
from lungdet_mmdet.splits.coco_json import coco_of_part, read_coco
from lungdet_mmdet.splits.labels import label_scan
from lungdet_mmdet.splits.protocols import UNKNOWN
from lungdet_mmdet.splits.split_part import RateRule, part_of_scans
from lungdet_mmdet.splits.split_writer import report_lines, write_splits


def rle(x0, y0, x1, y1):
    image = np.zeros((100, 100), np.uint8)
    image[y0:y1, x0:x1] = 1
    return coco_mask.encode(np.asfortranarray(image))["counts"].decode()


def slab_mask(index, overlap_mm, box, visible=1.0):
    return SlabMask(index, overlap_mm, tuple(map(float, box)), visible, rle(*box))


@pytest.fixture
def scan(make_scan):
    """Two nodules in the table; the first has a mask on slabs 4 and 5; the mask has a third."""
    made = make_scan(
        "1.2", nodules=[(20, 20, 33.75, 5), (30, 30, 60, 6), (10, 10, 10, 4)], subset=0
    )
    return replace(
        made,
        masks={
            "1.2/0": (slab_mask(4, 6.25, (30, 36, 50, 44)), slab_mask(5, 1.25, (38, 38, 42, 41))),
            "1.2/2": (slab_mask(1, 2.5, (18, 18, 24, 24)),),
        },
        only_in_mask=frozenset({"1.2/2"}),
        ratings={"1.2/0": {"texture": 4.5}},
    )


def boxes(labelled, nodule_id):
    return {
        slab.slab.geometry.index: (label.kind, label.source, label.box_xyxy_px)
        for slab in labelled.slabs
        for label in slab.labels
        if label.nodule_id == nodule_id
    }


def test_auto_takes_the_mask_where_there_is_one(scan):
    labelled = label_scan(scan)
    assert boxes(labelled, "1.2/0") == {
        4: ("nodule", "mask", (30, 36, 50, 44)),
        5: ("grazed", "mask", (38, 38, 42, 41)),
    }
    # 60 mm is the face of slabs 7 and 8; its sphere is 3 mm deep in both.
    assert {source for _, source, _ in boxes(labelled, "1.2/1").values()} == {"sphere"}
    assert boxes(labelled, "1.2/2") == {1: ("nodule", "mask", (18, 18, 24, 24))}


def test_sphere_leaves_masks_and_their_nodules_out(scan):
    labelled = label_scan(scan, labels="sphere")
    assert [n.nodule_id for n in labelled.scan.nodules] == ["1.2/0", "1.2/1"]
    kind, source, box = boxes(labelled, "1.2/0")[4]
    assert (kind, source) == ("nodule", "sphere")
    # 5 mm at 0.5 mm a pixel, about (20, 20) mm: pixel 40.5.
    assert box == (35.5, 35.5, 45.5, 45.5)


def test_mask_makes_nodules_without_one_ignore_regions(scan):
    labelled = label_scan(scan, labels="mask")
    assert [n.nodule_id for n in labelled.scan.nodules] == ["1.2/0", "1.2/2"]
    assert {slab.slab.geometry.index for slab in labelled.slabs if slab.status == "ignored"} == {
        5,
        7,
        8,
    }


def test_an_unknown_rule_is_refused(scan):
    with pytest.raises(LungDetError, match="choose 'auto', 'sphere' or 'mask'"):
        label_scan(scan, labels="contour")


def test_a_mask_cut_by_the_image_counts_by_what_is_seen(scan):
    masks = {"1.2/0": (slab_mask(4, 6.25, (0, 36, 3, 44), visible=0.3),)}
    labelled = label_scan(replace(scan, masks=masks, only_in_mask=frozenset()))
    assert boxes(labelled, "1.2/0")[4][0] == "grazed"
    assert "1.2/0" in {item.nodule.nodule_id for item in labelled.unseen}


def test_segmentations_say_what_the_boxes_say(scan):
    part = part_of_scans("train", [label_scan(scan)], RateRule(None), seed=0)
    coco = coco_of_part(part, info={"labels": "auto"})
    sources = set()
    for annotation in coco["annotations"]:
        x, y, width, height = coco_mask.toBbox(annotation["segmentation"])
        np.testing.assert_allclose(annotation["bbox"], (x, y, width, height), atol=1.0)
        sources.add(annotation["label"])
    assert sources == {"mask", "sphere"}
    assert coco["nodules"][0]["ratings"] == {"texture": 4.5}
    assert label_text(summarise(coco)) == "auto: 2 mask, 1 sphere"


def test_without_masks_there_are_no_segmentations(make_scan):
    labelled = label_scan(make_scan("1.2", nodules=[(20, 20, 33.75, 5)]))
    coco = coco_of_part(part_of_scans("train", [labelled], RateRule(None), seed=0), info={})
    assert all("segmentation" not in annotation for annotation in coco["annotations"])


def test_splits_say_which_labels_and_patients_they_have(small_cohort, write_prepared):
    folder = write_prepared(small_cohort)
    report = write_splits(folder)
    assert "labels: train auto: 0 mask, 6 sphere" in "\n".join(report_lines(report))
    info = read_coco(folder / "annotations" / "train.json")["info"]
    assert (info["labels"], info["patients"]) == ("auto", UNKNOWN)


def test_labels_of_masks_need_masks(small_cohort, write_prepared):
    with pytest.raises(LungDetError, match="no nodule has a mask; prepare with"):
        write_splits(write_prepared(small_cohort), labels="mask")


def test_the_prepared_patient_table_is_used_by_itself(small_cohort, write_prepared):
    folder = write_prepared(small_cohort)
    # Six patients of two series each.
    rows = [f"{scan.seriesuid},P{i // 2}" for i, scan in enumerate(small_cohort)]
    (folder / "patients.csv").write_text("\n".join(["seriesuid,patient_id", *rows]))
    report = write_splits(folder)
    assert report.patients == "patients.csv: 6"
    sides = {}
    for part in ("train", "val", "test"):
        for uid in read_coco(folder / "annotations" / f"{part}.json")["series"]:
            sides.setdefault(int(uid[-2:]) // 2, set()).add(part)
    assert all(len(parts) == 1 for parts in sides.values())


def test_rules_for_positives_hold_for_masks_and_spheres(scan):
    # The mask fills 6.25 of slab 4's 7.5 mm; the third nodule's 2.5 of slab 1.
    half = label_scan(scan, positive="half")
    assert boxes(half, "1.2/0")[4][0] == "nodule"
    assert boxes(half, "1.2/2")[1][0] == "grazed"
    assert "1.2/2" in {item.nodule.nodule_id for item in half.unseen}
    # No slab of these masks is marked as cut in its middle.
    middle = label_scan(scan, positive="midplane")
    assert boxes(middle, "1.2/0")[4][0] == "grazed"
    spheres = label_scan(scan, labels="sphere", positive="midplane")
    assert boxes(spheres, "1.2/0")[4][0] == "nodule"


def test_paper_test_rate_by_adding_healthy_slabs(small_cohort, write_prepared):
    folder = write_prepared(small_cohort)
    plain = write_splits(folder, protocol="paper", positive_rate={"test": 0.25})
    added = write_splits(folder, protocol="paper", positive_rate={"test": 0.05}, add_healthy=True)
    # Eight positives and 55 of the healthy slabs are dealt; one positive tests with 19 healthy.
    assert (plain.summaries[2].positives, plain.summaries[2].healthy) == (1, 3)
    assert (added.summaries[2].positives, added.summaries[2].healthy) == (1, 19)
    assert added.summaries[0] == plain.summaries[0]


def test_added_healthy_slabs_are_for_the_paper_protocol(small_cohort, write_prepared):
    with pytest.raises(LungDetError, match="choose the paper protocol"):
        write_splits(write_prepared(small_cohort), add_healthy=True)
