"""A phantom scan in several formats, and a small model with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.apis.model_file import write_model_file
from lungdet_mmdet.apis.scan_detector import ScanDetector
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.phantom.findings import PhantomNodule
from lungdet_mmdet.phantom.scan import Recipe, build_scan
from tests.support.untrained_model import untrained_model, write_training_checkpoint


def image_of(volume: np.ndarray, geometry: ScanGeometry) -> sitk.Image:
    """Return a volume as SimpleITK stores it."""
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(geometry.spacing_xyz_mm.tolist())
    image.SetOrigin(geometry.origin_xyz_mm)
    image.SetDirection(geometry.direction)
    return image


@pytest.fixture(scope="session")
def phantom():
    """Two solid nodules of 14 and 9 mm among few vessels."""
    nodules = [PhantomNodule((0.0, 0.0, 0.0), d, texture="solid") for d in (14.0, 9.0)]
    return build_scan(5, recipe=Recipe(nodules=nodules, excluded_count=0, leaves_per_lung=12))


@pytest.fixture(scope="session")
def phantom_image(phantom):
    return image_of(phantom.volume_hu, phantom.geometry)


@pytest.fixture(scope="session")
def scan(phantom_image, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "phantom.mha"
    sitk.WriteImage(phantom_image, str(path))
    return read_scan(path)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pth"
    write_model_file(path, untrained_model())
    return path


@pytest.fixture(scope="session")
def training_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "epoch_1.pth"
    write_training_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def detector(model_path):
    return ScanDetector(model_path, device="cpu", batch_size=8)


@pytest.fixture(scope="session")
def findings(detector, scan):
    return detector.analyse(scan, source="folder/phantom.mhd")
