"""Registered transforms: thin adapters that move dict keys to and from the science layer.

Preparation: LoadCTScan, ResampleScan, OtsuLungMask, DropPeripheralSlices, CropToLungs, WindowHU,
CLAHE, MIPSlabs, MIPChannels, NeighbourChannels. Training: RandomSlabRotate, RandomSlabBrightness,
RandomSlabNoise.
"""

from lungdet_mmdet.datasets.transforms.augmentation import (
    RandomSlabBrightness,
    RandomSlabNoise,
    RandomSlabRotate,
)
from lungdet_mmdet.datasets.transforms.scan_steps import (
    CLAHE,
    CropToLungs,
    DropPeripheralSlices,
    LoadCTScan,
    OtsuLungMask,
    ResampleScan,
    WindowHU,
)
from lungdet_mmdet.datasets.transforms.slab_steps import MIPChannels, MIPSlabs, NeighbourChannels

__all__ = [
    "CLAHE",
    "CropToLungs",
    "DropPeripheralSlices",
    "LoadCTScan",
    "MIPChannels",
    "MIPSlabs",
    "NeighbourChannels",
    "OtsuLungMask",
    "RandomSlabBrightness",
    "RandomSlabNoise",
    "RandomSlabRotate",
    "ResampleScan",
    "WindowHU",
]
