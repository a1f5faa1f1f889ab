"""Learning to name what an image shows."""
