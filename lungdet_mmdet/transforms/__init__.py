"""Registered transforms: thin adapters that move dict keys to and from the science layer.

Preparation: LoadCTScan, ResampleScan, OtsuLungMask, DropPeripheralSlices, CropToLungs, WindowHU,
CLAHE, MIPSlabs, MIPChannels, NeighbourChannels. Training: RandomSlabRotate, RandomSlabBrightness,
RandomSlabNoise.
"""

from lungdet_mmdet.transforms.clahe import CLAHE
from lungdet_mmdet.transforms.crop_to_lungs import CropToLungs
from lungdet_mmdet.transforms.drop_peripheral_slices import DropPeripheralSlices
from lungdet_mmdet.transforms.load_ct_scan import LoadCTScan
from lungdet_mmdet.transforms.mip_channels import MIPChannels
from lungdet_mmdet.transforms.mip_slabs import MIPSlabs
from lungdet_mmdet.transforms.neighbour_channels import NeighbourChannels
from lungdet_mmdet.transforms.otsu_lung_mask import OtsuLungMask
from lungdet_mmdet.transforms.random_slab_brightness import RandomSlabBrightness
from lungdet_mmdet.transforms.random_slab_noise import RandomSlabNoise
from lungdet_mmdet.transforms.random_slab_rotate import RandomSlabRotate
from lungdet_mmdet.transforms.resample_scan import ResampleScan
from lungdet_mmdet.transforms.window_hu import WindowHU

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
