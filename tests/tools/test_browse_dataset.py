import runpy

import cv2
import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.slab_overlays import GRID_GAP_PX, TRUTH_COLOUR, picture_grid
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.slab_folder import write_slab_folder

NATURAL = {"train": "natural", "val": "natural", "test": "natural"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = write_slab_folder(tmp_path_factory.mktemp("browse"), n_series=10)
    write_splits(folder, protocol="strict", positive_rate=NATURAL)
    return folder


@pytest.fixture
def browse(repository, prepared, tmp_path, monkeypatch):
    main = runpy.run_path(str(repository / "tools" / "browse_dataset.py"))["main"]
    config = repository / "configs" / "lung_deform_detr.py"
    monkeypatch.setenv("LUNGDET_DATA", str(prepared))

    def run(*arguments):
        main([str(config), "--data", str(prepared), "--out", str(tmp_path), *arguments])
        return sorted(path.name for path in tmp_path.iterdir())

    return run


def green_pixels(path):
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return int(np.all(picture == TRUTH_COLOUR, axis=-1).sum())


def test_pages_of_positive_slabs_show_their_boxes(browse, tmp_path):
    # Seven positive training slabs, three on a page.
    pages = browse("--per-page", "3", "--slabs", "10")
    assert pages == [f"train_positive_00{page}.png" for page in range(3)]
    assert all(green_pixels(tmp_path / page) > 100 for page in pages)


def test_healthy_slabs_have_none(browse, tmp_path):
    (page,) = browse("--kind", "healthy", "--slabs", "2", "--split", "val")
    assert page == "val_healthy_000.png"
    assert green_pixels(tmp_path / page) == 0


def test_the_same_seed_gives_the_same_page(browse, tmp_path):
    browse("--slabs", "2", "--seed", "3")
    first = (tmp_path / "train_positive_000.png").read_bytes()
    browse("--slabs", "2", "--seed", "3")
    assert (tmp_path / "train_positive_000.png").read_bytes() == first


def test_a_kind_that_is_not_there(browse):
    with pytest.raises(LungDetError, match="has no ignored slab; try another --kind"):
        browse("--kind", "ignored")


def test_a_grid_holds_pictures_of_any_size():
    small, large = np.full((2, 3, 3), 255, np.uint8), np.full((4, 5, 3), 9, np.uint8)
    page = picture_grid([[small, large], [large]])
    assert page.shape == (
        2 * (4 + GRID_GAP_PX) + GRID_GAP_PX,
        2 * (5 + GRID_GAP_PX) + GRID_GAP_PX,
        3,
    )
    assert np.array_equal(page[GRID_GAP_PX : GRID_GAP_PX + 2, GRID_GAP_PX : GRID_GAP_PX + 3], small)
    assert int((page == 255).sum()) == 2 * 3 * 3
    assert int((page == 9).sum()) == 2 * 4 * 5 * 3
    with pytest.raises(LungDetError):
        picture_grid([[]])
