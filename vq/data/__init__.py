"""From files to batches: decoding, transforms, datasets, the order of samples, and loading with workers."""
