"""Registered hooks."""

from lungdet_mmdet.hooks.atomic_checkpoint import AtomicCheckpointHook
from lungdet_mmdet.hooks.exact_resume import ExactResumeHook, seed_worker
from lungdet_mmdet.hooks.fit_checkpoint import FitCheckpointHook
from lungdet_mmdet.hooks.operating_point_hook import OperatingPointHook
from lungdet_mmdet.hooks.positives_warning import PositivesWarningHook
from lungdet_mmdet.hooks.stop_on_bad_loss import StopOnBadLossHook

__all__ = [
    "AtomicCheckpointHook",
    "ExactResumeHook",
    "FitCheckpointHook",
    "OperatingPointHook",
    "PositivesWarningHook",
    "StopOnBadLossHook",
    "seed_worker",
]
