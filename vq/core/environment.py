"""What the environment of a process says to all of vq."""

from __future__ import annotations

import os


def dry_run() -> bool:
    """DRY_RUN=True in the environment: every command runs its config's tiny form."""
    return os.environ.get('DRY_RUN', '').lower() in ('1', 'true', 'yes')
