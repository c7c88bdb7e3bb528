"""Metrics: sums on the devices, results on the host."""
