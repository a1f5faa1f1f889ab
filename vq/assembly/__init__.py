"""From a composed config to checked, built, counted and measured objects: what commands and ``vq.load`` stand on."""
