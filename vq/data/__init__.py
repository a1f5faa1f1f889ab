"""From files to batches: decoding, transforms, datasets, the order of samples, and loading in worker processes."""
