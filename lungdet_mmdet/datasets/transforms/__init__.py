# SPDX-License-Identifier: Apache-2.0
"""Registered transforms: thin adapters that move dict keys to and from the science layer.

Preparation: LoadCTScan, ResampleScan, OtsuLungMask, DropPeripheralSlices, CropToLungs, WindowHU,
CLAHE, MIPSlabs, MIPChannels, NeighbourChannels. Training: RandomSlabRotate, RandomSlabReverse,
RandomSlabBrightness, RandomSlabNoise, RandomSlabWindow, PasteNodules. PackSlab stands beside the
data set: it builds on mmdet's own step, which imports all of mmdet's data sets.
"""

from lungdet_mmdet.datasets.transforms.augmentation import (
    PasteNodules,
    RandomSlabBrightness,
    RandomSlabNoise,
    RandomSlabReverse,
    RandomSlabRotate,
    RandomSlabWindow,
)
from lungdet_mmdet.datasets.transforms.preparation import (
    CLAHE,
    CropToLungs,
    DropPeripheralSlices,
    LoadCTScan,
    MIPChannels,
    MIPSlabs,
    NeighbourChannels,
    OtsuLungMask,
    ResampleScan,
    WindowHU,
)

__all__ = [
    "CLAHE",
    "CropToLungs",
    "DropPeripheralSlices",
    "LoadCTScan",
    "MIPChannels",
    "MIPSlabs",
    "NeighbourChannels",
    "OtsuLungMask",
    "PasteNodules",
    "RandomSlabBrightness",
    "RandomSlabNoise",
    "RandomSlabReverse",
    "RandomSlabRotate",
    "RandomSlabWindow",
    "ResampleScan",
    "WindowHU",
]
