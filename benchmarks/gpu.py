# SPDX-License-Identifier: Apache-2.0
"""What a GPU does with this package: one table, in which a fault is a row and not the end.

Attention ops against each other, training steps by precision and batch size with their peak
memory, and the network's time per slab by precision with its difference from 32 bits. Random
pictures and weights: they change no time. Runs on a CPU as well, to try the command.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lungdet_mmdet.apis.config_file import read_config

HEADS, CHANNELS, POINTS = 8, 32, 4
STRIDES = (8, 16, 32, 64)
PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """One measurement: milliseconds, peak memory on the GPU in MiB, and what else there is to say.

    ``fault`` is what went wrong instead; "" for nothing.
    """

    what: str
    milliseconds: float | None = None
    peak_mib: float | None = None
    remark: str = ""
    fault: str = ""


def benchmark_gpu(
    config: Path, *, device: str, size_px: int, batches: Sequence[int], repeats: int
) -> Iterator[Row]:
    """Measure everything and yield rows as they come.

    Parameters
    ----------
    config : of a DETR-like detector of this package.
    device : "cuda", or "cpu" to try the command.
    size_px : side of the square slabs.
    batches : slabs per training step.
    repeats : runs of which the median counts; as many again, at most three, come before.
    """
    place = torch.device(device)
    for precision, dtype in PRECISIONS.items():
        yield from _attention_rows(precision, dtype or torch.float32, place, size_px, repeats)
    for batch in batches:
        for precision, dtype in PRECISIONS.items():
            what = f"training step, {batch} slabs, {precision}"
            yield _guarded(
                what, lambda b=batch, d=dtype: _step(config, b, d, place, size_px, repeats)
            )
    reference: list[Tensor] = []
    for name, dtype, tf32 in (
        ("fp32", None, False),
        ("TF32", None, True),
        ("fp16", torch.float16, False),
        ("bf16", torch.bfloat16, False),
    ):
        what = f"network alone, one slab, {name}"
        yield _guarded(
            what, lambda d=dtype, t=tf32: _infer(config, d, t, place, size_px, repeats, reference)
        )


def _guarded(what: str, measure: Callable[[], tuple[float, float | None, str]]) -> Row:
    try:
        milliseconds, peak, remark = measure()
    except Exception as error:  # whatever a driver or compiler raises is the finding
        text = (str(error).strip().splitlines() or ["no message"])[0]
        return Row(what, fault=f"{type(error).__name__}: {text[:200]}")
    return Row(what, round(milliseconds, 3), None if peak is None else round(peak, 1), remark)


def _timed(
    run: Callable[[], Any], device: torch.device, repeats: int
) -> tuple[float, float | None]:
    """Return the median milliseconds and the peak memory in MiB of a call."""
    on_gpu = device.type == "cuda"

    def once() -> float:
        began = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) * 1e3

    for _ in range(min(repeats, 3)):
        once()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    median = statistics.median(once() for _ in range(repeats))
    return median, torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else None


def _attention_rows(
    precision: str, dtype: torch.dtype, device: torch.device, size_px: int, repeats: int
) -> Iterator[Row]:
    """Forward and backward of one encoder layer's attention, by each op that is there."""
    from mmcv.ops import multi_scale_deform_attn as module

    from lungdet_mmdet.ops import attention_choice, is_stand_in

    inputs = _attention_inputs(dtype, device, size_px)
    pure = attention_choice.mmcv_attention()
    ops: dict[str, Callable[..., Tensor]] = {
        "embedding bag": attention_choice.BagAttention.apply,
        "mmcv's grid_sample": lambda v, shapes, _, xy, w, step: pure(v, shapes, xy.to(v), w.to(v)),
    }
    if device.type == "cuda":
        ops["Triton"] = lambda *given: attention_choice.triton_function().apply(*given)
        if not is_stand_in():
            own = getattr(module, attention_choice.KEPT, getattr(module, attention_choice.FUNCTION))
            ops["mmcv's compiled op"] = own.apply
    exact = _with_gradients(
        attention_choice.BagAttention.apply,
        [t.double() if t.is_floating_point() else t for t in inputs],
    )
    for name, function in ops.items():

        def measure(function: Callable[..., Tensor] = function) -> tuple[float, float | None, str]:
            found = _with_gradients(function, inputs)
            worst = max(
                ((a.double() - b).abs().max() / b.abs().max()).item()
                for a, b in zip(found, exact, strict=True)
            )
            cost = _timed(lambda: _with_gradients(function, inputs), device, repeats)
            return *cost, f"largest relative error {worst:.0e}"

        yield _guarded(f"attention, {precision} values, {name}", measure)


