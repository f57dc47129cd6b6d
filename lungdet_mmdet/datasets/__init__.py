"""Registered datasets."""

from lungdet_mmdet.datasets.luna16_slabs import LUNA16SlabDataset

__all__ = ["LUNA16SlabDataset"]
