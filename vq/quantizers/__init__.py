"""Quantizers, from features to tokens: one file each, with the code search and the codebook updates."""
