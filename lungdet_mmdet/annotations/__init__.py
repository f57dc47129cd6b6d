"""Nodules as annotated: tables, spheres and their slab boxes, coverage by a mask."""
