import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_matching import match_slabs
from lungdet_mmdet.scoring.slab_outcomes import overlaps
from lungdet_mmdet.scoring.slab_records import SlabDetections, TruthBox
from lungdet_mmdet.scoring.slab_scores import size_band_counts, size_band_scores
from tests.support.slabs import found, nodule_of, slab, slab_set

PIXEL_MM = 0.5


def box_of(diameter_mm, x_px=10.0, y_px=10.0, **options):
    side_px = diameter_mm / PIXEL_MM
    return TruthBox((x_px, y_px, side_px, side_px), diameter_mm, **options)


def split_of(*boxes_per_slab, **truth):
    """One slab per scan."""
    slabs = [
        slab(number, f"scan{number}", *boxes, pixel_mm=PIXEL_MM)
        for number, boxes in enumerate(boxes_per_slab)
    ]
    return slab_set(*slabs, **truth)


def corners(box):
    x, y, width, height = box.bbox_xywh_px
    return [x, y, x + width, y + height]


def found_on(img_id, *boxes_and_scores):
    return found(img_id, *[(*box, score) for box, score in boxes_and_scores])


def scores_of(truth, detections, **options):
    matched = match_slabs(truth, detections, **options)
    return {key: float(values[0]) for key, values in size_band_scores(matched).items()}


def test_perfect_detections_score_one_in_every_band():
    boxes = [box_of(5.0), box_of(10.0), box_of(20.0)]
    truth = split_of(*[[box] for box in boxes])

    scores = scores_of(truth, [found_on(i, (corners(box), 0.9)) for i, box in enumerate(boxes)])

    assert list(scores.values()) == pytest.approx([1.0] * len(scores))


def test_no_detections_give_zero_and_a_band_without_nodules_nan():
    scores = scores_of(split_of([box_of(5.0)], []), [found_on(0), found_on(1)])

    assert scores["AP50"] == scores["AR"] == scores["AP50_small"] == scores["paper_F1"] == 0.0
    assert np.isnan(scores["AP50_medium"])
    assert np.isnan(scores["AR_large"])


def test_no_ground_truth_gives_nan_everywhere_and_the_same_keys():
    with_truth = scores_of(split_of([box_of(5.0)]), [found_on(0)])
    without = scores_of(split_of([]), [found_on(0, ([0, 0, 9, 9], 0.9))])

    assert without.keys() == with_truth.keys()
    assert np.isnan(list(without.values())).all()


def test_a_detection_on_an_ignore_region_is_not_wrong():
    nodule, region = box_of(10.0), box_of(10.0, x_px=200.0, is_ignored=True, kind="grazed")
    detections = [found_on(0, (corners(region), 0.9), (corners(nodule), 0.5))]

    assert scores_of(split_of([nodule, region]), detections)["AP50"] == pytest.approx(1.0)


def test_only_ignore_regions_count_as_no_ground_truth():
    region = box_of(10.0, is_ignored=True, kind="grazed")
    matched = match_slabs(split_of([region]), [found_on(0, (corners(region), 0.9))])

    assert np.isnan(size_band_scores(matched)["AP50"][0])
    counts = size_band_counts(matched)
    assert (counts["n_nodules"], counts["n_ignore_regions"]) == (0, 1)


