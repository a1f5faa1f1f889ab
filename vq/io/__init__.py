"""Files: atomic writes, checkpoints, weights from anywhere, shards of tokens, images and latents."""
