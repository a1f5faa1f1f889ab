"""Networks that tell real images from reconstructed ones."""