def test_a_second_box_on_one_nodule_is_wrong():
    # Right at .9, duplicate at .8, second nodule at .7: precisions 1, 1/2, 2/3.
    # 51 of the 101 recall steps are reached at precision 1, the other 50 at 2/3.
    one, two = box_of(10.0), box_of(10.0, x_px=200.0)
    detections = [found_on(0, (corners(one), 0.9), (corners(one), 0.8), (corners(two), 0.7))]

    scores = scores_of(split_of([one, two]), detections)

    assert scores["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scores["AR50"] == 1.0


def test_a_wrong_detection_outside_the_band_is_left_out_of_it():
    nodule = box_of(5.0)
    wrong = [300.0, 300.0, 340.0, 340.0]  # 20 mm: large
    scores = scores_of(split_of([nodule]), [found_on(0, (wrong, 0.9), (corners(nodule), 0.5))])

    assert scores["AP50_small"] == pytest.approx(1.0)
    assert scores["AP50"] == pytest.approx(0.5)


def test_a_hit_counts_in_the_band_of_the_annotated_diameter():
    # Annotated 8 mm, drawn and found as 6 mm: a medium nodule, found.
    drawn = TruthBox((10.0, 10.0, 12.0, 12.0), 8.0)
    scores = scores_of(split_of([drawn]), [found_on(0, ([10, 10, 22, 22], 0.9))])

    assert scores["AP50_medium"] == pytest.approx(1.0)
    assert np.isnan(scores["AP50_small"])


def test_unseen_nodules_count_as_missed():
    nodule = box_of(5.0)
    truth = split_of(
        [nodule],
        unseen=[nodule_of("scan0", 6.0), nodule_of("far", 20.0)],
        series=("scan0", "far"),
    )
    detections = [found_on(0, (corners(nodule), 0.9))]

    scores = scores_of(truth, detections)

    assert scores["AR50"] == pytest.approx(1 / 3)
    assert scores["AR50_small"] == 0.5
    assert scores["AR50_large"] == 0.0
    assert scores_of(truth, detections, count_unseen=False)["AR50"] == 1.0


def test_slabs_that_were_not_looked_at_are_left_out():
    boxes = [box_of(5.0), box_of(5.0)]
    truth = split_of([boxes[0]], [boxes[1]], unseen=[nodule_of("scan1", 5.0)])

    assert scores_of(truth, [found_on(0, (corners(boxes[0]), 0.9))])["AR50"] == 1.0


def test_an_unknown_slab_is_an_error():
    with pytest.raises(LungDetError, match="7"):
        match_slabs(split_of([]), [found_on(7)])


def test_only_the_best_detections_of_a_slab_are_looked_at():
    nodule = box_of(10.0)
    detections = [found_on(0, ([300, 300, 320, 320], 0.9), (corners(nodule), 0.5))]

    assert scores_of(split_of([nodule]), detections, max_detections=1)["AR50"] == 0.0


def random_case(seed, n_slabs=30):
    rng = np.random.default_rng(seed)
    truth, detections = [], []
    for number in range(n_slabs):
        boxes = [
            box_of(float(rng.uniform(3, 25)), *rng.uniform(0, 80, 2), is_ignored=rng.random() < 0.2)
            for _ in range(rng.integers(0, 4))
        ]
        guesses = [
            ((np.array(corners(box)) + rng.normal(0, 2, 4)).tolist(), round(rng.random(), 1))
            for box in boxes
            for _ in range(rng.integers(0, 3))
        ] + [
            ([x, y, x + side, y + side], round(rng.random(), 1))
            for x, y, side in rng.uniform(5, 40, (rng.integers(0, 5), 3)).tolist()
        ]
        truth.append(boxes)
        detections.append(found_on(number, *guesses))
    return split_of(*truth), detections


def plain_cocoeval(truth, detections):
    """A plain COCOeval run in mm, with areas, as a user of pycocotools would write it."""
    annotations, results = [], []
    for img_id, annotated in truth.slabs.items():
        for box in annotated.boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": img_id,
                    "category_id": 1,
                    "bbox": [v * 0.5 for v in box.bbox_xywh_px],
                    "area": box.diameter_mm**2,
                    "iscrowd": int(box.is_ignored),
                }
            )
        for (x1, y1, x2, y2), score in zip(
            detections[img_id].boxes_xyxy_px * 0.5, detections[img_id].scores, strict=True
        ):
            results.append(
                {
                    "image_id": img_id,
                    "category_id": 1,
                    "score": score,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in truth.slabs],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "nodule"}],
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.areaRng = [[0, 1e10], [0, 49], [49 + 1e-9, 225], [225 + 1e-9, 1e10]]
        evaluation.params.areaRngLbl = ["all", "small", "medium", "large"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_a_plain_cocoeval_run(seed):
    truth, detections = random_case(seed)
    precision, recall = plain_cocoeval(truth, detections)

    scores = scores_of(truth, detections)

    for number, suffix in enumerate(["", "_small", "_medium", "_large"]):
        assert scores[f"AP50{suffix}"] == pytest.approx(precision[0, :, 0, number, 0].mean())
        assert scores[f"AP{suffix}"] == pytest.approx(precision[:, :, 0, number, 0].mean())
        assert scores[f"AR50{suffix}"] == pytest.approx(recall[0, 0, number, 0])
        assert scores[f"AR{suffix}"] == pytest.approx(recall[:, 0, number, 0].mean())


def test_weights_are_the_same_as_repeating_the_scans():
    # Distinct scores: the order within a tie depends on the order of the slabs.
    truth, detections = random_case(3, n_slabs=12)
    rng = np.random.default_rng(0)
    detections = [
        SlabDetections(item.img_id, item.boxes_xyxy_px, rng.random(len(item.scores)))
        for item in detections
    ]
    counts = rng.multinomial(12, np.full(12, 1 / 12))
    repeated = [number for number, count in enumerate(counts) for _ in range(count)]
    copies = split_of(*[truth.slabs[number].boxes for number in repeated])
    copied = [
        SlabDetections(new, detections[old].boxes_xyxy_px, detections[old].scores)
        for new, old in enumerate(repeated)
    ]

    weighted = size_band_scores(match_slabs(truth, detections), counts[:, None].astype(float))

    expected = scores_of(copies, copied)
    assert {
        key: pytest.approx(float(values[0]), nan_ok=True) for key, values in weighted.items()
    } == expected


def test_slabs_matched_a_few_at_a_time_score_the_same(monkeypatch):
    truth, detections = random_case(4)
    at_once = scores_of(truth, detections)
    monkeypatch.setattr("lungdet_mmdet.scoring.slab_matching.SLABS_AT_A_TIME", 7)
    assert len(truth.slabs) % 7 != 0
    assert scores_of(truth, detections) == at_once


def test_the_small_memory_way_to_average_precision_gives_the_same(monkeypatch):
    truth, detections = random_case(5)
    matched = match_slabs(truth, detections)
    weights = np.random.default_rng(1).integers(0, 4, (len(matched.series), 5)).astype(float)
    by_table = size_band_scores(matched, weights)
    monkeypatch.setattr("lungdet_mmdet.scoring.slab_scores.MAX_CELLS", 0)
    by_columns = size_band_scores(matched, weights)
    for key, values in by_table.items():
        np.testing.assert_array_equal(by_columns[key], values, err_msg=key)


@pytest.mark.parametrize("at_a_time", [2000, 7])
def test_slab_by_slab_it_says_what_the_table_says(monkeypatch, at_a_time):
    monkeypatch.setattr("lungdet_mmdet.scoring.slab_matching.SLABS_AT_A_TIME", at_a_time)
    truth, detections = random_case(6)
    matched = match_slabs(truth, detections)
    every, row = matched.bands[0], matched.iou_row(0.5)

    verdicts = [verdict for outcome in matched.outcomes for verdict in outcome.verdicts]
    counts = ~every.is_ignored[row]
    assert verdicts.count("hit") == np.count_nonzero(every.is_matched[row] & counts) > 10
    assert verdicts.count("false positive") == np.count_nonzero(~every.is_matched[row]) > 10
    assert sum(len(item.found) for item in matched.outcomes) == verdicts.count("hit")
    for item, outcome in zip(detections, matched.outcomes, strict=True):
        assert outcome.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        for box, place in zip(outcome.boxes_xyxy_px, outcome.truth_rows, strict=True):
            if place >= 0:
                on = overlaps(box[None], [outcome.slab.boxes[place]])
                assert on[0, 0] >= 0.5 - 1e-9


def test_a_threshold_changes_no_match_of_better_scores():
    truth, detections = random_case(7)
    kept = [
        SlabDetections(
            item.img_id, item.boxes_xyxy_px[item.scores >= 0.5], item.scores[item.scores >= 0.5]
        )
        for item in detections
    ]

    for before, after in zip(
        match_slabs(truth, detections).outcomes, match_slabs(truth, kept).outcomes, strict=True
    ):
        assert before.at(0.5).truth_rows.tolist() == after.truth_rows.tolist()
