"""Another distance of neighbouring slabs than the model's own."""

from __future__ import annotations

from lungdet_mmdet.ct.mip import SLAB_THICKNESS_MM
from lungdet_mmdet.errors import LungDetError


def with_stride(steps: list[dict], stride_mm: float | None) -> list[dict]:
    """Return the prep pipeline with another distance of neighbouring slabs.

    Raises
    ------
    LungDetError
        If the stride is not positive or exceeds the slab thickness, which would leave gaps, or the
        model looks at single slices, at neighbouring slabs, which a stride would move, or at no
        slabs of this package's making.
    """
    if stride_mm is None:
        return steps
    if any(s["type"] == "NeighbourChannels" for s in steps):
        raise LungDetError(
            "this model looks at each slab with its neighbours, which another stride would move; "
            "leave out --stride-mm"
        )
    slabs = [s for s in steps if s["type"] == "MIPSlabs"]
    thickness = min((s.get("thickness_mm", SLAB_THICKNESS_MM) for s in slabs), default=0.0)
    if not thickness > 0:
        raise LungDetError(
            f"slab stride is {stride_mm} mm, but this model looks at every slice or has no step "
            "MIPSlabs: there is nothing between its slabs to look at; leave out --stride-mm"
        )
    if not 0.0 < stride_mm <= thickness:
        raise LungDetError(
            f"slab stride is {stride_mm} mm: it must be above 0 and at most the slab thickness, "
            f"{thickness} mm, or nodules between the slabs are never seen"
        )
    return [{**s, "stride_mm": stride_mm} if s["type"] == "MIPSlabs" else s for s in steps]
