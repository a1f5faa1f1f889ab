"""Tokenizers: models that join an encoder, connectors, a quantizer and a decoder."""
