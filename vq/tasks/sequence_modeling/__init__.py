"""Learning the tokens of images, and drawing new ones."""
