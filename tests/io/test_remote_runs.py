"""Weights at an address, and the back ends of mmengine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.io.remote_places import Remote
from tests.io.test_runs import write
from vq.core.errors import UserError
from vq.io import remote_runs
from vq.io.remote_cache import cache
from vq.io.runs import find
from vq.io.weights import read_weights


@pytest.fixture
def run(there: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """A run with two checkpoints, the later one with an average, and a file beside it."""
    monkeypatch.chdir(tmp_path)
    remote_runs._copied.cache_clear()
    write(Path('a/run'), 5)
    write(Path('a/run'), 10, ema=True)
    save_file({'w': torch.ones(3)}, 'a/file.safetensors')
    for path in sorted(Path('a').rglob('*')):
        if path.is_file():
            there.put(path.relative_to('a').as_posix(), path.read_bytes())
    for folder in ('run', 'run/checkpoints', 'run/checkpoints/iter_5', 'run/checkpoints/iter_10'):
        there.list_files(folder)
    return there


NAMES = {  # name -> step, part
    'run': (10, 'ema'),
    'run/checkpoints': (10, 'ema'),
    'run/checkpoints/iter_5': (5, None),
    'run/checkpoints/iter_5/model.safetensors': (5, None),
    'run/checkpoints/iter_10/model.pth': (10, None),
}


@pytest.mark.slow
def test_a_run_at_an_address(run):
    for name, (step, part) in NAMES.items():
        found = find(run.url(name))
        tensors, source = read_weights(found)
        assert tensors['w'].tolist() == [float(step)] * 2 and (part is None or source.part == part)
        assert found.config['trainer']['model']['type'] == 'ImageTokenization' and found.spec.kind == 'tokenizer'
        if name == 'run':
            assert not any('iter_5/' in path for _, path, _ in run.proxy.requests), 'older checkpoints are not fetched'


def test_a_file_at_an_address_is_fetched_once(run):
    assert read_weights(run.url('file.safetensors'))[0]['w'].tolist() == [1.0] * 3
    asked = len(run.proxy.requests)
    path = find(run.url('file.safetensors')).file()
    assert path.is_relative_to(cache().folder) and len(run.proxy.requests) == asked
    cache().delete(path.parent)
    assert find(run.url('file.safetensors')).file().is_file(), 'fetched again'


def test_an_address_without_weights(run):
    with pytest.raises(UserError) as caught:
        find(run.url('nothing'))
    assert run.url('nothing') in caught.value.message and caught.value.hint


def test_mmengine_reads_the_same_addresses(run):
    fileio = pytest.importorskip('mmengine.fileio')
    from mmengine.fileio.backends import registry_utils

    from vq.io.mm_stores import register

    before = dict(registry_utils.prefix_to_backends), dict(registry_utils.backends)
    try:
        register()
        backend = fileio.get_file_backend(run.url('x'), enable_singleton=False)
        run.put('x/y.txt', 'ä'.encode())
        run.list_files()
        assert backend.get_text(run.url('x/y.txt')) == 'ä' and backend.exists(run.url('x/y.txt'))
        assert not backend.exists(run.url('x/z.txt'))
        listed = list(backend.list_dir_or_file(run.url(), recursive=True))
        assert 'run/checkpoints' in listed and 'x/y.txt' in listed and 'x/y.txt' not in backend.list_dir_or_file(run.url())
    finally:
        for known, kept in zip((registry_utils.prefix_to_backends, registry_utils.backends), before, strict=True):
            known.clear()
            known.update(kept)
