import cv2
import numpy as np
import pytest

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.method_figures import SlabStage, VolumeStage, pipeline_figure, slab_at

# Slice k lies at z = 100 + 2 k mm and is filled with grey level 20 k.
GEOMETRY = ScanGeometry((6, 40, 60), (2.0, 1.0, 1.0), (-30.0, 10.0, 100.0))
VOLUME = np.repeat(np.arange(6, dtype=np.uint8) * 20, 40 * 60).reshape(6, 40, 60)
SLABS = tuple(
    SlabGeometry(
        index=index,
        width=60,
        height=40,
        z_range_mm=(99.0 + 6 * index, 105.0 + 6 * index),
        spacing_xy_mm=(1.0, 1.0),
        origin_xyz_mm=(-30.0, 10.0, 102.0 + 6 * index),
    )
    for index in range(2)
)
NODULE = Nodule("a/0", "a", (0.0, 30.0, 104.0), 8.0)


def drawn(*stages, **options):
    png = np.frombuffer(pipeline_figure(stages, **options), np.uint8)
    return cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def middle(image):
    """Mean colour in the middle of a figure of one panel, without title and scale bar."""
    height, width = image.shape[:2]
    part = image[height // 2 - 20 : height // 2 + 20, width // 2 - 20 : width // 2 + 20]
    return part.reshape(-1, 3).mean(axis=0)


def n_green(image):
    red, green, blue = (image[..., channel].astype(int) for channel in range(3))
    return int(((green > red + 60) & (green > blue + 60)).sum())


@pytest.mark.parametrize(
    ("height_mm", "grey"), [(100.0, 0), (104.0, 40), (104.9, 40), (110.0, 100)]
)
def test_the_slice_nearest_to_the_plane_is_shown(height_mm, grey):
    image = drawn(VolumeStage("t", "d", VOLUME, GEOMETRY), height_mm=height_mm)

    np.testing.assert_allclose(middle(image), grey, atol=1)


def test_hounsfield_values_are_shown_in_the_lung_window():
    # Level -600, width 1500: -600 HU is the middle grey level, 127.5, rounded.
    volume = np.full((6, 40, 60), -600, dtype=np.int16)
    image = drawn(VolumeStage("t", "d", volume, GEOMETRY), height_mm=104.0)

    np.testing.assert_allclose(middle(image), 127.5, atol=1)


def test_the_mask_is_laid_over_in_colour():
    tint = np.zeros(VOLUME.shape, dtype=np.uint8)
    tint[2] = 1
    stage = VolumeStage("t", "d", VOLUME, GEOMETRY, tint)

    # 55 % of grey 40 and 45 % of (70, 200, 255)
    np.testing.assert_allclose(middle(drawn(stage, height_mm=104.0)), [53.5, 112, 136.75], atol=1)
    np.testing.assert_allclose(middle(drawn(stage, height_mm=102.0)), 20, atol=1)


def test_the_slab_that_holds_the_plane_is_shown():
    slabs = np.stack([np.full((40, 60), grey, dtype=np.uint8) for grey in (50, 200)])
    stage = SlabStage("MIP", "6 mm", slabs, SLABS)

    np.testing.assert_allclose(middle(drawn(stage, height_mm=104.0)), 50, atol=1)
    np.testing.assert_allclose(middle(drawn(stage, height_mm=106.0)), 200, atol=1)


def test_overlapping_slabs_show_the_one_whose_middle_is_nearest():
    assert slab_at(SLABS, 102.0) == 0
    assert slab_at(SLABS, 105.0) == 0  # on the face of both
    assert slab_at(SLABS, 105.1) == 1


def test_a_plane_beyond_the_scan_is_refused():
    with pytest.raises(LungDetError, match="113.0 mm is not among the slices of 'Resampled'"):
        drawn(VolumeStage("Resampled", "", VOLUME, GEOMETRY), height_mm=113.0)
    with pytest.raises(LungDetError, match="no slab holds the plane at 90.0 mm"):
        slab_at(SLABS, 90.0)


def test_nodules_cut_by_the_plane_are_marked_and_others_are_not():
    stage = VolumeStage("t", "d", VOLUME, GEOMETRY)

    assert n_green(drawn(stage, height_mm=104.0)) == 0
    assert n_green(drawn(stage, height_mm=104.0, nodules=[NODULE])) > 300
    # Its sphere ends at 108 mm.
    assert n_green(drawn(stage, height_mm=108.0, nodules=[NODULE])) == 0


def test_a_slab_marks_what_it_holds_even_beside_the_plane():
    slabs = np.zeros((2, 40, 60), dtype=np.uint8)
    stage = SlabStage("MIP", "6 mm", slabs, SLABS)

    # The second slab, from 105 mm on, cuts the sphere of 100 to 108 mm; the plane does not.
    assert n_green(drawn(stage, height_mm=110.0, nodules=[NODULE])) > 300


def test_flipped_and_oblique_grids_show_the_same_plane():
    angle = np.deg2rad(20.0)
    turn = np.array(
        [
            [1, 0, 0],
            [0, np.cos(angle), -np.sin(angle)],
            [0, np.sin(angle), np.cos(angle)],
        ]
    )
    geometry = ScanGeometry((6, 40, 60), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(turn.ravel()))
    image = drawn(VolumeStage("t", "d", VOLUME, geometry), height_mm=6.0)

    np.testing.assert_allclose(middle(image), 60, atol=1)


def test_a_pipeline_without_steps_is_refused():
    with pytest.raises(LungDetError, match="no step that shows a picture"):
        pipeline_figure([], height_mm=0.0)
