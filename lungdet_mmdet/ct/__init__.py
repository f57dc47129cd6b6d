# SPDX-License-Identifier: Apache-2.0
"""One CT scan as arrays: geometry, reading, resampling, lung mask, contrast, slabs."""
