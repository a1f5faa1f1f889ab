"""Parts of ``vq.tools.fuzz``: the files that are damaged, the damage, and the process that reads them."""
