# SPDX-License-Identifier: Apache-2.0
"""Steps of preparation: a scan loaded, resampled, masked, cropped, windowed and cut into slabs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.lungs.mask import segment_with_fallback
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.resample import (
    in_plane_bounds,
    nearest_on_grid,
    resample_volume,
    slice_range_with_lung,
)
from lungdet_mmdet.ct.scan import (
    LUNG_LEVEL_HU,
    LUNG_WIDTH_HU,
    apply_clahe,
    check_hounsfield,
    window_hu,
)
from lungdet_mmdet.ct.slabs import (
    SLAB_THICKNESS_MM,
    mip_channels,
    mip_slabs,
    neighbour_channels,
    thickness_flags,
)
from lungdet_mmdet.errors import LungDetError


@TRANSFORMS.register_module()
class LoadCTScan(BaseTransform):
    """Read a CT scan in canonical orientation; what cannot be a chest CT is refused.

    Required Keys:

    - scan_path (str)

    Added Keys:

    - volume (int16 array (z, y, x), Hounsfield units)
    - geometry (ScanGeometry)
    - file_geometry (ScanGeometry): the grid as stored in the file
    - seriesuid (str)
    - scan_flags (list[str])
    """

    def transform(self, results: dict) -> dict:
        """Read ``results['scan_path']``; a scan in ``results['scan']`` is taken as it is."""
        scan = results.pop("scan", None) or read_scan(results["scan_path"])
        check_hounsfield(scan, source=str(results.get("scan_path") or scan.seriesuid))
        results["volume"], results["geometry"] = scan.volume_hu, scan.geometry
        results["file_geometry"], results["seriesuid"] = scan.file_geometry, scan.seriesuid
        results["scan_flags"] = [*scan.flags, *thickness_flags(scan.geometry.spacing_zyx_mm[0])]
        return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class ResampleScan(BaseTransform):
    """Resample to a common spacing (equation 1 of the paper).

    Required Keys:

    - volume (int16 array (z, y, x))
    - geometry (ScanGeometry)

    Modified Keys:

    - volume, geometry

    Parameters
    ----------
    spacing_zyx_mm : target spacing; ``None`` for an axis keeps the scan's own.
    """

    spacing_zyx_mm: Sequence[float | None] = (1.25, 0.7, 0.7)

    def transform(self, results: dict) -> dict:
        results["volume"], results["geometry"] = resample_volume(
            results["volume"], results["geometry"], tuple(self.spacing_zyx_mm)
        )
        return results


# Between the air around the patient (-1000) and the least dense lung.
ABOVE_AIR_HU = -975


@TRANSFORMS.register_module()
@dataclass(eq=False)
class OtsuLungMask(BaseTransform):
    """Segment the lungs: Otsu, connected components, erosion, hole filling, closing.

    Required Keys:

    - volume (int16 array (z, y, x), Hounsfield units)
    - geometry (ScanGeometry)
    - lung_mask_path (path or None) (optional): LUNA16's own mask of the scan

    Added Keys:

    - lung_mask (uint8 array (z, y, x), 1 inside)
    - lung_segmentation (LungSegmentation), on the grid of this step
    - lung_summary (dict): method, verdict, volumes in litres, flags, and ``tissue_voxels``, the
      voxels above air before masking

    Parameters
    ----------
    method : "otsu" computes the mask; "luna16" takes LUNA16's own where it is there.
    closing_mm : radius of the closing per lung.
    erosion_mm : erosion that parts the air into components.
    margin_mm : how far the mask reaches beyond the surface found.
    grid_mm : size of the blocks on which the lungs are found.
    """

    method: Literal["otsu", "luna16"] = "otsu"
    closing_mm: float = 16.0
    erosion_mm: float = 3.0
    margin_mm: float = 1.0
    grid_mm: float = 3.0

    def __post_init__(self) -> None:
        if self.method not in ("otsu", "luna16"):
            raise LungDetError(f"OtsuLungMask method is '{self.method}': use 'otsu' or 'luna16'")

    def transform(self, results: dict) -> dict:
        volume, geometry = results["volume"], results["geometry"]
        given, flags = None, ()
        if (path := results.get("lung_mask_path")) is not None:
            try:
                labels = read_scan(path)
                given = nearest_on_grid(
                    labels.volume_hu.astype(np.uint8), labels.geometry, geometry
                )
            except LungDetError:
                if self.method == "luna16":
                    raise
                flags = ("luna16_mask_unusable",)  # it would only have been a fallback
        segmentation = segment_with_fallback(
            volume,
            spacing_zyx_mm=geometry.spacing_zyx_mm,
            luna16_mask=given,
            prefer=self.method,
            closing_mm=self.closing_mm,
            erosion_mm=self.erosion_mm,
            margin_mm=self.margin_mm,
            grid_mm=self.grid_mm,
        )
        segmentation = replace(segmentation, flags=(*segmentation.flags, *flags))
        results["lung_mask"], results["lung_segmentation"] = segmentation.mask, segmentation
        results["lung_summary"] = {
            **segmentation.summary(),
            "tissue_voxels": sum(int(np.count_nonzero(s > ABOVE_AIR_HU)) for s in volume),
        }
        return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class DropPeripheralSlices(BaseTransform):
    """Keep the slices between the first and the last with enough lung.

    Required Keys:

    - volume (array (z, y, x))
    - lung_mask (uint8 array (z, y, x))
    - geometry (ScanGeometry)

    Modified Keys:

    - volume, lung_mask, geometry

    Parameters
    ----------
    min_area_share : least lung area of a slice, as a share of the scan's largest slice area.
    """

    min_area_share: float = 0.02

    def transform(self, results: dict) -> dict:
        mask, share = results["lung_mask"], self.min_area_share
        first, stop = slice_range_with_lung(mask, min_area_share=share)
        return _cropped(results, (first, stop), (0, None), (0, None))


def _cropped(results: dict, *ranges_zyx: tuple[int, int | None]) -> dict:
    """Cut volume, mask and geometry to first and stop along each axis; views, no copies."""
    box, start = tuple(slice(*ends) for ends in ranges_zyx), [first for first, _ in ranges_zyx]
    results["volume"], results["lung_mask"] = results["volume"][box], results["lung_mask"][box]
    results["geometry"] = results["geometry"].cropped(tuple(start), results["volume"].shape)
    return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class CropToLungs(BaseTransform):
    """Crop in-plane to the bounding box of the lung mask plus a margin.

    Everything outside is black after masking; without it the detector sees the same lungs in
    about half the pixels. The geometry moves along, so world coordinates stay right.

    Required Keys:

    - volume (array (z, y, x))
    - lung_mask (uint8 array (z, y, x))
    - geometry (ScanGeometry)

    Modified Keys:

    - volume, lung_mask, geometry

    Parameters
    ----------
    margin_mm : width of the rim to keep around the lungs.
    """

    margin_mm: float = 5.0

    def transform(self, results: dict) -> dict:
        spacing_yx_mm = results["geometry"].spacing_zyx_mm[1:]
        margin_yx = tuple(math.ceil(self.margin_mm / s) for s in spacing_yx_mm)
        y, x = in_plane_bounds(results["lung_mask"], margin_yx=margin_yx)
        return _cropped(results, (0, None), y, x)


@TRANSFORMS.register_module()
@dataclass(eq=False)
class WindowHU(BaseTransform):
    """Apply a grey-level window and the lung mask.

    Required Keys:

    - volume (int16 array (z, y, x), Hounsfield units)
    - lung_mask (uint8 array (z, y, x)), where `apply_mask`

    Modified Keys:

    - volume (uint8 array (z, y, x)); 0 outside the mask, 1..255 inside

    Added Keys:

    - masked (bool): whether grey level 0 means "outside the lungs"

    Parameters
    ----------
    level_hu, width_hu : window centre and width.
    apply_mask : black out everything outside the lungs before projecting. Without it, ribs win
        the maximum.
    """

    level_hu: float = LUNG_LEVEL_HU
    width_hu: float = LUNG_WIDTH_HU
    apply_mask: bool = True

    def transform(self, results: dict) -> dict:
        results["volume"] = window_hu(
            results["volume"],
            level_hu=self.level_hu,
            width_hu=self.width_hu,
            mask=results["lung_mask"] if self.apply_mask else None,
        )
        results["masked"] = self.apply_mask
        return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class CLAHE(BaseTransform):
    """Contrast Limited Adaptive Histogram Equalisation of every slice.

    Before MIPSlabs (the paper's order) it works on slices, after it on slabs.

    Required Keys:

    - volume (uint8 array (z, y, x)), or slabs (uint8 array (n, y, x)) where they are there already
    - masked (bool)

    Modified Keys:

    - volume or slabs

    Parameters
    ----------
    clip_limit : OpenCV's clip limit.
    tiles_yx : number of tiles along y and x.
    """

    clip_limit: float = 2.0
    tiles_yx: Sequence[int] = (8, 8)

    def transform(self, results: dict) -> dict:
        key = "slabs" if "slabs" in results else "volume"
        results[key] = apply_clahe(
            results[key],
            clip_limit=self.clip_limit,
            tiles_yx=tuple(self.tiles_yx),
            keep_zero=results["masked"],
        )
        return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class MIPSlabs(BaseTransform):
    """Maximum intensity projection over slabs (equation 2 of the paper).

    Required Keys:

    - volume (uint8 array (z, y, x))
    - geometry (ScanGeometry)

    Added Keys:

    - slabs (uint8 array (n_slabs, y, x))
    - slab_geometries (list[SlabGeometry])
    - slab_depths (uint8 array (n_slabs, y, x)), where ``depth``; see ``mip_slabs``

    Parameters
    ----------
    thickness_mm : slab thickness; 0 gives single slices.
    stride_mm : distance of neighbouring slabs; None puts slab next to slab.
    depth : whether to hand on the depth of the maximum, from which candidates take their position
        along z; without it they lie on the mid-plane of their slab.
    """

    thickness_mm: float = SLAB_THICKNESS_MM
    stride_mm: float | None = None
    depth: bool = True

    def transform(self, results: dict) -> dict:
        results["slabs"], results["slab_geometries"], depths = mip_slabs(
            results["volume"],
            results["geometry"],
            thickness_mm=self.thickness_mm,
            stride_mm=self.stride_mm,
            with_depth=self.depth,
        )
        if depths is not None:
            results["slab_depths"] = depths
        return results


@TRANSFORMS.register_module()
class MIPChannels(BaseTransform):
    """Give every slab three channels: projections over three thicknesses about its middle.

    Comes after MIPSlabs, whose slabs decide how many images there are and what their boxes are.
    ``slab_depths`` stays that of the slab itself.

    Required Keys:

    - volume (uint8 array (z, y, x))
    - geometry (ScanGeometry)
    - slab_geometries (list[SlabGeometry])

    Modified Keys:

    - slabs (uint8 array (n_slabs, y, x, 3))

    Parameters
    ----------
    thicknesses_mm : of the three channels, in the order in which the image file stores them.
    """

    def __init__(self, thicknesses_mm: Sequence[float] = (5.0, 10.0, 15.0)) -> None:
        if len(thicknesses_mm) != 3:
            raise LungDetError(
                f"MIPChannels thicknesses_mm is {tuple(thicknesses_mm)}: an image has 3 channels"
            )
        self.thicknesses_mm = tuple(thicknesses_mm)

    def transform(self, results: dict) -> dict:
        results["slabs"] = mip_channels(
            results["volume"],
            results["geometry"],
            results["slab_geometries"],
            thicknesses_mm=self.thicknesses_mm,
        )
        return results


@TRANSFORMS.register_module()
class NeighbourChannels(BaseTransform):
    """Put the slab below and the slab above into the first and the third channel.

    Comes after MIPSlabs; see ``neighbour_channels``. ``slab_depths`` stays that of the slab itself.

    Required Keys:

    - slabs (uint8 array (n_slabs, y, x))
    - slab_geometries (list[SlabGeometry])

    Modified Keys:

    - slabs (uint8 array (n_slabs, y, x, 3))
    """

    def transform(self, results: dict) -> dict:
        results["slabs"] = neighbour_channels(results["slabs"], results["slab_geometries"])
        return results
