import numpy as np
import pytest

from lungdet_mmdet.phantom.drawing import Grid
from lungdet_mmdet.phantom.findings import (
    PhantomNodule,
    draw_nodule,
    draw_nodule_plan,
    sample_diameters,
)

GRID = Grid((31, 31, 31), (1.0, 1.0, 1.0), (-15.0, -15.0, -15.0))


def drawn(nodule, seed):
    volume = np.full(GRID.size_zyx, -850, np.int16)
    draw_nodule(volume, GRID, nodule, np.random.default_rng(seed))
    return volume


def test_diameters_have_luna16s_size_bands():
    diameters = sample_diameters(np.random.default_rng(0), 20_000)
    small, large = np.mean(diameters <= 7.0), np.mean(diameters > 15.0)
    assert small == pytest.approx(0.57, abs=0.015)
    assert large == pytest.approx(0.11, abs=0.01)
    assert diameters.min() >= 3.0
    assert diameters.max() <= 30.0


def test_plan_holds_every_texture_and_place():
    plan = draw_nodule_plan(np.random.default_rng(0), 200)
    assert {n.texture for n in plan} == {"solid", "part-solid", "ground-glass"}
    assert {n.place for n in plan} == {"isolated", "vessel", "pleural", "mediastinal"}
    assert draw_nodule_plan(np.random.default_rng(0), 0) == []


@pytest.mark.parametrize("seed", range(4))
def test_drawn_nodule_has_its_diameter_and_centre(seed):
    # 6.6 mm: too small for strands, whose volume would count.
    volume = drawn(PhantomNodule((2.0, -1.0, 3.0), 6.6, "ground-glass"), seed)
    share = (volume + 850.0) / (volume.max() + 850.0)
    assert share.sum() == pytest.approx(np.pi / 6 * 6.6**3, rel=0.1)
    centre_zyx = [np.average(axis, weights=share) - 15.0 for axis in np.indices(share.shape)]
    assert centre_zyx == pytest.approx([3.0, -1.0, 2.0], abs=0.15)


def test_nodules_are_not_perfect_spheres():
    inside = drawn(PhantomNodule((0.0, 0.0, 0.0), 14.0, "ground-glass"), 1) > -750
    radii = np.linalg.norm(np.argwhere(inside) - 15.0, axis=1)
    assert radii.max() > 7.4


def test_textures_differ_in_density():
    solid, part, glass = (
        drawn(PhantomNodule((0.0, 0.0, 0.0), 12.0, t), 2)
        for t in ("solid", "part-solid", "ground-glass")
    )
    assert solid[15, 15, 15] > 0
    assert part[15, 15, 15] > 0
    assert -650 < glass[15, 15, 15] < -470
    assert np.mean(part[part > -800] < -400) > 0.3  # the veil around the solid core
