"""The page: draw layouts, reconstruct, generate and compare runs in a browser. ``python -m vq.web``, or ``vq web``.

The server (``server.py``) uses neither torch nor models. One worker process (``worker.py``) loads and runs them, one job after
the other, in the order in which the page asked.
"""
