"""Registered detectors: SlabDINO."""

from lungdet_mmdet.models.slab_dino import SlabDINO

__all__ = ["SlabDINO"]
