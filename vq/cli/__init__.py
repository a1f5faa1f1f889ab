"""The bodies of the commands and their shared code. The modules that users start (``vq.train``) are one line each."""
