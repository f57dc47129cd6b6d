"""Semi-real cohorts: real nodules of some patients set into real lungs of others."""
