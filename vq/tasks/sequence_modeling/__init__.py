"""Sequence modeling: generators that learn the tokens of images and draw new ones."""
