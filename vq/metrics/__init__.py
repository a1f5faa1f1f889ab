"""Metrics of a validation pass."""
