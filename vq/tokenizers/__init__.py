"""What joins encoder, connectors, quantizer and decoder."""
