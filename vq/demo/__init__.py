"""What ``python -m vq.demo`` measures and shows; the command itself is ``vq/cli/demo.py``."""
