# SPDX-License-Identifier: Apache-2.0
"""Registered hooks."""

from lungdet_mmdet.engine.hooks.checkpoints import (
    AtomicCheckpointHook,
    FitCheckpointHook,
    OperatingPointHook,
)
from lungdet_mmdet.engine.hooks.exact_resume import ExactResumeHook, seed_worker
from lungdet_mmdet.engine.hooks.run_checks import (
    DetectorSetupHook,
    PositivesWarningHook,
    StopOnBadLossHook,
)

__all__ = [
    "AtomicCheckpointHook",
    "DetectorSetupHook",
    "ExactResumeHook",
    "FitCheckpointHook",
    "OperatingPointHook",
    "PositivesWarningHook",
    "StopOnBadLossHook",
    "seed_worker",
]
