"""Random streams that depend only on names and numbers, not on earlier draws."""

from __future__ import annotations

import hashlib
import operator
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any names and numbers: the same on every machine, rank and Python version.

    Each part is written with its type and length, so that ``(1, 23)``, ``(12, 3)`` and ``('1', 23)`` differ. Integers of
    NumPy and torch give the same seed as Python integers.
    """
    text = ''  # a loop: this is called twice for every sample of a training
    for part in parts:
        if isinstance(part, str):
            text += f'str:{len(part)}:{part};'
        else:
            digits = str(operator.index(part))
            text += f'int:{len(digits)}:{digits};'
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little') >> 1


def python_stream(*parts: int | str) -> random.Random:
    return random.Random(derive_seed(*parts))


def torch_stream(*parts: int | str, device: str = 'cpu') -> torch.Generator:
    import torch

    return torch.Generator(device).manual_seed(derive_seed(*parts))


def key_of(sample_id: str) -> int:
    """A sample's id as an integer, for tensors: de-duplication across ranks compares these integers."""
    return derive_seed('id', sample_id)


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed Python, NumPy and torch (all devices), differently on each rank. Initial parameters are drawn before this call."""
    import numpy
    import torch

    number = derive_seed('process', seed, rank)
    random.seed(number)
    numpy.random.seed(number & 0xFFFFFFFF)
    torch.manual_seed(number)


def random_state() -> dict[str, object]:
    """The state of every random generator of this process, in containers that load with ``weights_only=True``."""
    import numpy
    import torch

    version, words, gauss = random.getstate()
    legacy: Any = numpy.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = legacy
    state: dict[str, object] = {
        'python': [version, list(words), gauss],
        'numpy': [str(name), torch.from_numpy(keys.astype('int64')), int(position), int(has_gauss), float(cached)],
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, object]) -> None:
    """Set the state that ``random_state`` returned."""
    import numpy
    import torch

    version, words, gauss = state['python']  # type: ignore[misc]
    random.setstate((version, tuple(words), gauss))  # type: ignore[has-type]
    name, keys, position, has_gauss, cached = state['numpy']  # type: ignore[misc]
    numpy.random.set_state((name, keys.numpy().astype('uint32'), position, has_gauss, cached))  # type: ignore[has-type]
    torch.set_rng_state(state['torch'])  # type: ignore[arg-type]
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])  # type: ignore[arg-type]
