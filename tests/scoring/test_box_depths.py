import cv2
import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_records import (
    SD_FLOOR_MM,
    SD_OF_SPREAD,
    SlabDetections,
    missing_depths_note,
    read_depths,
    with_depths,
)
from tests.support.slabs import slab

SLAB = slab(0, "a", pixel_mm=0.5, thickness_mm=10.0, low_mm=100.0)


def placed(depths, *boxes):
    found = SlabDetections(0, np.array(boxes, dtype=float), np.ones(len(boxes)))
    return with_depths(found, SLAB, depths)


def test_a_box_lies_at_the_depth_of_its_core():
    depths = np.full((40, 40), 255, np.uint8)  # around it, maxima of the high face
    depths[10:20, 10:20] = 51  # a fifth of the thickness: 2 mm above the low face

    found = placed(depths, (10, 10, 20, 20))

    assert found.z_mm == pytest.approx([102.0])
    assert found.z_sd_mm == pytest.approx([SD_FLOOR_MM])


def test_depths_that_disagree_make_it_less_sure():
    depths = np.full((40, 40), 102, np.uint8)
    depths[:, 20:] = 153  # halves of the core at 4 and at 6 mm: spread 1 mm

    found = placed(depths, (15, 15, 25, 25))

    assert found.z_mm == pytest.approx([105.0])
    assert found.z_sd_mm == pytest.approx([np.hypot(SD_FLOOR_MM, SD_OF_SPREAD)])


def test_a_box_smaller_than_a_pixel_has_the_depth_of_that_pixel():
    depths = np.zeros((9, 9), np.uint8)
    depths[4, 4] = 255

    assert placed(depths, (4.3, 4.3, 4.7, 4.7)).z_mm == pytest.approx([110.0])


@pytest.mark.parametrize("box", [(-30, 2, -20, 8), (2, 50, 8, 60)])
def test_a_box_outside_the_image_lies_anywhere_in_the_slab(box):
    found = placed(np.zeros((40, 40), np.uint8), box)

    assert found.z_mm == pytest.approx([105.0])
    assert found.z_sd_mm[0] > 10 / np.sqrt(12) * SD_OF_SPREAD


def test_no_boxes_and_no_depths():
    nothing = placed(np.zeros((4, 4), np.uint8))
    assert nothing.z_mm.shape == nothing.z_sd_mm.shape == (0,)
    assert placed(None, (1, 1, 2, 2)).z_mm is None


def test_reads_what_lies_there(tmp_path):
    assert read_depths(tmp_path / "000.depth.png") is None
    cv2.imwrite(str(tmp_path / "000.depth.png"), np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert read_depths(tmp_path / "000.depth.png").tolist()[1] == [4, 5, 6, 7]
    (tmp_path / "001.depth.png").write_bytes(b"no image")
    with pytest.raises(LungDetError, match="001.depth.png"):
        read_depths(tmp_path / "001.depth.png")


def test_what_is_missing_is_said_once_with_its_number():
    assert missing_depths_note(0, 5) is None
    assert missing_depths_note(2, 5).startswith("2 of 5 slabs have no depth")
