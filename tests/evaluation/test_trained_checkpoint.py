from dataclasses import replace

import pytest
import torch

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.trained_checkpoint import applied_threshold, read_checkpoint
from lungdet_mmdet.scoring.slab_scores import OperatingPoint

POINT = OperatingPoint(0.4, "max_f1", data="phantom", protocol="strict", split="val")
CHECKPOINT = {"meta": {"operating_point": POINT.as_record()}}


def test_the_checkpoints_own_is_applied():
    applied = applied_threshold(CHECKPOINT)

    assert (applied.value, applied.source) == (0.4, POINT.describe())
    assert applied.warnings(data="phantom", split="test", boxes_per_slab=0.1) == []


def test_a_given_one_comes_first_and_says_so():
    applied = applied_threshold(CHECKPOINT, given=0.25)

    assert applied.value == 0.25
    assert "--threshold" in applied.source


def test_without_one_nothing_is_chosen():
    applied = applied_threshold({"meta": {}})

    assert applied.value is None
    assert (
        "no operating point"
        in applied.warnings(data="phantom", split="test", boxes_per_slab=0.1)[0]
    )


def test_a_published_model_carries_a_bare_threshold():
    assert applied_threshold({"threshold": 0.7}).value == 0.7
    assert applied_threshold({"threshold": None}).value is None


def test_other_data_and_the_same_split_are_pointed_out():
    applied = applied_threshold(CHECKPOINT)

    (other,) = applied.warnings(data="LUNA16", split="test", boxes_per_slab=0.1)
    (same,) = applied.warnings(data="phantom", split="val", boxes_per_slab=0.1)
    assert "chosen on phantom data and is applied to LUNA16" in other
    assert "flatter" in same


def test_sparser_slabs_lower_the_precision_to_expect():
    # 127 boxes on 1,000 slabs, 100 found, 25 false alarms; a third of the boxes: 33 and 25.
    point = replace(POINT, n_slabs=1000, n_nodules=127, precision=0.8, recall=100 / 127)
    applied = applied_threshold({"meta": {"operating_point": point.as_record()}})

    assert applied.warnings(data="phantom", split="test", boxes_per_slab=0.127) == []
    (warning,) = applied.warnings(data="phantom", split="test", boxes_per_slab=0.127 / 3)
    assert "12.7 nodule boxes" in warning
    assert "from 80 % to about 57 %" in warning


def test_no_precision_is_expected_of_a_split_without_boxes():
    assert POINT.expected_precision(0.1) is None
    assert replace(POINT, n_slabs=9, n_nodules=3, precision=1.0).expected_precision(0.0) is None


@pytest.mark.parametrize("given", [-0.1, 1.1, float("nan")])
def test_a_given_threshold_is_a_score(given):
    with pytest.raises(LungDetError, match="--threshold"):
        applied_threshold({}, given=given)


def test_reads_a_checkpoint(tmp_path):
    torch.save(CHECKPOINT, tmp_path / "a.pth")

    assert applied_threshold(read_checkpoint(tmp_path / "a.pth")).value == 0.4


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_an_unreadable_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "broken.pth"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(LungDetError, match=r"broken\.pth"):
        read_checkpoint(path)
