"""From a composed config to checked, built, counted and measured objects, for commands and ``vq.load``."""