def _attention_inputs(dtype: torch.dtype, device: torch.device, size_px: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    sides = [-(-size_px // stride) for stride in STRIDES]
    shapes = torch.tensor([[side, side] for side in sides])
    areas = shapes.prod(1)
    keys = int(areas.sum())
    grid = (1, keys, HEADS, len(STRIDES), POINTS)
    value = torch.randn(1, keys, HEADS, CHANNELS, generator=draw)
    locations = torch.rand(*grid, 2, generator=draw) * 1.1 - 0.05
    weights = torch.rand(grid, generator=draw)
    weights = weights / weights.sum((-1, -2), keepdim=True)
    whole = [tensor.to(device) for tensor in (shapes, areas.cumsum(0) - areas)]
    return [value.to(device, dtype), *whole, locations.to(device), weights.to(device)]


def _with_gradients(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().requires_grad_(t.is_floating_point()) for t in inputs]
    out = function(*leaves, 64)
    floats = [leaf for leaf in leaves if leaf.requires_grad]
    return [out.detach(), *torch.autograd.grad(out.float().square().sum(), floats)]


def _detector(config: Path, device: torch.device) -> Any:
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from lungdet_mmdet.engine.run_setup import drop_pretrained
    from lungdet_mmdet.ops.detr_heads import run_heads_in_full_precision

    read = read_config(config)
    init_default_scope(read.default_scope)
    drop_pretrained(read)
    torch.manual_seed(0)
    detector = MODELS.build(read.model)
    detector.init_weights()
    run_heads_in_full_precision(detector)
    return detector.to(device)


def _batch(count: int, size_px: int) -> dict[str, Any]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    draw = torch.Generator().manual_seed(0)
    samples = []
    for index in range(count):
        shape = (size_px, size_px)
        sample = DetDataSample(
            metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
        )
        # One slab in eight holds a nodule, as in the paper's data.
        boxes = torch.tensor([[10.0, 10.0, 24.0, 22.0]])[: int(index % 8 == 0)]
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes)).long())
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        samples.append(sample)
    grey = torch.randint(0, 256, (count, 1, size_px, size_px), generator=draw, dtype=torch.uint8)
    return {"inputs": list(grey.expand(-1, 3, -1, -1)), "data_samples": samples}


def _autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _step(
    config: Path, batch: int, dtype: torch.dtype | None, device: torch.device, size_px: int,
    repeats: int,
) -> tuple[float, float | None, str]:  # fmt: skip
    detector = _detector(config, device).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-5)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step() -> None:
        data = detector.data_preprocessor(_batch(batch, size_px), training=True)
        with _autocast(dtype, device):
            losses = detector.loss(data["inputs"], data["data_samples"])
            total, _ = detector.parse_losses(losses)
        optimizer.zero_grad()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()

    median, peak = _timed(step, device, repeats)
    return median, peak, f"{batch * 1e3 / median:.1f} slabs/s"


@torch.inference_mode()
def _infer(
    config: Path, dtype: torch.dtype | None, tf32: bool, device: torch.device, size_px: int,
    repeats: int, reference: list[Tensor],
) -> tuple[float, float | None, str]:  # fmt: skip
    """Time the network; ``reference`` gets the first precision's scores and boxes."""
    detector = _detector(config, device).eval()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        data = detector.data_preprocessor(_batch(1, size_px), training=False)

        def ask() -> Any:
            with _autocast(dtype, device):
                return detector.predict(data["inputs"], data["data_samples"])[0].pred_instances

        median, peak = _timed(ask, device, repeats)
        scores = ask().scores.double().sort(descending=True).values.cpu()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    if not reference:
        reference.append(scores)
        return median, peak, ""
    return median, peak, f"scores differ by {(scores - reference[0]).abs().max():.0e}"


def report_lines(rows: Sequence[Row], device: str) -> list[str]:
    """Return the table as lines of Markdown."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    lines = [
        f"torch {torch.__version__}, {name}",
        "",
        "| | ms | peak MiB | |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = ["" if v is None else f"{v:g}" for v in (row.milliseconds, row.peak_mib)]
        remark = f"FAULT {row.fault}" if row.fault else row.remark
        lines.append(f"| {row.what} | {cells[0]} | {cells[1]} | {remark} |")
    return lines
