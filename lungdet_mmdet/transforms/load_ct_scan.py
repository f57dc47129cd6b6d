"""Read a scan file."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.hounsfield_check import check_hounsfield
from lungdet_mmdet.ct.reading import read_scan


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
        results["volume"] = scan.volume_hu
        results["geometry"] = scan.geometry
        results["file_geometry"] = scan.file_geometry
        results["seriesuid"] = scan.seriesuid
        results["scan_flags"] = list(scan.flags)
        return results
