"""Splits: prepared scans, slab labels, who trains and who tests, accounting and leak check."""
