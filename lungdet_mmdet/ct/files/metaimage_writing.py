"""Writing a scan as LUNA16 stores it: a text header and a file of pixels."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.execution.atomic_files import FOLDER_SUFFIX, output_error


def write_metaimage(
    folder: Path, name: str, volume: np.ndarray, geometry: ScanGeometry, *, compress: bool = False
) -> Path:
    """Write ``<name>.mhd`` with ``<name>.raw`` (``.zraw`` if compressed); return the header.

    The header, by which readers find a scan, comes last: a scan is there whole or not at all.

    Parameters
    ----------
    folder, name : where to; the folder is made.
    volume : array (z, y, x), Hounsfield units or labels.
    geometry : its grid.
    compress : whether to compress the pixels.

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    scratch = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=folder, prefix=f".{name}.", suffix=FOLDER_SUFFIX)
        image = sitk.GetImageFromArray(volume)
        image.SetSpacing(geometry.spacing_xyz_mm.tolist())
        image.SetOrigin(geometry.origin_xyz_mm)
        image.SetDirection(geometry.direction)
        # Level 1: noise hardly compresses, higher levels only take longer.
        sitk.WriteImage(image, f"{scratch}/{name}.mhd", compress, 1)
        for suffix in (".zraw" if compress else ".raw", ".mhd"):
            os.replace(f"{scratch}/{name}{suffix}", folder / f"{name}{suffix}")
    except OSError as error:
        raise output_error(folder, error) from error
    except RuntimeError as error:  # SimpleITK's way to say that it cannot write
        reason = OSError(None, str(error).strip().splitlines()[-1])
        raise output_error(folder, reason) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder / f"{name}.mhd"
