"""Learning to turn images into tokens and back."""
