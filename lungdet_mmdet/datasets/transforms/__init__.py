"""Registered transforms: thin adapters that move dict keys to and from the science layer.

Preparation: LoadCTScan, ResampleScan, OtsuLungMask, DropPeripheralSlices, CropToLungs, WindowHU,
CLAHE, MIPSlabs, MIPChannels, NeighbourChannels. Training: RandomSlabRotate, RandomSlabBrightness,
RandomSlabNoise, RandomSlabWindow, PasteNodules. PackSlab stays in its module: it builds on mmdet's
own step, which imports all of mmdet's data sets.
"""

from lungdet_mmdet.datasets.transforms.augmentation import (
    RandomSlabBrightness,
    RandomSlabNoise,
    RandomSlabRotate,
)
from lungdet_mmdet.datasets.transforms.paste_nodules import PasteNodules
from lungdet_mmdet.datasets.transforms.random_slab_window import RandomSlabWindow
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
    "PasteNodules",
    "RandomSlabBrightness",
    "RandomSlabNoise",
    "RandomSlabRotate",
    "RandomSlabWindow",
    "ResampleScan",
    "WindowHU",
]
