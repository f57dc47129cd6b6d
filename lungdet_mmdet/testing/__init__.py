"""Testing a trained detector on a split: run, tables, files."""
