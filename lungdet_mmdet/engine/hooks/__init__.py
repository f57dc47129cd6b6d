# SPDX-License-Identifier: Apache-2.0
"""Registered hooks."""

from lungdet_mmdet.engine.hooks.checkpoints import (
    AtomicCheckpointHook,
    FitCheckpointHook,
    OperatingPointHook,
)
from lungdet_mmdet.engine.hooks.training import (
    DetectorSetupHook,
    ExactResumeHook,
    PositivesWarningHook,
    StopOnBadLossHook,
    seed_worker,
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
