# SPDX-License-Identifier: Apache-2.0
"""What a run needs: logs, precision, processes, where it starts from, and what it leaves."""

from __future__ import annotations

import http.client
import importlib.util
import logging
import re
import time
import urllib.request
from pathlib import Path

import torch
import torch.distributed
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from lungdet_mmdet.engine.by_name import find_weights
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import (
    METRICS_NAME,
    PLOT_FOLDER,
    PREDICTIONS_NAME,
    REPORT_NAME,
    SUBMISSION_NAME,
)
from lungdet_mmdet.runs.workplace import OFFLINE_VARIABLE, is_offline

# Hundreds of lines between a user and the first warning; the log file has them.
FILE_ONLY = (
    "Config:",
    "\n----",
    "Hooks will be executed",
    "paramwise_options",
    "Using env variable",
    "Distributed training is not used",
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    # mmengine says it of any batch norm; those of the backbones here keep their statistics.
    "Gradient accumulative may slightly decrease",
)


def quieten(logger: logging.Logger) -> None:
    """Keep what only a log file is read for away from the terminal."""
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(_is_for_readers)


def _is_for_readers(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(FILE_ONLY)


class QuietRunner(Runner):
    """mmengine's runner; environment, config and hooks go to its log file alone."""

    def build_logger(self, *args, **options) -> MMLogger:
        """Build the logger, before anything is said."""
        logger = super().build_logger(*args, **options)
        quieten(logger)
        return logger

    def dump_config(self) -> None:
        """Write no copy of the config yet: a test must not replace that of the training."""

    def train(self) -> torch.nn.Module:
        """Train, with a copy of the config in the work folder."""
        super().dump_config()
        return super().train()


TENSORBOARD = "TensorboardVisBackend"


def quicken_on_cpu(model: torch.nn.Module) -> None:
    """Arrange a detector's weights for speed on a CPU; on other devices do nothing."""
    if next(model.parameters()).device.type == "cpu":
        model.backbone.to(memory_format=torch.channels_last)


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
            "use torchrun --nproc_per_node N -m lungdet_mmdet train ... --launcher pytorch"
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


REACH_TIMEOUT_S = 10.0
_THREE_WAYS_OUT = (
    "There are three ways out:\n"
    "  --pretrained PATH   a local copy of the file\n"
    "  --pretrained none   start from random weights\n"
    "  --pretrained URL    another address of the same weights"
)


def cached_copy(url: str) -> Path:
    """Return where torch keeps its copy of a downloaded file (it need not be there)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def why_unreachable(url: str) -> str | None:
    """Return why a URL cannot be fetched, or None where it answers or is cached already."""
    if cached_copy(url).is_file():
        return None
    if is_offline():
        return f"{OFFLINE_VARIABLE} is set"
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=REACH_TIMEOUT_S):
            return None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error))


def why_not_there(source: str) -> str | None:
    """Return why a path or URL gives no file, or None where it does, or mmengine may know it."""
    if _is_url(source):
        return why_unreachable(source)
    if "://" in source:  # torchvision://resnet50 and the like
        return None
    return None if Path(source).is_file() else "no such file"


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def choose_pretrained(config: Config, choice: str | None) -> None:
    """Set the backbone's weights: "none", a local path, a URL, or None for the config's own.

    With "none" the whole backbone learns, its normalisation included. What the recipe freezes holds
    for learnt weights alone: mmdet starts the last normalisation of each residual branch at zero,
    and frozen there the branch would stay zero for good.

    Raises
    ------
    LungDetError
        If the weights are missing or unreachable; the message lists the three ways out.
    """
    backbone = config.model.get("backbone")
    if backbone is None:
        return
    if choice is not None:
        is_none = choice.lower() == "none"
        backbone.init_cfg = None if is_none else dict(type="Pretrained", checkpoint=choice)
        if is_none:
            _unfreeze(backbone)
    init_cfg = backbone.get("init_cfg")
    if not init_cfg or init_cfg.get("type") != "Pretrained":
        return
    source = init_cfg["checkpoint"]
    if reason := why_not_there(source):
        raise LungDetError(
            f"the backbone's pretrained weights cannot be had: {source} ({reason}).\n"
            f"{_THREE_WAYS_OUT}"
        )


def _unfreeze(backbone: ConfigDict) -> None:
    for key, learning in (("frozen_stages", -1), ("norm_eval", False)):
        if key in backbone:
            backbone[key] = learning
    if "norm_cfg" in backbone:
        backbone.norm_cfg.requires_grad = True


def drop_pretrained(config: Config) -> None:
    """Forget the backbone's initial weights: a checkpoint is about to overwrite them."""
    if config.model.get("backbone"):
        config.model.backbone.init_cfg = None


FIT_HOOK = "FitCheckpointHook"


def choose_start(config: Config, *, load_from: str | None, pretrained: str | None) -> None:
    """Let a run begin with a whole detector's weights where some are named, else a backbone's.

    Raises
    ------
    LungDetError
        If weights cannot be had, or those of a backbone are named that a detector's would replace.
    """
    initial = load_from or config.get("load_from")
    if not initial:
        choose_pretrained(config, pretrained)
        return
    if pretrained and pretrained.lower() != "none":
        raise LungDetError(
            f"--pretrained {pretrained} has no effect: the whole detector starts from {initial} "
            "(load_from); leave one of them out (--cfg-options load_from=None)"
        )
    start_from(config, initial)


def start_from(config: Config, source: str) -> None:
    """Let a run start from a checkpoint's weights; what does not fit is initialised anew.

    Parameters
    ----------
    config : its ``load_from`` is set, and the hook added that logs what does not fit.
    source : path or URL of the checkpoint, or ``lungdet://FILE`` for weights in this package.
        Loading a checkpoint can run code that is hidden in it: name only files whose makers you
        trust.

    Raises
    ------
    LungDetError
        If the file is missing or the URL does not answer.
    """
    source = find_weights(source)
    if reason := why_not_there(source):
        remedy = (
            "download it elsewhere and give its path with --load-from"
            if _is_url(source)
            else "give the path or URL of a checkpoint with --load-from"
        )
        raise LungDetError(f"the initial checkpoint cannot be had: {source} ({reason}); {remedy}")
    config.load_from = source
    hooks = config.get("custom_hooks") or []
    if all(hook["type"] != FIT_HOOK for hook in hooks):
        config.custom_hooks = [*hooks, dict(type=FIT_HOOK)]
    # Its own weights would be overwritten at once.
    drop_pretrained(config)


AUTO = "auto"


def resume_from(config: Config, choice: str) -> bool:
    """Let a run go on from a checkpoint.

    Parameters
    ----------
    config : its ``resume`` and ``load_from`` are set where there is something to resume.
    choice : a checkpoint, or "auto" for the latest in the work directory.

    Returns
    -------
    bool
        False where "auto" found nothing, as when a run ended before its first checkpoint; the run
        then starts anew and needs its initial weights.

    Raises
    ------
    LungDetError
        If the checkpoint is not there.
    """
    source = choice
    if choice == AUTO:
        latest = latest_checkpoint(Path(config.work_dir))
        if latest is None:
            return False
        source = str(latest)
    if not Path(source).is_file():
        raise LungDetError(
            f"cannot resume from {source!r}: no such checkpoint; name one with --resume CHECKPOINT"
        )
    config.resume = True
    config.load_from = str(source)
    drop_pretrained(config)
    backbone = config.model.get("backbone") or {}
    if backbone.get("frozen_stages", -1) != -1 and _had_free_backbone(source):
        _unfreeze(backbone)
    return True


def _had_free_backbone(checkpoint: str) -> bool:
    """Whether the run that is resumed learnt the whole backbone, as with ``--pretrained none``."""
    meta = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True).get("meta", {})
    # Its text as it stands: to read it as a config would import what it names.
    return re.search(r"\bfrozen_stages=-1\b", meta.get("cfg") or "") is not None


