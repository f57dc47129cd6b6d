import cv2
import numpy as np
import pytest

from lungdet_mmdet.reports.page import encoded_jpeg
from lungdet_mmdet.reports.prep_report import (
    COVERED_COLOUR,
    FILLED_COLOUR,
    OUTLINE_COLOUR,
    UNCOVERED_COLOUR,
    MaskPreview,
    PreviewNodule,
)

SPACING = (2.5, 1.0, 1.0)


@pytest.fixture
def scan():
    """Tissue of 40 x 40 mm in air, a lung of 20 x 20 mm in its middle; slabs are 3 slices."""
    volume = np.full((30, 60, 60), -1000, dtype=np.int16)
    volume[:, 10:50, 10:50] = 40
    volume[:, 20:40, 20:40] = -850
    mask = np.zeros(volume.shape, dtype=np.uint8)
    mask[3:27, 20:40, 20:40] = 1
    return volume, mask


def drawn(volume, mask, nodules):
    return MaskPreview(volume, mask, SPACING, [n.centre_zyx[0] for n in nodules]).draw(
        nodules, tile_px=80
    )


def pixels_near(picture, colour, tolerance=60):
    return np.argwhere(np.abs(picture.astype(int) - colour).max(axis=2) < tolerance)


def test_the_outline_runs_along_the_mask(scan):
    volume, mask = scan
    picture = MaskPreview(volume, mask, SPACING).draw(tile_px=80)
    assert picture.shape == (80, 240, 3)
    assert picture.dtype == np.uint8
    # 40 mm of tissue fill 80 pixels, so the lung spans pixels 20 to 60 of each tile.
    rows, columns = pixels_near(picture[:, :80], OUTLINE_COLOUR).T
    assert (rows.min(), rows.max()) == pytest.approx((20, 59), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((20, 59), abs=1)
    assert picture[10, 40].tolist() == [236, 236, 236]  # (40 + 1350) / 1500 * 255


def test_filled_tissue_is_outlined_in_its_own_colour_on_the_slab_with_most_of_it(scan):
    volume, mask = scan
    filled = np.zeros_like(mask)
    filled[2:4, 25:35, 20:30] = 1
    picture = MaskPreview(volume, mask, SPACING, filled=filled).draw(tile_px=80)
    assert len(pixels_near(picture[:, :80], FILLED_COLOUR)) > 10
    assert len(pixels_near(picture[:, 80:], FILLED_COLOUR)) == 0


def test_nodules_are_ringed_green_where_covered_and_red_where_not(scan):
    volume, mask = scan
    nodules = [PreviewNodule((5, 30, 25), 6.0, 1.0), PreviewNodule((24, 12, 30), 6.0, 0.2)]
    picture = drawn(volume, mask, nodules)
    # The second row is the nodules': one below, one above, the middle of the lung between them.
    low, high = picture[80:, :80], picture[80:, 160:]
    # Voxel (30, 25) lies at pixel ((30.5 - 10) * 2 - .5, (25.5 - 10) * 2 - .5) of its tile; the
    # ring has a radius of 3 mm times 2 and 3 pixels of rim.
    for tile, colour, centre in (
        (low, COVERED_COLOUR, (40.5, 30.5)),
        (high, UNCOVERED_COLOUR, (4.5, 40.5)),
    ):
        ring = pixels_near(tile, colour)
        distance = np.hypot(*(ring - np.array(centre)).T)
        assert len(ring) > 10
        assert distance == pytest.approx(np.full(len(ring), 9.0), abs=1.6)


def test_the_worst_covered_nodules_get_the_tiles(scan):
    volume, mask = scan
    covered = [PreviewNodule((z, 30, 30), 6.0, 1.0) for z in (4, 9, 14)]
    lost = PreviewNodule((25, 12, 30), 3.0, 0.0)
    picture = drawn(volume, mask, [*covered, lost])
    assert len(pixels_near(picture[80:, 160:], UNCOVERED_COLOUR)) > 5


@pytest.mark.parametrize("coverage", [0.0, 1.0])
def test_the_slabs_with_most_filled_tissue_are_shown_whatever_the_nodules(scan, coverage):
    volume, mask = scan
    filled = np.zeros_like(mask)
    for z, width in ((5, 8), (12, 4), (17, 6), (22, 8)):  # 12 is the least
        filled[z, 25:35, 20 : 20 + width] = 1
    nodules = [PreviewNodule((z, 30, 30), 6.0, coverage) for z in (9, 14, 26)]
    preview = MaskPreview(volume, mask, SPACING, [9, 14, 26], filled=filled)
    alone, both = preview.draw(tile_px=80), preview.draw(nodules, tile_px=80)
    assert (alone.shape, both.shape) == ((80, 240, 3), (160, 240, 3))
    widths = []
    for tile in (both[:80, 80 * i : 80 * i + 78] for i in range(3)):
        columns = pixels_near(tile, FILLED_COLOUR)[:, 1]
        widths.append((columns.max() - columns.min() + 1) / 2)
    assert widths == pytest.approx([8, 6, 8], abs=1)


def test_without_filled_tissue_the_slabs_with_most_tissue_in_the_mask_are_shown(scan):
    volume, mask = scan
    for z in (6, 13, 22):
        volume[z, 28:32, 28:32] = 300  # white, where tissue around is grey
    picture = MaskPreview(volume, mask, SPACING, filled=np.zeros_like(mask)).draw(tile_px=80)
    for tile in (picture[:, :80], picture[:, 80:160], picture[:, 160:]):
        assert tile[40, 40].tolist() == [255, 255, 255]


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 5, 40)])
def test_a_scan_thinner_than_a_slab_and_an_empty_mask_still_give_three_tiles(shape):
    empty = np.zeros(shape, dtype=np.uint8)
    picture = MaskPreview(np.full(shape, -1000, np.int16), empty, SPACING).draw(tile_px=40)
    assert picture.shape == (40, 120, 3)


def test_the_jpeg_holds_the_picture():
    picture = np.full((16, 48, 3), (200, 100, 50), dtype=np.uint8)
    data = encoded_jpeg(picture)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(int) - picture).max() < 8
