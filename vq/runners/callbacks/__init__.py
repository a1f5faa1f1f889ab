"""One callback per file. A runner calls the hooks of ``vq.interfaces.Callback`` in the order of its callbacks."""
