"""Phantoms: made-up chest CT scans with known nodules, for demonstrations and tests."""

from lungdet_mmdet.phantom.identity import PHANTOM_UID_PREFIX, is_phantom_uid
from lungdet_mmdet.phantom.scan import PhantomScan, Recipe, build_scan

__all__ = ["PHANTOM_UID_PREFIX", "PhantomScan", "Recipe", "build_scan", "is_phantom_uid"]
