"""Measurements for the report of ``python -m vq.demo``. The command itself is ``vq/cli/demo.py``."""
