"""Registers everything of this package in mmdet's registries.

Configs load it with ``custom_imports = dict(imports=['lungdet_mmdet.plugin'])``.
"""

import lungdet_mmdet  # noqa: F401  (makes mmcv.ops importable first)
from lungdet_mmdet import datasets, hooks, metrics, transforms

__all__ = ["datasets", "hooks", "metrics", "transforms"]
