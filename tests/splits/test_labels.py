import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.labels import findings_to_ignore, label_scan


def kinds(labelled) -> list[list[str]]:
    return [[label.kind for label in slab.labels] for slab in labelled.slabs]


def statuses(labelled) -> list[str]:
    return [slab.status for slab in labelled.slabs]


def test_a_nodule_is_positive_grazed_or_absent(make_scan):
    # 12 mm sphere at z = 14: from 8 to 20. Slab 1 (7.5-15) holds 7 mm, slab 2 (15-22.5) 5 mm.
    labelled = label_scan(make_scan("1", n_slabs=4, nodules=[(20, 20, 14, 12)]))
    assert kinds(labelled) == [[], ["nodule"], ["nodule"], []]
    assert labelled.slabs[1].best_of == ("1/0",)
    assert labelled.slabs[2].best_of == ()
    # 3 mm sphere at z = 8: from 6.5 to 9.5, 1 mm in slab 0.
    labelled = label_scan(make_scan("1", n_slabs=3, nodules=[(20, 20, 8, 3)]))
    assert kinds(labelled) == [["grazed"], ["nodule"], []]
    assert statuses(labelled) == ["ignored", "positive", "healthy"]


def test_a_nodule_halved_by_two_slabs_goes_to_the_lower_one(make_scan):
    labelled = label_scan(make_scan("1", n_slabs=2, nodules=[(20, 20, 7.5, 3)]))
    assert kinds(labelled) == [["nodule"], ["grazed"]]


def test_box_numbers(make_scan):
    labelled = label_scan(make_scan("1", n_slabs=1, nodules=[(20, 10, 3, 4)]))
    label = labelled.slabs[0].labels[0]
    # Centre pixel 40, 20 -> 40.5, 20.5; radius 2 mm = 4 pixels.
    assert label.box_xyxy_px == pytest.approx((36.5, 16.5, 44.5, 24.5))
    assert (label.overlap_mm, label.diameter_mm, label.nodule_id) == (4.0, 4.0, "1/0")


def test_boxes_are_clipped_to_the_image(make_scan):
    # Centre at pixel 0: the box from -3.5 to 4.5 loses 3.5 of its 8 pixels.
    labelled = label_scan(make_scan("1", n_slabs=1, nodules=[(0, 20, 3, 4)]))
    assert labelled.slabs[0].labels[0].box_xyxy_px == pytest.approx((0, 36.5, 4.5, 44.5))
    assert labelled.slabs[0].status == "positive"


def test_a_nodule_mostly_outside_the_image_is_unseen_and_its_slab_not_healthy(make_scan):
    # Centre at pixel -2: from -5.5 to 2.5, of which 2.5 of 8 pixels are in the image.
    labelled = label_scan(make_scan("1", n_slabs=1, nodules=[(-1, 20, 3, 4)]))
    assert kinds(labelled) == [["grazed"]]
    assert [(u.nodule.nodule_id, u.reason) for u in labelled.unseen] == [
        ("1/0", "outside the image of its slabs")
    ]


@pytest.mark.parametrize(
    ("x", "z", "reason"), [(20, 99, "in no slab"), (90, 3, "outside the image of its slabs")]
)
def test_a_nodule_that_no_slab_shows_is_unseen(make_scan, x, z, reason):
    labelled = label_scan(make_scan("1", n_slabs=1, nodules=[(x, 20, z, 4)]))
    assert statuses(labelled) == ["healthy"]
    assert [unseen.reason for unseen in labelled.unseen] == [reason]


def test_excluded_findings_are_ignored_or_background(make_scan):
    scan = make_scan("1", n_slabs=2, excluded=[(20, 20, 3, 4)])
    assert statuses(label_scan(scan)) == ["ignored", "healthy"]
    assert statuses(label_scan(scan, excluded="background")) == ["healthy", "healthy"]


def test_a_finding_of_unknown_size_gets_ten_millimetres(make_scan):
    labelled = label_scan(make_scan("1", n_slabs=2, excluded=[(20, 20, 3, -1)]))
    # 10 mm at z = 3 reaches to 8, half a millimetre into slab 1.
    assert kinds(labelled) == [["excluded"], ["excluded"]]
    assert labelled.slabs[1].labels[0].overlap_mm == pytest.approx(0.5)
    assert labelled.slabs[0].labels[0].nodule_id is None


def test_findings_inside_a_nodule_and_repeated_ones_are_dropped(make_scan):
    scan = make_scan(
        "1",
        nodules=[(20, 20, 3, 6)],
        excluded=[(21, 20, 3, 5), (30, 20, 3, 5), (30, 20, 3, 5), (23, 20, 3, -1)],
    )
    # The last one lies exactly on the nodule's surface, which is outside.
    assert [finding.centre_xyz_mm[0] for finding in findings_to_ignore(scan)] == [30, 23]


def test_min_overlap_decides(make_scan):
    scan = make_scan("1", n_slabs=2, nodules=[(20, 20, 6, 6)])  # from 3 to 9: 1.5 mm in slab 1
    assert kinds(label_scan(scan, min_overlap_mm=1.5)) == [["nodule"], ["nodule"]]
    assert kinds(label_scan(scan, min_overlap_mm=1.6)) == [["nodule"], ["grazed"]]


def test_a_scan_without_slabs_makes_its_nodules_unseen(make_scan):
    labelled = label_scan(make_scan("1", n_slabs=0, nodules=[(20, 20, 3, 6)]))
    assert labelled.slabs == ()
    assert [unseen.reason for unseen in labelled.unseen] == ["the scan has no slabs"]


def test_an_unknown_rule_for_findings_is_an_error(make_scan):
    with pytest.raises(LungDetError, match="choose 'ignore' or 'background'"):
        label_scan(make_scan("1"), excluded="drop")
