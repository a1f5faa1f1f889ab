"""Functions that draw tokens: samplers, guidance, orders of masked decoding, random numbers."""
