"""Checkpoints that survive the death of the run at any moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from lungdet_mmdet.execution.atomic_files import output_error, sweep_leftovers, write_bytes

BACKEND = "lungdet_atomic"
# Kept in the checkpoint itself, among mmengine's own messages.
OUTDATED_KEY = "lungdet_outdated_checkpoints"
VALIDATED_KEY = "lungdet_validated_iter"


class AtomicLocalBackend(LocalBackend):
    """Writes files whole or not at all; errors name the file and the remedy."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_bytes(Path(filepath), obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write text."""
        write_bytes(Path(filepath), obj.encode(encoding))


register_backend(BACKEND, AtomicLocalBackend, force=True)


class _LateRemoval:
    """A backend that hands the paths it should remove to `note` instead."""

    def __init__(self, backend: Any, note: Callable[[str], None]) -> None:
        self.backend = backend
        self.remove = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, for runs that may be killed, or meet a full disk, at any moment.

    - A checkpoint is written whole or not at all. mmengine opens the latest one for writing again
      after each validation that was the best so far: a kill there leaves nothing to resume from.
    - An outdated checkpoint is removed when its successor is there, not before.
    - A run that was killed between a checkpoint and the end of its validation validates first
      when it is resumed. mmengine goes on with the next epoch, and the best checkpoint and the
      operating point of the lost validation are never written.

    Parameters are those of CheckpointHook.
    """

    def before_train(self, runner: Runner) -> None:
        """Tidy up after the run that is gone on with, and make up for its lost validation."""
        if self.out_dir is None and self.file_client_args is None and self.backend_args is None:
            self.backend_args = {"backend": BACKEND}
        super().before_train(runner)
        self._runner = runner
        self.file_backend = _LateRemoval(self.file_backend, self._note_outdated)
        if is_main_process():
            sweep_leftovers(Path(self.out_dir))
        self._remove_outdated()
        if runner.iter > 0 and _validation_was_due(runner) and not self._is_validated():
            runner.logger.info("the run ended before its last validation did: validating now")
            # mmengine saves it again, with the best score, where it knows that it is there.
            self.last_ckpt = runner.message_hub.runtime_info.get("last_ckpt")
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best checkpoint, and in it that this validation is done."""
        runner.message_hub.update_info(VALIDATED_KEY, runner.iter)
        super().after_val_epoch(runner, metrics)
        if hasattr(self, "_runner"):  # not in a validation without training
            self._remove_outdated()

    def _is_validated(self) -> bool:
        info = self._runner.message_hub.runtime_info
        return info.get(VALIDATED_KEY) == self._runner.iter

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # Reached by way of a new best checkpoint: that is saved, and the one before may go.
        self._remove_outdated()
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        except OSError as error:  # from the note that names the latest checkpoint
            raise output_error(Path(runner.work_dir), error) from error
        self._remove_outdated()

    def _note_outdated(self, path: str) -> None:
        # By way of the messages into the checkpoint that is about to be saved: a run that is
        # resumed from it goes on with the removal.
        names = [*self._outdated_names(), Path(path).name]
        self._runner.message_hub.update_info(OUTDATED_KEY, names)

    def _outdated_names(self) -> list[str]:
        return self._runner.message_hub.runtime_info.get(OUTDATED_KEY, [])

    def _remove_outdated(self) -> None:
        if is_main_process():
            best = [getattr(self, "best_ckpt_path", None)]
            best += getattr(self, "best_ckpt_path_dict", {}).values()
            # A validation that was made up for may have written the same name again.
            kept = {Path(path).name for path in best if path}
            for name in set(self._outdated_names()) - kept:
                path = self.file_backend.join_path(self.out_dir, name)
                if self.file_backend.isfile(path):
                    self.file_backend.backend.remove(path)
        self._runner.message_hub.update_info(OUTDATED_KEY, [])


def _validation_was_due(runner: Runner) -> bool:
    """Whether a validation follows directly on the checkpoint that the run was resumed from."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    done, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)
