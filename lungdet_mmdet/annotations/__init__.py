# SPDX-License-Identifier: Apache-2.0
"""Nodules as annotated: tables, spheres and their slab boxes, coverage by a mask."""
