"""Getting LUNA16 from its public archive, and checking what is on disk."""
