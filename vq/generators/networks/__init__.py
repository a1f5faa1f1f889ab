"""Transformers that generators run on."""
