"""How many bad images a set may have."""

from __future__ import annotations

FEW = 5  # bad files that a small set may have, whatever fraction of it they are


def allowed_bad(limit: float, count: int) -> int:
    """``limit``: a fraction of the set; above 0 a few files of any set can be bad."""
    return max(FEW, int(limit * count)) if limit > 0 else 0
