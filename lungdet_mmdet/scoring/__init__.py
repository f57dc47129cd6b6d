"""Scoring: size bands, operating point, anomaly view, 3-D candidates, FROC, bootstrap."""
