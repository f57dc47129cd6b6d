"""Grids for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry


@pytest.fixture(scope="session")
def random_geometry() -> Callable[[int], ScanGeometry]:
    """Give the oblique, anisotropic grid of a seed: ``random_geometry(seed)``."""

    def make(seed: int) -> ScanGeometry:
        rng = np.random.default_rng(seed)
        # The Q of a random matrix: any rotation, half of them with a flip.
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        return ScanGeometry(
            size_zyx=tuple(rng.integers(1, 40, size=3).tolist()),
            spacing_zyx_mm=tuple(rng.uniform(0.3, 6.0, size=3).tolist()),
            origin_xyz_mm=tuple(rng.uniform(-500.0, 500.0, size=3).tolist()),
            direction=tuple(axes.ravel().tolist()),
        )

    return make
