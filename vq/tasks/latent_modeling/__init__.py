"""Train a generator of continuous tokens on the latents of a frozen tokenizer, and draw with it."""
