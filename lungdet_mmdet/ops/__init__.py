# SPDX-License-Identifier: Apache-2.0
"""Ops that mmcv compiles, and pure PyTorch versions of those that this package needs."""

INSTALL_COMPILED = (
    "pip install onedl-mim && mim install onedl-mmcv --only-binary=onedl-mmcv (or, with "
    "OpenMMLab's own packages, mim install mmcv==2.1.0); there are wheels for some versions of "
    "Python, torch and CUDA only"
)
WITHOUT_COMPILED = "pip install --force-reinstall --no-deps --no-binary onedl-mmcv onedl-mmcv"
"""Installs mmcv without its ops; their places are then taken by this package's."""
