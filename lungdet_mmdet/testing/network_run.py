"""The part of a test that needs the network: weights in, evaluated detections out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.training.precision import fall_back_from_amp
from lungdet_mmdet.training.pretrained import drop_pretrained

METRIC_PREFIX = "lung/"


@dataclass(frozen=True)
class NetworkRun:
    """What running the network gave.

    Parameters
    ----------
    metrics : figures of the evaluators, ours without prefix.
    evaluators : the metric objects, with the options they were run with.
    parameters : number of values that the model learns.
    seconds_per_slab : mean time of the test loop per slab, loading included; None if not measured.
    """

    metrics: dict[str, float]
    evaluators: tuple[BaseMetric, ...]
    parameters: int
    seconds_per_slab: float | None


def run_network(config: Config, checkpoint: Path) -> NetworkRun:
    """Run the config's test loop with the weights of a checkpoint.

    Raises
    ------
    LungDetError
        If the checkpoint does not hold the weights of the config's model.
    """
    fall_back_from_amp(config)
    drop_pretrained(config)
    config.load_from = str(checkpoint)
    runner = Runner.from_cfg(config)
    model = getattr(runner.model, "module", runner.model)
    _check_weights(model, checkpoint)
    metrics = runner.test()
    return NetworkRun(
        metrics={key.removeprefix(METRIC_PREFIX): value for key, value in metrics.items()},
        evaluators=tuple(runner.test_loop.evaluator.metrics),
        parameters=sum(p.numel() for p in model.parameters()),
        seconds_per_slab=_seconds_per_slab(runner),
    )


def _check_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Refuse weights of another model: mmengine would only warn, and test random values."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
    given = content.get("state_dict", content)
    wanted = model.state_dict()
    unfit = [key for key, value in wanted.items() if _shape(given.get(key)) != value.shape]
    if unfit:
        raise LungDetError(
            f"{checkpoint}: {len(unfit)} of the model's {len(wanted)} weights are not in it, or of "
            f"another shape (first: {unfit[0]}); give the config that it was trained with"
        )


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, torch.Tensor) else None


def _seconds_per_slab(runner: Runner) -> float | None:
    timed = runner.message_hub.log_scalars.get("test/time")
    if timed is None or not len(timed.data[0]):
        return None
    share = len(runner.test_dataloader.dataset) / get_world_size()
    return float(timed.data[0].sum()) / max(share, 1.0)
