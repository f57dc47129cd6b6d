# SPDX-License-Identifier: Apache-2.0
"""Which deformable attention runs: mmcv's compiled op, Triton's kernels, or one embedding bag.

On a CUDA device mmcv calls ``MultiScaleDeformableAttnFunction``, which needs mmcv's compiled
extension. Where that is missing, :func:`install` puts this package's dispatch in its place:
Triton's kernels, and the embedding bag where Triton is missing or does not compile, or where
PyTorch is asked for deterministic algorithms. A compiled op is left alone, but for bfloat16, which
it does not take.

On a CPU it is always the embedding bag, in the place of mmcv's own pure PyTorch version. That takes
most of a detector's time: it samples every level with ``grid_sample`` and holds all samples before
it sums them. The same sums as one weighted embedding bag take a fraction of it (docs/benchmarks.md;
the results differ by rounding).

``LUNGDET_ATTENTION`` in the environment overrides that: ``mmcv`` leaves everything of mmcv in
place, ``triton`` and ``bag`` take these also where mmcv is compiled.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from lungdet_mmdet.ops import is_stand_in
from lungdet_mmdet.ops.deform_attn import deform_attn, ms_deform_attn_backward

CHOICE = "LUNGDET_ATTENTION"
OF_MMCV, TRITON, BAG = "mmcv", "triton", "bag"
"""Values of the environment variable; "mmcv" is its compiled op, or its Python without one."""

FUNCTION = "MultiScaleDeformableAttnFunction"
KEPT = "MultiScaleDeformableAttnFunction_of_mmcv"
"""Under this name the replaced function stays in mmcv's module."""
LEAST_TRITON = (3, 0)
TOLERANCE = 1e-3
"""Of the trial run, relative to the largest value: far above rounding, far below a fault."""


class BagAttention(Function):
    """The embedding bag with the arguments of mmcv's compiled function.

    The forward pass is computed again for the gradients rather than kept: its indices and weights
    are many times larger than its inputs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        locations: Tensor,
        weights: Tensor,
        im2col_step: int = 64,
    ) -> Tensor:
        """Sum the samples."""
        inputs = (value, spatial_shapes, level_start_index, locations, weights)
        ctx.save_for_backward(*inputs)
        return deform_attn(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of values, locations and weights."""
        value, _, _, locations, weights = ctx.saved_tensors
        of_value, of_locations, of_weights = map(torch.zeros_like, (value, locations, weights))
        ms_deform_attn_backward(
            *ctx.saved_tensors, grad_out, of_value, of_locations, of_weights, im2col_step=64
        )
        return of_value, None, None, of_locations, of_weights, None


class CudaAttention:
    """Stands in the place of mmcv's function; calls what :func:`kernel_for` chooses."""

    @staticmethod
    def apply(value: Tensor, *others: Any) -> Tensor:
        """Take what mmcv's function takes; locations and weights keep their own precision."""
        return kernel_for(value.device).apply(value, *others)


def kernel_for(device: torch.device) -> Any:
    """Return the function that takes the place of mmcv's own on a device."""
    wanted = os.environ.get(CHOICE)
    if device.type != "cuda" or wanted == BAG:
        return BagAttention
    if wanted != TRITON and torch.are_deterministic_algorithms_enabled():
        return BagAttention
    return BagAttention if triton_fault(device) else triton_function()


@functools.cache
def triton_fault(device: torch.device) -> str | None:
    """Compile and try Triton's kernels once on a device; return why they cannot be used there.

    Warns where they cannot: training goes on, but slower.
    """
    fault = _triton_fault(device)
    if fault:
        warnings.warn(f"{fault}: deformable attention runs as an embedding bag", stacklevel=2)
    return fault


def _triton_fault(device: torch.device) -> str | None:
    try:
        import triton
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < LEAST_TRITON:
        return f"Triton {triton.__version__} is older than 3.0"
    try:
        difference = _difference_from_bag(device)
    except Exception as error:  # whatever a compiler or a driver raises is the finding
        return f"Triton's kernels do not run here ({type(error).__name__}: {_first_line(error)})"
    if not difference <= TOLERANCE:  # NaN as well
        return f"Triton's kernels are off by {difference:.1e} of the largest value"
    return None


