"""Is this CT in Hounsfield units? What cannot be is refused before it gives a senseless answer."""

from __future__ import annotations

import numpy as np

from lungdet_mmdet.ct.scan import PADDING_BELOW_HU, CTScan
from lungdet_mmdet.errors import LungDetError

# Between lung tissue and fat; air and lungs lie below it, everything else above.
AIR_BELOW_HU = -500
# The lungs alone fill several per cent of any scan in which nodules can be looked for.
LEAST_AIR_SHARE = 0.005
# A chest fills a fifth of any field of view that it fits into.
LEAST_TISSUE_SHARE = 0.005
_EVERY_NTH_VOXEL = 7


def check_hounsfield(scan: CTScan, *, source: str) -> None:
    """Refuse a volume without air (MR, CT whose intercept was never applied) or without a patient.

    Raises
    ------
    LungDetError
        Naming the file, its range of values and the remedy.
    """
    values = scan.volume_hu.reshape(-1)[::_EVERY_NTH_VOXEL]
    run = f"{source}: values run from {values.min()} to {values.max()} and hardly any lies"
    is_air = (values < AIR_BELOW_HU) & (values > PADDING_BELOW_HU)
    if np.count_nonzero(is_air) < LEAST_AIR_SHARE * values.size:
        raise LungDetError(
            f"{run} at air ({PADDING_BELOW_HU} to {AIR_BELOW_HU}): no chest CT in Hounsfield "
            "units. If it is CT stored without its rescale intercept (often -1024), convert it "
            "again from DICOM; MR and other modalities cannot be used"
        )
    if np.count_nonzero(values >= AIR_BELOW_HU) < LEAST_TISSUE_SHARE * values.size:
        raise LungDetError(
            f"{run} above air ({AIR_BELOW_HU}): nobody was scanned, or the pixels are lost. "
            "Convert the scan again from DICOM"
        )
