"""Distributed tensors in files: written in parts, read by any number of ranks, without pickle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.ranks import GlooPool
from vq.core import collectives
from vq.core.errors import RunFailure, UserError
from vq.io import shard_files
from vq.io.atomic import MARKER
from vq.io.sharded import gathered, is_sharded, joined, local, part_of

ROWS = (1, 3, 5, 8)  # over two ranks: one and none, two and one, three and two, four each


def example(rows: int) -> Tensor:
    return torch.arange(rows * 6, dtype=torch.float32).view(rows, 2, 3) + rows


def cut(rows: int) -> Tensor:
    """A tensor sharded like a parameter under FSDP; the values do not matter."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh('cpu', (collectives.size(),))
    return distribute_tensor(torch.full((rows, 2, 3), -1.0), mesh, [Shard(0)])


def tensors() -> dict[str, Tensor]:
    parts = {f'a/{rows}': joined(part_of(example(rows), cut(rows)), cut(rows)) for rows in ROWS}
    return {**parts, 'step': torch.tensor(7.0), 'half': torch.ones(2, dtype=torch.bfloat16)}


def seal(folder: Path, files: dict[str, object]) -> None:
    (folder / MARKER).write_text(json.dumps({'format_version': 1, 'files': files}))


def write(folder: str) -> list[tuple[int, ...]]:
    files = shard_files.write(Path(folder), tensors())
    every = collectives.all_gather_object(files)
    if collectives.is_main():
        seal(Path(folder), {name: entry for one in every for name, entry in one.items()})
    collectives.barrier()
    return [tuple(local(value).shape) for value in tensors().values()]


def read(folder: str) -> list[bool]:
    """Whether each rank reads its rows, and tensors that are not sharded."""
    templates = {f'a/{rows}': cut(rows) for rows in ROWS}
    wanted = {**templates, 'step': torch.tensor(0.0), 'half': torch.zeros(2, dtype=torch.bfloat16)}
    shard_files.read_into(Path(folder), wanted)
    found = [torch.equal(local(templates[f'a/{rows}']), part_of(example(rows), templates[f'a/{rows}'])) for rows in ROWS]
    return [*found, bool(wanted['step'] == 7), bool((wanted['half'] == 1).all())]


def fail_on_the_second(folder: str) -> str:
    try:
        shard_files.write(Path(folder) / ('missing' if collectives.rank() else '.'), tensors())
    except (RunFailure, OSError) as error:
        return f'{type(error).__name__}: {error}'
    return 'no error'


def gather_all() -> list[str]:
    return sorted(name for name, value in gathered(tensors()).items() if not is_sharded(value))


@pytest.mark.slow
def test_parts_come_back_at_the_same_number_of_ranks_and_at_one(tmp_path: Path, gloo_pool: GlooPool) -> None:
    shapes = gloo_pool.run(write, str(tmp_path))
    assert shapes[0][:4] == [(1, 2, 3), (2, 2, 3), (3, 2, 3), (4, 2, 3)]
    assert shapes[1][:4] == [(0, 2, 3), (1, 2, 3), (2, 2, 3), (4, 2, 3)]
    assert gloo_pool.run(read, str(tmp_path)) == [[True] * 6] * 2
    described = shard_files.describe(tmp_path)
    assert described['a/5'] == (torch.float32, (5, 2, 3)) and described['half'] == (torch.bfloat16, (2,))
    whole = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in described.items()}
    shard_files.read_into(tmp_path, whole)
    for rows in ROWS:
        assert torch.equal(whole[f'a/{rows}'], example(rows))
    # replicated tensors are written once
    assert sum('step@' in load_file(path) for path in tmp_path.glob('*.safetensors')) == 1


@pytest.mark.slow
def test_an_error_on_one_rank_is_told_on_all(tmp_path: Path, gloo_pool: GlooPool) -> None:
    first, second = gloo_pool.run(fail_on_the_second, str(tmp_path))
    assert first.startswith('RunFailure: rank 1 failed at the sharded state: FileNotFoundError')
    assert second.startswith('FileNotFoundError')


@pytest.mark.slow
def test_only_the_first_rank_gathers(gloo_pool: GlooPool) -> None:
    first, second = gloo_pool.run(gather_all)
    assert first == sorted([*(f'a/{rows}' for rows in ROWS), 'half', 'step'])
    assert second == ['half', 'step']


def test_one_process_writes_and_reads_plain_tensors(tmp_path: Path) -> None:
    given = {'x/y': torch.randn(3, 4), 'n': torch.tensor(3)}
    seal(tmp_path, shard_files.write(tmp_path, given))  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['COMPLETE', 'optimizer.json', 'optimizer_0.safetensors']
    found = {name: torch.zeros_like(value) for name, value in given.items()}
    shard_files.read_into(tmp_path, found)
    assert all(torch.equal(found[name], value) for name, value in given.items())


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[]',
        '{"x": 1}',
        '{"x": {"dtype": "load", "shape": [1], "parts": []}}',
        '{"x": {"dtype": "float32", "shape": ["a"]}}',
    ],
)
def test_an_index_that_is_not_one_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / shard_files.INDEX).write_text(text)
    with pytest.raises(UserError, match=r'optimizer\.json is damaged'):
        shard_files.describe(tmp_path)