def triton_function() -> Any:
    """Return the function of Triton's kernels; imports Triton."""
    # Imported only here: without Triton the package works all the same.
    from lungdet_mmdet.ops.triton_attention import TritonAttention

    return TritonAttention


def _difference_from_bag(device: torch.device) -> float:
    """Largest relative difference of results and gradients from the embedding bag, a tiny case."""
    shapes = torch.tensor([[4, 3], [2, 2]], device=device)
    starts = torch.tensor([0, 12], device=device)
    draw = torch.Generator().manual_seed(0)
    results = []
    inputs = [
        torch.rand(size, generator=draw).to(device)
        for size in ((1, 16, 2, 32), (1, 5, 2, 2, 2, 2), (1, 5, 2, 2, 2))
    ]
    for function in (triton_function(), BagAttention):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        with torch.enable_grad():
            out = function.apply(leaves[0], shapes, starts, *leaves[1:], 64)
            results.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*results, strict=True))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def _install_on_cuda() -> None:
    """Put the dispatch in the place of mmcv's function where this is wanted; once."""
    from mmcv.ops import multi_scale_deform_attn as module

    warnings.filterwarnings("ignore", message="MultiScaleDeformableAttnFunction does not support")
    wanted = os.environ.get(CHOICE)
    if wanted == OF_MMCV or (wanted not in (TRITON, BAG) and not is_stand_in()):
        return
    if not hasattr(module, KEPT):
        setattr(module, KEPT, getattr(module, FUNCTION))
        setattr(module, FUNCTION, CudaAttention)


def describe_attention(device: torch.device) -> str:
    """Say in one line which deformable attention runs on a device.

    On a CUDA device this compiles Triton's kernels where they are what runs.
    """
    if device.type != "cuda":
        mine = os.environ.get(CHOICE) != OF_MMCV
        name = "one embedding bag (lungdet_mmdet)" if mine else "mmcv's grid_sample"
        return f"deformable attention on the {device.type}: {name}"
    return f"deformable attention on {device}: {_name_on_cuda(device)}"


def _name_on_cuda(device: torch.device) -> str:
    from mmcv.ops import multi_scale_deform_attn as module

    if getattr(module, FUNCTION) is not CudaAttention:
        if is_stand_in():
            return "one embedding bag, called by mmcv's function"
        return "mmcv's compiled op"
    if kernel_for(device) is not BagAttention:
        return "Triton kernels (lungdet_mmdet)"
    if fault := triton_fault(device):
        return f"one embedding bag, slower: {fault}"
    return "one embedding bag, as asked for"


def is_slow_on(device: torch.device) -> bool:
    """Whether a GPU has to do with the embedding bag."""
    from mmcv.ops import multi_scale_deform_attn as module

    if device.type != "cuda" or getattr(module, FUNCTION) is not CudaAttention:
        return False
    return kernel_for(device) is BagAttention


NAME = "multi_scale_deformable_attn_pytorch"
KEPT_NAME = "multi_scale_deformable_attn_pytorch_of_mmcv"
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
        return CudaAttention.apply(*inputs, 64)
    return deform_attn(*inputs)


def install() -> None:
    """Replace mmcv's function; a second call changes nothing.

    With ``LUNGDET_ATTENTION=mmcv`` in the environment everything stays as it is.
    """
    from mmcv.ops import multi_scale_deform_attn as module

    if os.environ.get(CHOICE) != OF_MMCV and not hasattr(module, KEPT_NAME):
        setattr(module, KEPT_NAME, getattr(module, NAME))
        setattr(module, NAME, embedding_bag_attention)
    _install_on_cuda()


def mmcv_attention() -> Callable[..., Tensor]:
    """Return mmcv's own pure PyTorch function, replaced or not."""
    from mmcv.ops import multi_scale_deform_attn as module

    return getattr(module, KEPT_NAME, getattr(module, NAME))


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
