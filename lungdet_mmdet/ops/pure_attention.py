"""Puts this package's deformable attention in the place of mmcv's own pure PyTorch version.

mmcv calls that version wherever its CUDA op cannot be used, above all on a CPU, where it takes most
of a detector's time: it samples every level with ``grid_sample`` and holds all samples before it
sums them. The same sums as one weighted embedding bag take a fraction of it
(docs/benchmarks.md; the results differ by rounding). What runs on a GPU is chosen in
:mod:`lungdet_mmdet.ops.attention_choice`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from lungdet_mmdet.ops import attention_choice
from lungdet_mmdet.ops.attention_choice import CHOICE, OF_MMCV
from lungdet_mmdet.ops.deform_attn import deform_attn

NAME = "multi_scale_deformable_attn_pytorch"
KEPT = "multi_scale_deformable_attn_pytorch_of_mmcv"
"""Under this name the replaced function stays in mmcv's module."""


def embedding_bag_attention(
    value: Tensor, value_spatial_shapes: Tensor, sampling_locations: Tensor, attention: Tensor
) -> Tensor:
    """Multi-scale deformable attention with the arguments of mmcv's pure PyTorch function.

    Parameters
    ----------
    value : (batch, keys, heads, channels).
    value_spatial_shapes : (levels, 2) integer heights and widths.
    sampling_locations : (batch, queries, heads, levels, points, 2), shares of width and height.
    attention : (batch, queries, heads, levels, points).

    Returns
    -------
    Tensor
        (batch, queries, heads * channels).
    """
    sizes = value_spatial_shapes.prod(1)
    starts = sizes.cumsum(0) - sizes
    inputs = (value, value_spatial_shapes, starts, sampling_locations, attention)
    if value.is_cuda:  # bfloat16: mmcv keeps it from its compiled op
        return attention_choice.CudaAttention.apply(*inputs, 64)
    return deform_attn(*inputs)


def install() -> None:
    """Replace mmcv's function; a second call changes nothing.

    With ``LUNGDET_ATTENTION=mmcv`` in the environment everything stays as it is.
    """
    from mmcv.ops import multi_scale_deform_attn as module

    if os.environ.get(CHOICE) != OF_MMCV and not hasattr(module, KEPT):
        setattr(module, KEPT, getattr(module, NAME))
        setattr(module, NAME, embedding_bag_attention)
    attention_choice.install()


def mmcv_attention() -> Callable[..., Tensor]:
    """Return mmcv's own pure PyTorch function, replaced or not."""
    from mmcv.ops import multi_scale_deform_attn as module

    return getattr(module, KEPT, getattr(module, NAME))


@contextmanager
def mmcv_attention_restored() -> Iterator[None]:
    """Let mmcv use its own function for a while, to compare."""
    with attention_replaced(mmcv_attention()):
        yield


@contextmanager
def attention_replaced(function: Callable[..., Tensor]) -> Iterator[None]:
    """Let mmcv use any function for a while: to export to other runtimes.

    Parameters
    ----------
    function : with the arguments of :func:`embedding_bag_attention`.
    """
    from mmcv.ops import multi_scale_deform_attn as module

    before = getattr(module, NAME)
    setattr(module, NAME, function)
    try:
        yield
    finally:
        setattr(module, NAME, before)
