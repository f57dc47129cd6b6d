"""Registered metrics: thin adapters between the evaluation loop and the scoring functions."""
