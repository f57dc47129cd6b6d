import numpy as np
import pytest
import torch

from lungdet_mmdet.datasets.luna16_slabs import PackSlab

SLAB = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def pack(image):
    results = {"img": image, "img_shape": image.shape[:2]}
    return PackSlab(meta_keys=("img_shape",))(results)["inputs"]


@pytest.mark.parametrize("image", [np.repeat(SLAB[..., None], 3, axis=2), SLAB], ids=["3", "1"])
def test_a_grey_slab_is_held_once_and_read_three_times(image):
    packed = pack(image)
    assert packed.shape == (3, 3, 4)
    assert packed.dtype == torch.uint8
    assert packed.untyped_storage().nbytes() == 12
    assert all(channel.tolist() == SLAB.tolist() for channel in packed)


def test_a_slab_with_noise_takes_two_bytes_a_pixel():
    noisy = SLAB.astype(np.float32) + np.float32(0.25)
    packed = pack(np.repeat(noisy[..., None], 3, axis=2))
    assert packed.dtype == torch.float16
    assert packed.untyped_storage().nbytes() == 24
    # 220.25 lies between two halves an eighth apart.
    assert packed[0, 2, 3].item() == 220.25


def test_three_different_channels_stay():
    image = np.stack([SLAB, SLAB, SLAB + 1], axis=2)
    packed = pack(image)
    assert packed.untyped_storage().nbytes() == 36
    assert packed[2].tolist() == (SLAB + 1).tolist()


def test_one_channel_travels_from_a_loading_process():
    packed = pack(SLAB)
    loader = torch.utils.data.DataLoader([packed], num_workers=1, collate_fn=list)
    (received,) = next(iter(loader))
    assert received.untyped_storage().nbytes() == 12
    assert torch.equal(received, packed)


def test_a_stock_preprocessor_takes_it():
    from mmdet.models.data_preprocessors import DetDataPreprocessor

    preprocessor = DetDataPreprocessor(mean=[100.0] * 3, std=[50.0] * 3, pad_size_divisor=4)
    for image in (pack(SLAB), pack(SLAB.astype(np.float32))):
        batch = preprocessor({"inputs": [image], "data_samples": None}, training=False)["inputs"]
        assert batch.shape == (1, 3, 4, 4)
        assert batch[0, 1, 2, 3].item() == pytest.approx(2.4)
