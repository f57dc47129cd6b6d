import json

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_scores import OperatingPoint, operating_point_of

POINT = OperatingPoint(
    threshold=0.42, rule="max_f1", data="phantom", protocol="strict", split="val", n_scans=7,
    n_slabs=197, n_nodules=13, f1=0.8, iteration=600,
)  # fmt: skip


def test_survives_a_checkpoint_of_plain_values():
    record = json.loads(json.dumps(POINT.as_record()))

    assert operating_point_of({"meta": {"operating_point": record}}) == POINT


@pytest.mark.parametrize("checkpoint", [{}, {"meta": {}}, {"meta": None}, {"state_dict": {}}])
def test_a_checkpoint_without_one(checkpoint):
    assert operating_point_of(checkpoint) is None


def test_a_published_model_has_it_while_its_threshold_is_that_of_it():
    record = POINT.as_record()
    published = {"threshold": 0.42, "data": {"operating_point": record}}
    assert operating_point_of(published) == POINT
    assert operating_point_of({**published, "threshold": 0.5}) is None
    assert operating_point_of({"threshold": 0.42, "data": {}}) is None


def test_fields_of_a_later_version_are_left_out():
    record = POINT.as_record() | {"colour": "blue"}

    assert operating_point_of({"meta": {"operating_point": record}}) == POINT


@pytest.mark.parametrize("record", [{"rule": "max_f1"}, [0.4], {"threshold": 2.0, "rule": "x"}])
def test_an_unusable_one_is_refused(record):
    with pytest.raises(LungDetError, match="operating point"):
        operating_point_of({"meta": {"operating_point": record}})


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.5])
def test_a_threshold_is_a_score(threshold):
    with pytest.raises(LungDetError, match="within 0 and 1"):
        OperatingPoint(threshold=threshold, rule="max_f1")


def test_says_where_it_comes_from():
    assert POINT.describe() == (
        "0.42, chosen by max_f1 on phantom data, strict protocol, val split "
        "(13 nodule boxes on 197 slabs of 7 scans)"
    )
