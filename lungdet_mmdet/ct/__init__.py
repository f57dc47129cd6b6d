"""One CT scan as arrays: geometry, reading, resampling, lung mask, contrast, slabs."""
