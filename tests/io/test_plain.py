"""Training state has plain containers only, and loads with ``weights_only=True``."""

from __future__ import annotations

import collections
import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.io.samples import equal
from vq.core.random import random_state
from vq.io import plain
from vq.io.atomic import atomic_file


class Mode(enum.IntEnum):
    ON = 1


Pair = collections.namedtuple('Pair', 'a b')


def round_trip(path: Path, value: Any) -> Any:
    with atomic_file(path) as writer:
        plain.write_plain(writer, value, 'training')
    return torch.load(path, weights_only=True)


def test_optimizers_schedules_and_random_states_come_back(tmp_path: Path) -> None:
    model = nn.Linear(3, 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    state = {
        'optimizer': optimizer.state_dict(),
        'random': random_state(),
        'odd': [None, True, 1.5, 'text', b'bytes', (1, (2,)), {3: {'x': []}}, torch.Size([1, 2]), torch.bfloat16],
        'ordered': collections.OrderedDict(b=torch.zeros(0), a=torch.tensor(True)),
        'infinite': float('inf'),
    }
    assert equal(round_trip(tmp_path / 'x', state), state)


def test_parameters_become_tensors(tmp_path: Path) -> None:
    found = round_trip(tmp_path / 'x', {'p': nn.Parameter(torch.ones(3))})
    assert type(found['p']) is torch.Tensor
    assert not found['p'].requires_grad


def test_a_small_view_does_not_drag_its_memory_along(tmp_path: Path) -> None:
    large = torch.arange(1_000_000)
    found = round_trip(tmp_path / 'x', {'view': large[5:8]})
    assert found['view'].tolist() == [5, 6, 7]
    assert (tmp_path / 'x').stat().st_size < 10_000


@pytest.mark.parametrize(
    ('value', 'where'),
    [
        (np.float64(1), r'training\.g\.lr is a numpy\.float64'),
        (np.zeros(3), r'training\.g\.lr is a numpy\.ndarray'),
        (Mode.ON, r'training\.g\.lr is a .*Mode'),
        (Pair(1, 2), r'training\.g\.lr is a .*Pair'),
        ({1, 2}, r'training\.g\.lr is a builtins\.set'),
        (collections.defaultdict(int), r'training\.g\.lr is a collections\.defaultdict'),
        (nn.Linear(1, 1), r'training\.g\.lr is a torch\.nn'),
        ([0, {'deep': len}], r'training\.g\.lr\[1\]\.deep is a builtins'),
        ({(1, 2): 0}, r'training\.g\.lr has the key \(1, 2\)'),
        (torch.zeros(1, device='meta'), r'training\.g\.lr is on the meta device'),
    ],
)
def test_anything_else_is_refused_with_its_key(tmp_path: Path, value: Any, where: str) -> None:
    with pytest.raises(TypeError, match=where):
        round_trip(tmp_path / 'x', {'g': {'lr': value}})
    assert list(tmp_path.iterdir()) == []


def test_a_circle_is_found() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(TypeError, match='does it contain itself'):
        plain.plain(circle, 'training')
