"""Frozen networks that understand images: encoders, losses and metrics look through their eyes."""
