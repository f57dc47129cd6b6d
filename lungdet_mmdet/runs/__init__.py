"""Running the same function on many scans: progress, failures, lost workers, interruption."""
