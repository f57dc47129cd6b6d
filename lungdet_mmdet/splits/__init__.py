# SPDX-License-Identifier: Apache-2.0
"""Splits: prepared scans, slab labels, who trains and who tests, accounting and leak check."""
