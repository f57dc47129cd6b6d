from dataclasses import replace

import numpy as np
import pytest

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.apis import figures
from lungdet_mmdet.apis.figures import record_stages
from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline
from lungdet_mmdet.reports.method_figures import SlabStage, VolumeStage
from tests.support.rehearsal import REHEARSAL_STEPS, write_rehearsal_folder


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory):
    folder = write_rehearsal_folder(tmp_path_factory.mktemp("rehearsal"), 1)
    return next(folder.glob("subset0/*.mhd"))


@pytest.fixture(scope="module")
def recorded(scan_path):
    return record_stages(scan_path, REHEARSAL_STEPS)


def nodule_at(z):
    return Nodule("a/0", "a", (70.0, 0.0, z), 20.0)


def test_every_step_that_changes_the_picture_is_kept(recorded):
    assert [(stage.title, stage.detail) for stage in recorded.stages] == [
        ("Original slice", "5 × 5 × 5 mm"),
        ("Resampled", "4 × 4 × 2.5 mm"),
        ("Lung mask", recorded.stages[2].detail),
        ("Masked", "-1350 to 150 HU"),
        ("CLAHE", "clip 2, 8 × 8 tiles"),
        ("MIP slab", "7.5 mm, 3 slices"),
    ]
    assert recorded.stages[2].detail.startswith("otsu, ")


def test_the_pictures_are_those_of_the_pipeline_itself(recorded, scan_path):
    results = build_prep_pipeline(REHEARSAL_STEPS)({"scan_path": str(scan_path)})
    *_, equalised, slabs = recorded.stages

    np.testing.assert_array_equal(slabs.slabs, results["slabs"])
    np.testing.assert_array_equal(equalised.volume, results["volume"])
    assert isinstance(slabs, SlabStage)


def test_earlier_pictures_do_not_change_with_later_steps(recorded):
    original, resampled, masked = recorded.stages[0], recorded.stages[1], recorded.stages[3]

    assert original.volume.shape == (36, 64, 64)
    assert (original.volume.dtype, resampled.volume.dtype) == (np.int16, np.int16)
    assert resampled.volume.min() < -800
    assert masked.volume.dtype == np.uint8
    assert recorded.stages[2].tint.any()


def test_without_a_window_step_of_its_own_mask_the_title_says_windowed(scan_path):
    steps = [{**s, "apply_mask": False} if s["type"] == "WindowHU" else s for s in REHEARSAL_STEPS]

    assert [stage.title for stage in record_stages(scan_path, steps).stages][3] == "Windowed"


def test_steps_after_the_projection_show_slabs(scan_path):
    steps = [*REHEARSAL_STEPS, {"type": "NeighbourChannels"}]
    last = record_stages(scan_path, steps).stages[-1]

    assert (last.title, last.detail) == ("NeighbourChannels", "")
    assert last.slabs.shape[-1] == 3


def test_the_plane_goes_through_the_nodule_and_stays_within_the_slabs(recorded):
    low = min(slab.z_range_mm[0] for slab in recorded.results["slab_geometries"])

    assert recorded.plane_height_mm(nodule_at(80.0)) == 80.0
    # Half a slice of 2.5 mm above the lowest face.
    assert recorded.plane_height_mm(nodule_at(-500.0)) == pytest.approx(low + 1.25)


def test_without_a_nodule_the_plane_shows_most_lung(recorded):
    height = recorded.plane_height_mm(None)
    geometry = recorded.stages[4].geometry
    mask = recorded.results["lung_mask"]
    areas = mask.reshape(len(mask), -1).sum(axis=1)
    place = round((height - geometry.origin_xyz_mm[2]) / 2.5)

    assert areas[place] == areas.max()
    assert isinstance(recorded.stages[4], VolumeStage)


@pytest.mark.parametrize(("number", "diameter_mm"), [(None, 20.0), (1, 20.0), (2, 9.0), (3, 5.0)])
def test_nodules_are_numbered_by_falling_diameter(recorded, monkeypatch, number, diameter_mm):
    drawn = {}
    monkeypatch.setattr(
        figures, "pipeline_figure", lambda stages, **options: drawn.update(options) or b""
    )
    nodules = [replace(nodule_at(80.0), diameter_mm=size) for size in (9.0, 20.0, 5.0)]

    figures.draw_pipeline(recorded, nodules, number=number)

    assert drawn["nodules"][0].diameter_mm == diameter_mm
    assert len(drawn["nodules"]) == 3
    assert f"the annotated nodule of {diameter_mm:.1f} mm" in drawn["notes"][0]
