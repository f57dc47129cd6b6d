"""Ops that mmcv compiles, and pure PyTorch versions of those that this package needs."""
