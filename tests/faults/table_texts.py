"""Texts of annotations.csv with one fault each; UID and GOOD stand for the sound scan's series."""

from __future__ import annotations

from tests.faults.chest import GOOD_NAME

UID = GOOD_NAME
HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
ROW = f"{UID},70,0,80,20\n"
GOOD = HEADER + ROW


def row(x: object = 70, y: object = 0, z: object = 80, diameter: object = 20) -> str:
    """Return a table of one line."""
    return f"{HEADER}{UID},{x},{y},{z},{diameter}\n"
