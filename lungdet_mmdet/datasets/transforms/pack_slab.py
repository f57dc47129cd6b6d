"""The last step of a pipeline: a slab as it travels to the detector."""

from __future__ import annotations

import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS
from torch import Tensor


@TRANSFORMS.register_module()
class PackSlab(PackDetInputs):
    """mmdet's PackDetInputs, with a grey slab held once instead of three times.

    The image is still (3, height, width) for whoever reads it, but where the channels are equal
    they share their memory: a loading process hands over one channel of 8 bits, or of 16 after
    noise, which is a twelfth or a sixth of three in 32 bits. Half precision is off by
    1/16 of a grey level at most; detectors compute in 32 bits or by their own rules.

    Required, modified and added keys are those of PackDetInputs.
    """

    def transform(self, results: dict) -> dict:
        """Pack image and annotations."""
        packed = super().transform(results)
        packed["inputs"] = compact(packed["inputs"])
        return packed


def compact(image: Tensor) -> Tensor:
    """Return the same (channels, height, width) image in as few bytes as hold it.

    One channel becomes three. Floats become half precision; grey levels up to 255 fit.
    """
    if image.dtype == torch.float32:
        image = image.half()
    first = image[:1]
    if len(image) > 1 and not all(torch.equal(first[0], other) for other in image[1:]):
        return image.contiguous()
    # A copy: a view of the first channel would carry the others along.
    return first.clone(memory_format=torch.contiguous_format).expand(3, -1, -1)
