"""Runs of several processes on machines without a GPU."""

from __future__ import annotations

import torch
import torch.distributed
from mmengine.config import Config

from lungdet_mmdet.errors import LungDetError

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
