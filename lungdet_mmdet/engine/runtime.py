"""What a config needs on this machine: log backends, precision, processes."""

from __future__ import annotations

import importlib.util

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.runner import Runner

from lungdet_mmdet.errors import LungDetError

TENSORBOARD = "TensorboardVisBackend"


def bare_model(runner: Runner) -> torch.nn.Module:
    """Return a runner's model without what several processes wrap it in."""
    return getattr(runner.model, "module", runner.model)


def choose_log_backends(config: Config) -> None:
    """Add TensorBoard to a config's logging backends where it is installed.

    Also takes the visualizer's fixed name away: mmengine then names it after the run. Runs of one
    process that share a name write into the first one's files.
    """
    visualizer = config.get("visualizer")
    if not visualizer:
        return
    visualizer.pop("name", None)
    backends = visualizer.setdefault("vis_backends", [])
    installed = importlib.util.find_spec("tensorboard") is not None
    if installed and all(backend["type"] != TENSORBOARD for backend in backends):
        visualizer.vis_backends = [*backends, dict(type=TENSORBOARD)]


AMP_WRAPPER = "AmpOptimWrapper"
_AMP_ONLY_KEYS = ("dtype", "loss_scale", "use_fsdp")


def use_amp(config: Config) -> None:
    """Ask for mixed precision, as ``--amp`` does."""
    config.optim_wrapper.type = AMP_WRAPPER
    config.optim_wrapper.setdefault("loss_scale", "dynamic")


def fall_back_from_amp(config: Config) -> str | None:
    """Turn AMP into plain precision where no GPU is there; mmengine would refuse to build it.

    Returns
    -------
    str or None
        One line for the log, None where nothing had to change.
    """
    wrapper = config.get("optim_wrapper")
    if not wrapper or wrapper.get("type") != AMP_WRAPPER or torch.cuda.is_available():
        return None
    wrapper.type = "OptimWrapper"
    for key in _AMP_ONLY_KEYS:
        wrapper.pop(key, None)
    return "no GPU here: mixed precision (AMP) is off, training in 32-bit floats"


CPU_BACKEND = "gloo"


def join_processes(config: Config, launcher: str) -> str | None:
    """Set the launcher of a run; without a GPU, join the processes over gloo.

    With GPUs mmengine does all of it. Without one it would select a GPU all the same, so the
    process group is made here, which mmengine then takes as it is.

    Returns
    -------
    str or None
        One line for the log, None where nothing had to change.

    Raises
    ------
    LungDetError
        If there is no GPU and the launcher is another one than "pytorch" (torchrun).
    """
    config.launcher = launcher
    if launcher == "none" or torch.cuda.is_available():
        return None
    if launcher != "pytorch":
        raise LungDetError(
            f"--launcher {launcher} needs a GPU on every process, and there is none here; on CPUs "
            "use torchrun --nproc_per_node N tools/train.py ... --launcher pytorch"
        )
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(CPU_BACKEND)
    config.env_cfg.dist_cfg.backend = CPU_BACKEND
    config.model_wrapper_cfg = dict(
        type="MMDistributedDataParallel",
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=config.get("find_unused_parameters", False),
    )
    return f"no GPU here: the processes are joined over {CPU_BACKEND}"
