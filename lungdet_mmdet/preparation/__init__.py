"""Running the prep pipeline over a cohort and writing the prepared dataset."""
