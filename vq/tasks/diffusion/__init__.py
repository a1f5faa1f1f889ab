"""Train a denoiser on images, or on the latents of a frozen tokenizer, and draw with it."""
