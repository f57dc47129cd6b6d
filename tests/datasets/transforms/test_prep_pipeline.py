"""The whole prep pipeline on phantoms: positions, orientation, offline against online."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmengine.config import Config

import lungdet_mmdet.plugin  # noqa: F401
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.scan import PhantomScan, build_scan
from tests.support.slabs import slab_box


@pytest.fixture(scope="module")
def steps(repository) -> list[dict]:
    return Config.fromfile(repository / "configs" / "_base_" / "prep_luna16.py").prep_pipeline


@pytest.fixture(scope="module")
def phantom() -> PhantomScan:
    return build_scan((11, 0), size="small")


def image_of(volume: np.ndarray, geometry: ScanGeometry) -> sitk.Image:
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(geometry.spacing_xyz_mm.tolist())
    image.SetOrigin(geometry.origin_xyz_mm)
    image.SetDirection(geometry.direction)
    return image


def run(steps: list[dict], image: sitk.Image) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.2.3.mha"
        sitk.WriteImage(image, str(path))
        return Compose([TRANSFORMS.build(dict(step)) for step in steps])({"scan_path": path})


def test_a_scan_stored_flipped_gives_the_same_bytes(steps, phantom):
    image = image_of(phantom.volume_hu, phantom.geometry)
    results = run(steps, image)
    last = [n - 1 for n in image.GetSize()]
    turned = image_of(phantom.volume_hu[::-1, ::-1, ::-1], phantom.geometry)
    turned.SetOrigin(image.TransformIndexToPhysicalPoint(last))
    turned.SetDirection([-v for v in phantom.geometry.direction])
    flipped = run(steps, turned)
    np.testing.assert_array_equal(flipped["slabs"], results["slabs"])
    for found, expected in zip(flipped["slab_geometries"], results["slab_geometries"], strict=True):
        assert found.z_range_mm == pytest.approx(expected.z_range_mm)
        assert found.origin_xyz_mm == pytest.approx(expected.origin_xyz_mm)
        assert found.direction == pytest.approx(expected.direction)


@pytest.mark.parametrize(
    "direction",
    [
        (1, 0, 0, 0, 1, 0, 0, 0, 1),
        (-1, 0, 0, 0, -1, 0, 0, 0, 1),
        (1, 0, 0, 0, 0.96, -0.28, 0, 0.28, 0.96),
    ],
    ids=["axial", "flipped", "oblique"],
)
def test_a_metal_ball_in_the_lung_lies_at_the_centre_of_its_box(steps, phantom, direction):
    # SimpleITK, not this package, says where the ball's voxels lie in the world.
    geometry = replace(phantom.geometry, direction=tuple(float(v) for v in direction))
    lung = np.argwhere(phantom.lung_labels == 3)
    z, y, x = lung[len(lung) // 2].tolist()
    image = image_of(phantom.volume_hu, geometry)
    centre = image.TransformIndexToPhysicalPoint((x, y, z))
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.size_zyx], indexing="ij"), axis=-1)
    distance = np.linalg.norm((grid - (z, y, x)) * geometry.spacing_zyx_mm, axis=-1)
    image = image_of(np.where(distance < 4.0, 3000, phantom.volume_hu), geometry)

    # Without CLAHE, only the ball is white: everything else in the lung is below 150 HU.
    results = run([step for step in steps if step["type"] != "CLAHE"], image)

    found = 0
    for slab, where in zip(results["slabs"], results["slab_geometries"], strict=True):
        box = slab_box(centre, 8.0, where)
        if box is None or box.overlap_mm < 3.0:
            continue
        x0, y0, x1, y1 = box.box_xyxy_px
        top, left = max(int(y0) - 4, 0), max(int(x0) - 4, 0)
        window = slab[top : int(y1) + 5, left : int(x1) + 5]
        white = np.argwhere(window == 255) + (top + 0.5, left + 0.5)
        assert len(white) > 20
        np.testing.assert_allclose(white.mean(axis=0), (0.5 * (y0 + y1), 0.5 * (x0 + x1)), atol=0.6)
        found += 1
    assert found >= 1


def test_prepared_pngs_are_the_slabs_of_the_online_pipeline(steps, prepared_phantoms):
    record_path = min(prepared_phantoms.prepared_dir.glob("slabs/*/scan.json"))
    record = json.loads(record_path.read_text())
    (scan_path,) = prepared_phantoms.luna16_dir.glob(f"subset*/{record['seriesuid']}.mhd")
    pipeline = Compose([TRANSFORMS.build(dict(step)) for step in steps])
    online = pipeline({"scan_path": str(scan_path)})

    assert len(record["slabs"]) == len(online["slabs"])
    for entry, slab, geometry in zip(
        record["slabs"], online["slabs"], online["slab_geometries"], strict=True
    ):
        png = prepared_phantoms.prepared_dir / "slabs" / entry["file_name"]
        np.testing.assert_array_equal(cv2.imread(str(png), cv2.IMREAD_UNCHANGED), slab)
        assert {key: entry[key] for key in geometry.as_record()} == geometry.as_record()


def test_solid_nodules_are_bright_inside_their_boxes(prepared_phantoms):
    checked = 0
    for path in prepared_phantoms.prepared_dir.glob("annotations/*.json"):
        coco = json.loads(path.read_text())
        images = {image["id"]: image for image in coco.get("images", [])}
        for annotation in coco.get("annotations", []):
            if annotation["kind"] != "nodule" or annotation["diameter_mm"] < 6:
                continue
            name = images[annotation["image_id"]]["file_name"]
            slab = cv2.imread(str(prepared_phantoms.prepared_dir / "slabs" / name), 0)
            x, y, width, height = annotation["bbox"]
            core = slab[
                int(y + 0.3 * height) : int(y + 0.7 * height) + 1,
                int(x + 0.3 * width) : int(x + 0.7 * width) + 1,
            ]
            assert np.median(core) > np.median(slab[slab > 0])
            checked += 1
    assert checked >= 3


def test_luna16s_own_mask_is_used_when_asked_for(prepared_phantoms):
    mask_path = min(prepared_phantoms.luna16_dir.glob("seg-lungs-LUNA16/*.mhd"))
    (scan_path,) = prepared_phantoms.luna16_dir.glob(f"subset*/{mask_path.name}")
    load = TRANSFORMS.build({"type": "LoadCTScan"})
    segment = TRANSFORMS.build({"type": "OtsuLungMask", "method": "luna16"})
    results = segment(load({"scan_path": str(scan_path), "lung_mask_path": mask_path}))
    labels = read_scan(mask_path).volume_hu
    lungs = (labels == 3) | (labels == 4)
    assert results["lung_summary"]["method"] == "luna16"
    assert results["lung_mask"][lungs].mean() > 0.98
    assert results["lung_mask"].sum() < 1.3 * lungs.sum()


def test_a_damaged_mask_of_luna16_costs_the_scan_only_where_it_is_asked_for(
    prepared_phantoms, tmp_path
):
    mask_path = min(prepared_phantoms.luna16_dir.glob("seg-lungs-LUNA16/*.mhd"))
    (scan_path,) = prepared_phantoms.luna16_dir.glob(f"subset*/{mask_path.name}")
    broken = shutil.copy(mask_path, tmp_path)  # its pixels stay behind
    load = TRANSFORMS.build({"type": "LoadCTScan"})
    paths = {"scan_path": str(scan_path), "lung_mask_path": Path(broken)}
    results = TRANSFORMS.build({"type": "OtsuLungMask"})(load(dict(paths)))
    assert results["lung_summary"]["method"] == "otsu"
    assert "luna16_mask_unusable" in results["lung_summary"]["flags"]
    with pytest.raises(LungDetError, match="no such file"):
        TRANSFORMS.build({"type": "OtsuLungMask", "method": "luna16"})(load(dict(paths)))
