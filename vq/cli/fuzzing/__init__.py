"""Parts of ``tools/fuzz.py``: the files that are damaged, the damage, and the process that reads them."""
