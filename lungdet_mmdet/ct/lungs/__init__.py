"""The lungs of a scan: segmented on a coarse grid, judged, with fallbacks."""
