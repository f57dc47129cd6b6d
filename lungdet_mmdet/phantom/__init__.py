# SPDX-License-Identifier: Apache-2.0
"""Phantoms: made-up chest CT scans with known nodules, for demonstrations and tests."""