def latest_checkpoint(work_dir: Path) -> Path | None:
    """Return the checkpoint that a run in this folder goes on from, or None without any.

    It is the one that mmengine's note names, in this folder, which may have been moved or copied
    since. Where the note was cut off, it is the one of the highest epoch or iteration.
    """
    try:
        noted = (work_dir / "last_checkpoint").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        noted = ""
    if noted and (work_dir / Path(noted).name).is_file():
        return work_dir / Path(noted).name
    numbered = {
        int(match[1]): path
        for path in work_dir.glob("*.pth")
        if (match := re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name))
    }
    return numbered[max(numbered)] if numbered else None


_OF_TEST = (METRICS_NAME, PREDICTIONS_NAME, SUBMISSION_NAME, REPORT_NAME, PLOT_FOLDER)


def set_aside(work_dir: Path, *, keep: str | None = None) -> str | None:
    """Move logs and checkpoints of an earlier run out of the way of one that begins anew.

    Left where they are, ``--resume`` would go on from them, and a test would judge their best.

    Parameters
    ----------
    work_dir : of the run that begins.
    keep : a checkpoint that it starts from, which stays where it is, if it is one of these.

    Returns
    -------
    What was done, for the log; None where there was nothing.
    """
    patterns = ("epoch_*.pth", "iter_*.pth", "best_*.pth", "last_checkpoint")
    found = {path for pattern in patterns for path in work_dir.glob(pattern)}
    if not found:
        return None
    found |= {path.parent for path in work_dir.glob("*/vis_data")}
    found |= {work_dir / name for name in _OF_TEST}
    kept = Path(keep).resolve() if keep else None
    found = {path for path in found if path.exists() and path.resolve() != kept}
    if not found:
        return None
    folder = work_dir / f"before_{time.strftime('%Y%m%d_%H%M%S')}"
    folder.mkdir()
    for path in sorted(found):
        path.rename(folder / path.name)
    return (
        f"{work_dir}: held checkpoints of an earlier run, which now lie in {folder.name}; to go "
        "on from them instead, stop, move them back and give --resume"
    )


def trained_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint that a training is judged by.

    Parameters
    ----------
    path : a checkpoint, which is returned as it is, or the work directory of a training: its best
        one on the validation set, else its latest.

    Raises
    ------
    LungDetError
        If the directory holds none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    best = max(path.glob("best_*.pth"), key=lambda found: found.stat().st_mtime, default=None)
    found = best or latest_checkpoint(path)
    if found is None:
        raise LungDetError(
            f"{path}: holds no checkpoint of a training; train with lungdet train CONFIG "
            f"--work-dir {path}, and look at its log where it ended early"
        )
    return found
