"""CRC-32 of packed rows is zlib's, whichever library computes it."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from vq.io import crc


@pytest.mark.parametrize('installed', [True, False])
def test_it_is_that_of_zlib(installed, monkeypatch):
    if not installed:
        monkeypatch.setattr(crc.importlib.util, 'find_spec', lambda name: None)
    crc32 = crc.crc32_function.__wrapped__()
    assert (crc32 is zlib.crc32) != installed
    for size in (0, 1, 15, 64, 255, 100_003):
        data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        assert crc32(data.data) == crc32(data.tobytes()) == zlib.crc32(data)
        assert crc32(b'more', crc32(data.data)) == zlib.crc32(data.tobytes() + b'more')
