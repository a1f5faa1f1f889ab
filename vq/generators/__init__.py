"""Generators: models that learn tokens and draw new ones."""
