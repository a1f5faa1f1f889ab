"""Tokenizers: models that join an encoder, connectors, a quantizer and a decoder."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
