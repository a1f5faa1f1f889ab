"""Image classification: linear probes, and networks trained from scratch."""
