# SPDX-License-Identifier: Apache-2.0
"""What a training does beside mmengine's own: it sets up, checks, and resumes exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from lungdet_mmdet.datasets.luna16_slabs import slab_kind
from lungdet_mmdet.engine.run_setup import bare_model, quicken_on_cpu
from lungdet_mmdet.ops.attention_choice import describe_attention
from lungdet_mmdet.ops.detr_heads import not_finite, run_heads_in_full_precision
from lungdet_mmdet.runs.command_line import keep_freed_memory


@HOOKS.register_module()
class DetectorSetupHook(Hook):
    """Keeps heads in single precision under mixed precision, and logs which attention runs.

    See :func:`~lungdet_mmdet.ops.detr_heads.run_heads_in_full_precision`. On a CPU it arranges
    weights and memory for speed. Runs before hooks that copy the model, as averages do.
    """

    priority = "HIGHEST"

    def before_run(self, runner: Runner) -> None:
        """Prepare the detector and say what it runs on."""
        model = bare_model(runner)
        run_heads_in_full_precision(model)
        if model is runner.model:  # a wrapper for several processes has laid out its gradients
            quicken_on_cpu(model)
        device = next(model.parameters()).device
        if device.type == "cpu":
            keep_freed_memory()
        runner.logger.info(describe_attention(device))


@HOOKS.register_module()
class PositivesWarningHook(Hook):
    """Warns where the training or the validation set has no slab with a nodule."""

    def before_train(self, runner: Runner) -> None:
        """Look at both sets once."""
        if not _has_positive(runner.train_dataloader.dataset):
            runner.logger.warning(
                "the training set has no slab with a nodule: the model can only learn to find "
                "nothing. Make the splits again with `lungdet split`"
            )
        if runner.val_loop is not None and not _has_positive(runner.val_dataloader.dataset):
            runner.logger.warning(
                "the validation set has no slab with a nodule: its scores are undefined and no "
                "best checkpoint can be chosen. Make the splits again with more scans or another "
                "--seed (`lungdet split`)"
            )


def _has_positive(dataset: Any) -> bool:
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return any(slab_kind(info) == "positive" for info in infos)


@HOOKS.register_module()
class StopOnBadLossHook(Hook):
    """Ends training when a loss is NaN or infinite, before a checkpoint of it is saved.

    All losses leave the GPU together: one wait for an iteration.

    Parameters
    ----------
    interval : stop at every so manieth iteration only.

    Raises
    ------
    LungDetError
        Naming the losses, the iteration and every slab of the batch.
    """

    # Before mmengine's RuntimeInfoHook, which would wait for the GPU once for each loss.
    priority = "HIGHEST"

    def __init__(self, interval: int = 1) -> None:
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Look at the losses of the iteration that has just ended, and leave them on the CPU."""
        if not outputs:
            return
        values = [torch.as_tensor(value).detach().float().mean() for value in outputs.values()]
        on_cpu = torch.stack([value.to(values[0].device) for value in values]).cpu()
        outputs.update(zip(outputs, on_cpu, strict=True))
        if torch.isfinite(on_cpu).all() or not self.every_n_train_iters(runner, self.interval):
            return
        bad = {n: v.item() for n, v in outputs.items() if not torch.isfinite(v)}
        named = ", ".join(f"{name} = {value}" for name, value in bad.items())
        metas = [sample.metainfo for sample in (data_batch or {}).get("data_samples", ())]
        raise not_finite(f"iteration {runner.iter + 1} (epoch {runner.epoch + 1}): {named}", metas)


PENDING_KEY = "lungdet_pending_gradients"


def _seed(*parts: int) -> int:
    """Return one 32-bit seed for several counters; near counters give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed a data loading worker from its loader's generator, which ExactResumeHook sets.

    mmengine's own function gives a worker the same seed in every epoch.
    """
    _seed_all(_seed(torch.initial_seed(), worker_id))


