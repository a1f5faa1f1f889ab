"""Image reconstruction: new decoders for frozen tokenizers."""
