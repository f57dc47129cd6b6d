"""Phantoms: made-up chest CT scans with known nodules, for demonstrations and tests."""
