"""How this process holds memory of the host."""

from __future__ import annotations

import ctypes

KEPT_BLOCK, KEPT_MEMORY = 32 * 2**20, 512 * 2**20  # bytes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """What one step frees is there for the next one; glibc would give it back to the system, which then clears every page
    anew: an eighth of a step of the digits tokenizer, a quarter of one of their classifier.

    Blocks of more than ``KEPT_BLOCK`` still come and go alone, so that memory is not torn up by images of many pixels.
    """
    set_option = getattr(ctypes.CDLL(None), 'mallopt', None)  # only glibc has it
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, KEPT_BLOCK)
        set_option(M_TRIM_THRESHOLD, KEPT_MEMORY)
