"""Learning to turn the tokens of a frozen tokenizer into images."""
