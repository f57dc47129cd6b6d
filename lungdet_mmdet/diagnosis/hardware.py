"""GPUs, and whether the deformable attention works on every kind of device there is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lungdet_mmdet.diagnosis.findings import FAIL, NOTE, OK, WARN, Line

if TYPE_CHECKING:
    import torch


def check_devices() -> Iterator[Line]:
    """Name the GPUs, or say why there is none to use."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_name(index)
            major, minor = torch.cuda.get_device_capability(index)
            text = f"{name}, capability {major}.{minor}, CUDA {torch.version.cuda}"
            yield Line(OK, f"cuda:{index}", text)
        yield Line(OK, "amp", "fp16 mixed precision is available")
        return
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        yield Line(
            WARN,
            "cuda",
            "there is an NVIDIA driver, but this torch is built for CPU only",
            "install a CUDA build of torch: https://pytorch.org/get-started/locally",
        )
    elif shutil.which("nvidia-smi"):
        yield Line(
            WARN,
            "cuda",
            f"torch is built for CUDA {torch.version.cuda} but finds no usable GPU",
            "check that 'nvidia-smi' lists a GPU and that its driver supports that CUDA version",
        )
    else:
        yield Line(NOTE, "cuda", "no GPU: training and inference run on the CPU")
    yield Line(NOTE, "amp", "no GPU: --amp falls back to plain precision")


def check_attention() -> Iterator[Line]:
    """Run the deformable attention forward and backward on every kind of device there is."""
    import torch

    from lungdet_mmdet.ops import stand_in

    standing_in = stand_in.is_stand_in()
    kind = "pure PyTorch stand-in" if standing_in else "compiled"
    yield Line(OK, "mmcv ops", kind)
    expected = None
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        topic = f"attention ({device})"
        try:
            output = _attention_output(device)
            if expected is not None and not torch.allclose(output, expected, atol=1e-4):
                raise RuntimeError("the result differs from the one on the CPU")
        except Exception as error:  # whatever the op raises is the finding
            remedy = f"reinstall mmcv for this torch: {stand_in.INSTALL_COMPILED}"
            yield Line(FAIL, topic, f"does not work: {error}", remedy)
            continue
        expected = output
        if device == "cpu":
            yield Line(OK, topic, "works (on the CPU mmcv uses its own PyTorch version)")
        elif standing_in:
            remedy = f"for full speed: {stand_in.INSTALL_COMPILED}"
            yield Line(
                WARN, topic, "works, but the op is not compiled: slower, needs more memory", remedy
            )
        else:
            yield Line(OK, topic, "works, compiled")


def _attention_output(device: str) -> torch.Tensor:
    import torch
    from mmcv.ops import MultiScaleDeformableAttention

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = MultiScaleDeformableAttention(
            embed_dims=32, num_heads=4, num_levels=2, num_points=2, dropout=0.0, batch_first=True
        ).to(device)
    shapes = torch.tensor([[4, 4], [2, 2]], device=device)
    query = torch.linspace(-1, 1, 20 * 32, device=device).view(1, 20, 32).requires_grad_()
    reference = torch.linspace(0, 1, 20, device=device).view(1, 20, 1, 1).expand(1, 20, 2, 2)
    output = attention(
        query,
        reference_points=reference,
        spatial_shapes=shapes,
        level_start_index=torch.tensor([0, 16], device=device),
    )
    output.square().sum().backward()
    if not query.grad.isfinite().all():
        raise RuntimeError("the gradients are not finite")
    return output.detach().cpu()
