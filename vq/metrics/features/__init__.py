"""Metrics between two sets of features. These functions take tensors only, not networks."""
