# SPDX-License-Identifier: Apache-2.0
"""The lungs of a scan: segmented on a coarse grid, judged, with fallbacks."""
