"""Writing the samples of a dataset as packed images."""
