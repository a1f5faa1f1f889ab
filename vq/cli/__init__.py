"""What the commands share; their bodies. The doors (``python -m vq.train``) are one line each."""
