"""Reports a person reads: one HTML page with charts and pictures inside, no other file, no network."""
