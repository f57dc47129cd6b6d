"""Ops that mmcv compiles, and pure PyTorch versions of those that this package needs."""

INSTALL_COMPILED = (
    "mim install onedl-mmcv (or, with OpenMMLab's own packages, mim install mmcv==2.1.0)"
)
