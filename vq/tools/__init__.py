"""Doors to the tools: ``python -m vq.tools.NAME``, from any folder. A checkout has them as ``tools/NAME.py`` too."""
