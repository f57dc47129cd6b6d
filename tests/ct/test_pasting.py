import numpy as np
import pytest

from lungdet_mmdet.ct.augmentation import cut_nodule, find_place, paste_nodule


def slab_with_nodule(channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A lung of grey 60 with a disc of grey 200, 10 px wide, about (row 20, column 30)."""
    y, x = np.mgrid[:60, :80] + 0.5
    image = np.where(np.hypot(y - 20, x - 30) < 5, 200, 60).astype(np.uint8)
    return (image if channels is None else np.stack([image] * channels, -1)), np.array(
        [25.0, 15.0, 35.0, 25.0]
    )


def test_the_patch_holds_the_nodule_in_its_middle_and_fades_out():
    patch = cut_nodule(*slab_with_nodule())
    assert patch.diameter_px == 10.0
    half = patch.image.shape[0] // 2
    assert patch.image[half, half] == 200
    assert patch.image[half, 0] == 0
    assert patch.image[half, half + 4] == 200


def test_twice_as_large():
    patch = cut_nodule(*slab_with_nodule(), scale=2.0)
    half = patch.image.shape[0] // 2
    assert patch.diameter_px == 20.0
    assert patch.image[half, half + 8] == 200


def test_pasted_by_maximum_with_its_box():
    image, box = slab_with_nodule()
    patch = cut_nodule(image, box)
    bright = np.full((60, 80), 230, np.uint8)
    assert (paste_nodule(bright, patch, (40, 50))[0] == 230).all()
    pasted, new = paste_nodule(np.full((60, 80), 70, np.uint8), patch, (40, 50))
    assert new.tolist() == [45.5, 35.5, 55.5, 45.5]
    assert pasted[40, 50] == 200
    # The lung around it is no brighter than it was.
    assert pasted[40, 60] == 70


def test_pasted_over_the_edge():
    patch = cut_nodule(*slab_with_nodule())
    pasted, new = paste_nodule(np.zeros((60, 80), np.uint8), patch, (0, 79))
    assert pasted[0, 79] == 200
    assert new.tolist() == [74.5, -4.5, 84.5, 5.5]


def test_all_channels_are_pasted():
    image, box = slab_with_nodule(channels=3)
    pasted, _ = paste_nodule(np.full_like(image, 70), cut_nodule(image, box), (40, 50))
    assert pasted[40, 50].tolist() == [200, 200, 200]


def test_places_lie_in_the_lung_and_off_other_boxes():
    image, box = slab_with_nodule()
    patch = cut_nodule(image, box)
    lung = np.zeros((60, 80), np.uint8)
    lung[:, 40:] = 60
    rng = np.random.RandomState(0)
    taken = np.array([[40.0, 0.0, 80.0, 20.0]])
    places = [find_place(lung, patch, taken, rng, tries=50) for _ in range(20)]
    found = [p for p in places if p]
    assert found
    assert all(x >= 45 and y >= 25 for y, x in found)


@pytest.mark.parametrize("grey", [0, 195])
def test_no_place_outside_the_lungs_or_where_it_would_not_be_seen(grey):
    patch = cut_nodule(*slab_with_nodule())
    ground = np.full((60, 80), grey, np.uint8)
    assert find_place(ground, patch, np.zeros((0, 4)), np.random.RandomState(0)) is None


def test_no_place_in_a_window_smaller_than_the_nodule():
    patch = cut_nodule(*slab_with_nodule())
    tiny = np.full((8, 80), 60, np.uint8)
    assert find_place(tiny, patch, np.zeros((0, 4)), np.random.RandomState(0)) is None
