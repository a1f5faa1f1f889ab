"""Frozen pretrained image networks, whose features encoders, losses and metrics use."""
