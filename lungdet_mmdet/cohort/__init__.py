"""The cohort: prepared scans, slab labels, splits, their accounting and leak check."""
