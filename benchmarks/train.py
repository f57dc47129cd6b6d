# SPDX-License-Identifier: Apache-2.0
"""How fast a config trains, and whether its data path keeps up.

Two questions: how many slabs a second the training loader delivers by number of workers, and what
share of the time a training step would wait for it; and how many iterations a second this machine
trains, with mmengine's own timer.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measured_process import measure_in_process, peak_rss_mb

WARM_UP = 5
"""Batches and iterations left out of the figures: workers start, caches fill."""


@dataclass(frozen=True)
class LoaderFigures:
    """The training loader with one number of workers.

    Parameters
    ----------
    workers : loader processes.
    batch_size : slabs per batch.
    slabs_per_s : delivered when nothing else waits.
    assumed_it_per_s : speed of the assumed training step.
    wait_share : part of the time that such a step would spend waiting for its batch.
    """

    workers: int
    batch_size: int
    slabs_per_s: float
    assumed_it_per_s: float
    wait_share: float


@dataclass(frozen=True)
class StepFigures:
    """Training steps of a config on this machine.

    Parameters
    ----------
    device : "cpu", or the GPU's name.
    iterations : measured, after warming up.
    it_per_s : iterations a second.
    slabs_per_s : slabs a second.
    data_share : part of an iteration that waits for data.
    peak_rss_mb : highest memory of the process, in MiB.
    peak_gpu_mb : highest memory allocated on the GPU, in MiB; None without one.
    """

    device: str
    iterations: int
    it_per_s: float
    slabs_per_s: float
    data_share: float
    peak_rss_mb: float
    peak_gpu_mb: float | None


def benchmark_loader(
    config: Path, data: Path, *, workers: Sequence[int], batches: int, assumed_it_per_s: float
) -> list[LoaderFigures]:
    """Measure the training loader for each number of workers.

    Raises
    ------
    LungDetError
        If config or data cannot be used.
    """
    order = {"config": str(config), "data": str(data), "batches": batches}
    found = []
    for count in workers:
        asked = {**order, "workers": count, "assumed_it_per_s": assumed_it_per_s}
        found.append(LoaderFigures(**measure_in_process(__name__, asked, about=str(config))))
    return found


def benchmark_steps(
    config: Path, data: Path, *, iterations: int, threads: int | None = None
) -> StepFigures:
    """Train for some iterations and measure them.

    Raises
    ------
    LungDetError
        If config or data cannot be used.
    """
    order = {
        "config": str(config),
        "data": str(data),
        "iterations": iterations,
        "threads": threads,
    }
    return StepFigures(**measure_in_process(__name__, order, about=str(config)))


def _measured_process(order: dict[str, Any]) -> dict[str, Any]:
    """Do what an order says, in this process."""
    from mmengine.registry import init_default_scope

    from lungdet_mmdet.apis.config_file import check_data, read_config

    with tempfile.TemporaryDirectory(prefix="lungdet-benchmark-") as work_dir:
        config = read_config(
            Path(order["config"]),
            data=Path(order["data"]),
            work_dir=Path(work_dir),
        )
        check_data(config, ("train",))
        init_default_scope(config.default_scope)
        return asdict(_steps(config, order) if "iterations" in order else _loader(config, order))


def _loader(config: Any, order: dict[str, Any]) -> LoaderFigures:
    """Take batches as fast as they come, then at the pace of the assumed step."""
    from mmengine.runner import Runner

    loader_config = config.train_dataloader
    loader_config.num_workers = order["workers"]
    # Endless and shuffled: the figures shall not depend on how many slabs the split has.
    loader_config.sampler = {"type": "InfiniteSampler", "shuffle": True}
    batch_size, batches = loader_config.batch_size, order["batches"]
    step_s = 1.0 / order["assumed_it_per_s"]

    batch = iter(Runner.build_dataloader(loader_config, seed=0))
    for _ in range(WARM_UP):
        next(batch)
    began = time.perf_counter()
    for _ in range(batches):
        next(batch)
    seconds = time.perf_counter() - began

    waited = 0.0
    for _ in range(batches):
        time.sleep(step_s)  # the GPU at work: this process has nothing to do
        asked = time.perf_counter()
        next(batch)
        waited += time.perf_counter() - asked
    return LoaderFigures(
        workers=order["workers"],
        batch_size=batch_size,
        slabs_per_s=round(batches * batch_size / seconds, 1),
        assumed_it_per_s=order["assumed_it_per_s"],
        wait_share=round(waited / (waited + batches * step_s), 4),
    )


def _steps(config: Any, order: dict[str, Any]) -> StepFigures:
    """Train without validation and checkpoints, and read mmengine's timer."""
    import torch
    from mmengine.runner import Runner

    from lungdet_mmdet.engine.run_setup import choose_pretrained, fall_back_from_amp
    from lungdet_mmdet.preparation.scan_job import set_threads

    if order["threads"]:
        set_threads(order["threads"])
    fall_back_from_amp(config)
    choose_pretrained(config, "none")  # weights change no time
    config.train_dataloader.sampler = {"type": "InfiniteSampler", "shuffle": True}
    config.train_dataloader.persistent_workers = False
    total = WARM_UP + order["iterations"]
    config.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": total, "val_interval": total + 1}
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    config.param_scheduler = []
    config.default_hooks.checkpoint = None
    config.default_hooks.pop("operating_point", None)
    config.custom_hooks = [{"type": "DetectorSetupHook"}]
    config.log_level = "WARNING"
    runner = Runner.from_cfg(config)
    runner.train()
    times, _ = runner.message_hub.get_scalar("train/time").data
    waits, _ = runner.message_hub.get_scalar("train/data_time").data
    seconds, waited = float(times[WARM_UP:].sum()), float(waits[WARM_UP:].sum())
    on_gpu = torch.cuda.is_available()
    return StepFigures(
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        iterations=order["iterations"],
        it_per_s=round(order["iterations"] / seconds, 3),
        slabs_per_s=round(order["iterations"] * config.train_dataloader.batch_size / seconds, 2),
        data_share=round(waited / seconds, 4),
        peak_rss_mb=round(peak_rss_mb(), 1),
        peak_gpu_mb=round(torch.cuda.max_memory_allocated() / 2**20, 1) if on_gpu else None,
    )


def report_lines(loader: Sequence[LoaderFigures], steps: StepFigures | None) -> list[str]:
    """Return the figures as lines of text."""
    lines = [f"{'loader workers':>14}{'slabs/s':>10}{'wait share of a step':>24}"]
    lines += [
        f"{f.workers:>14}{f.slabs_per_s:>10.1f}{f.wait_share:>15.1%} at {f.assumed_it_per_s:g} it/s"
        for f in loader
    ]
    if steps is not None:
        gpu = "" if steps.peak_gpu_mb is None else f", GPU {steps.peak_gpu_mb:.0f} MiB"
        lines.append(
            f"training on {steps.device}: {steps.it_per_s:.3g} it/s, {steps.slabs_per_s:.3g} "
            f"slabs/s, waiting for data {steps.data_share:.1%}, peak {steps.peak_rss_mb:.0f} "
            f"MiB{gpu} ({steps.iterations} iterations)"
        )
    return lines


if __name__ == "__main__":
    import contextlib

    warnings.filterwarnings("ignore")
    wanted = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # mmengine logs to standard output
        figures = _measured_process(wanted)
    print(json.dumps(figures))
