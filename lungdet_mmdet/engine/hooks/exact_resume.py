"""A resumed run goes on as the uninterrupted one would have."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import IterBasedTrainLoop, Runner

PENDING_KEY = "lungdet_pending_gradients"


def _seed(*parts: int) -> int:
    """Return one 32-bit seed for several counters; near counters give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed a data loading worker from its loader's generator, which ExactResumeHook sets.

    mmengine's own function gives a worker the same seed in every epoch.
    """
    seed = _seed(torch.initial_seed(), worker_id)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes random numbers a function of (seed, epoch, iteration) and saves pending gradients.

    mmengine's checkpoints hold neither the state of the random generators nor the gradients of a
    half-finished accumulation. With this hook a run by epochs that is resumed from an epoch's
    checkpoint, and a run by iterations resumed from any, give the losses of the uninterrupted run:
    to the last bit on a CPU, within the noise of its kernels on a GPU. With several processes the
    pending gradients are those of the first process.

    Needs ``persistent_workers=False`` and ``worker_init_fn=dict(type='seed_worker')`` in the
    training loader where that loads in worker processes.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._pending: dict[str, torch.Tensor] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the pending gradients out of a checkpoint."""
        self._pending = checkpoint.pop(PENDING_KEY, {})

    def before_train(self, runner: Runner) -> None:
        """Give the loader a generator, and put pending gradients back in a resumed run."""
        runner.train_dataloader.generator = torch.Generator()
        if self._pending and runner.iter > 0:
            for name, parameter in _parameters(runner).items():
                if name in self._pending:
                    parameter.grad = self._pending[name].to(parameter)
        self._pending = {}

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what the data of this epoch depends on."""
        # A run by iterations is one epoch, and mmengine replays its data when it resumes.
        by_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        seed = _seed(runner.seed, 0 if by_iterations else runner.epoch, get_rank())
        runner.train_dataloader.generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model draws in this iteration, as dropout and denoising queries do."""
        torch.manual_seed(_seed(runner.seed, 1 + runner.iter, get_rank()))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the gradients of a half-finished accumulation to a checkpoint to resume from."""
        if "optimizer" not in checkpoint or runner.optim_wrapper.should_update():
            return
        checkpoint[PENDING_KEY] = {
            name: parameter.grad.detach().cpu()
            for name, parameter in _parameters(runner).items()
            if parameter.grad is not None
        }


def _parameters(runner: Runner) -> dict[str, torch.nn.Parameter]:
    model = getattr(runner.model, "module", runner.model)
    return dict(model.named_parameters())
