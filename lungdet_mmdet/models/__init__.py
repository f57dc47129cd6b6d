# SPDX-License-Identifier: Apache-2.0
"""Registered detectors: SlabDINO."""

from lungdet_mmdet.models.slab_dino import SlabDINO

__all__ = ["SlabDINO"]