class Draw(int):
    """An index of a dataset that carries the seed of its augmentation."""

    seed: int

    def __new__(cls, index: int, seed: int = 0) -> Draw:  # noqa: D102
        self = super().__new__(cls, index)
        self.seed = seed
        return self


class SeededSampler:
    """A sampler whose every draw has a seed: of the run, the epoch, the process, and its number.

    So an augmentation does not depend on which were drawn before it, nor on the worker that makes
    it: samplers that skip what was trained (``InfiniteSampler``) resume exactly. Whatever else the
    sampler can do, it can still do.
    """

    def __init__(self, sampler: Any, seed: int) -> None:
        self._sampler = sampler
        self._seed = seed
        self._epoch = self._drawn = 0

    def begin_epoch(self, epoch: int) -> None:
        """Count draws anew."""
        self._epoch, self._drawn = epoch, 0

    def __iter__(self) -> Iterator[Draw]:
        for index in self._sampler:
            yield Draw(index, _seed(self._seed, self._epoch, get_rank(), self._drawn))
            self._drawn += 1

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        own = getattr(self.__dict__["_sampler"], name)
        if name != "skip":
            return own

        def skip(samples: int) -> None:
            own(samples)
            self._drawn = samples

        return skip


class SeededReads:
    """Reads a batch of a dataset, each sample with the random numbers of its draw.

    torch's loader calls it as the dataset's ``__getitems__``, also where that is a join of others.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> list[Any]:
        """Return the samples of some indices."""
        return [self._read(index) for index in indices]

    def _read(self, index: int) -> Any:
        if isinstance(index, Draw):
            _seed_all(index.seed)
        return self.dataset[int(index)]


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_draws(loader: DataLoader, seed: int) -> SeededSampler:
    """Let a loader seed every draw; call it before its workers start."""
    sampler, batches = loader.sampler, loader.batch_sampler
    if batches is not None and batches.sampler is not sampler:
        sampler = batches.sampler
    seeded = SeededSampler(sampler, seed)
    if batches is not None:
        batches.sampler = seeded
    # torch forbids to set it, for fear of a batch sampler that goes on with the old one.
    object.__setattr__(loader, "sampler", seeded)
    loader.dataset.__getitems__ = SeededReads(loader.dataset)
    return seeded


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes random numbers a function of (seed, epoch, iteration) and saves pending gradients.

    mmengine's checkpoints hold neither the state of the random generators nor the gradients of a
    half-finished accumulation. With this hook a run by epochs that is resumed from an epoch's
    checkpoint, and a run by iterations resumed from any, give the losses of the uninterrupted run:
    to the last bit on a CPU, within the noise of its kernels on a GPU. With several processes the
    pending gradients are those of the first process.

    OpenMMLab's own mmengine starts the workers of a run by iterations before any hook is called,
    and draws all batches again when it resumes: ``worker_init_fn=dict(type='seed_worker')`` and
    ``persistent_workers=False`` in the training loader keep that exact.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._pending: dict[str, torch.Tensor] = {}
        self._sampler: SeededSampler | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the pending gradients out of a checkpoint."""
        self._pending = checkpoint.pop(PENDING_KEY, {})

    def before_train(self, runner: Runner) -> None:
        """Give the loader a generator, and put pending gradients back in a resumed run."""
        runner.train_dataloader.generator = torch.Generator()
        self._sampler = seed_draws(runner.train_dataloader, runner.seed)
        if self._pending and runner.iter > 0:
            for name, parameter in _parameters(runner).items():
                if name in self._pending:
                    parameter.grad = self._pending[name].to(parameter)
        self._pending = {}

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what the data of this epoch depends on."""
        # A run by iterations is one epoch, and mmengine replays its data when it resumes.
        by_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        epoch = 0 if by_iterations else runner.epoch
        seed = _seed(runner.seed, epoch, get_rank())
        runner.train_dataloader.generator.manual_seed(seed)
        if self._sampler is not None:
            self._sampler.begin_epoch(epoch)
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
    return dict(bare_model(runner).named_parameters())
