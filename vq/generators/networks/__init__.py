"""The transformers of generators."""
