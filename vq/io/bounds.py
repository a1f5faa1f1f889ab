"""Bounds on what a file from outside may expand to, checked before memory is taken."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError

FREE = 2**28  # bytes that any file may expand to
TORCH = 4  # times its size that a torch file may expand to: torch compresses nothing, but names can share tensors
DEEPEST = 100  # levels of containers; ours have at most 64


def check_zip_size(path: Path) -> None:
    """Raise if the records of a torch zip file are much larger than the file. What is no zip file is left to its reader."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            claimed = sum(record.file_size for record in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, struct.error):
        return  # the reader reports it
    size = path.stat().st_size
    if claimed > FREE + TORCH * size:
        raise UserError(
            f'{path} is refused: its {size:,} bytes expand to {claimed:,}',
            'torch.save compresses nothing. Where you trust the file, write it again with torch.save.',
        )


def check_expansion(path: Path, value: Any) -> None:
    """Raise if the tensors in plain containers are much larger than their file, or nested deeper than ``DEEPEST``.

    ``Tensor.expand`` makes a tensor of any size out of one element, and a file keeps it so: a copy takes the memory.
    """
    size, total = path.stat().st_size, 0
    seen: set[Any] = set()
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict | list):
                if id(item) in seen:  # a list that holds another twice, which holds another twice, ...
                    continue
                seen.add(id(item))
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list | tuple) and not isinstance(item, torch.Size):
                below += item
            elif isinstance(item, Tensor) and item.layout == torch.strided and item.device.type != 'meta':
                place = (item.data_ptr(), item.dtype, tuple(item.shape), item.stride())
                total += 0 if place in seen else item.numel() * item.element_size()
                seen.add(place)
        if not below:
            break
        level = below
    else:
        raise UserError(f'{path} is refused: it is nested deeper than {DEEPEST} levels', 'Save the state dict alone.')
    if total > FREE + TORCH * size:
        raise UserError(
            f'{path} is refused: its tensors take {total:,} bytes, and the file has {size:,}',
            'They repeat the same memory (Tensor.expand). Where you trust the file, save their clones.',
        )
