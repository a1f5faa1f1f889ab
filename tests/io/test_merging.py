"""Merged weights equal their formula per tensor, after a reload; what is kept, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vq.cli.merge import METHODS as SHOWN
from vq.cli.merge import main as merge
from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.atomic import atomic_file
from vq.io.merging import METHODS, merge_weights
from vq.io.weights import read_weights


def written(path: Path, seed: int, **more: Tensor) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    tensors = {'denoiser.a': torch.randn(3, 4, generator=stream), 'denoiser.b': torch.randn(5, generator=stream).half()}
    tensors |= {'count': torch.tensor(seed), **more}
    with atomic_file(path, tensorfile.size_of(tensors)) as writer:
        tensorfile.write_tensors(writer, tensors, {'vq.note': str(seed)})
    return tensors


@pytest.mark.parametrize('method', METHODS)
def test_a_merge_equals_its_formula(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert SHOWN == METHODS
    names = [str(tmp_path / f'{name}.safetensors') for name in 'abc']
    a, b, c = (written(Path(name), seed) for seed, name in enumerate(names))
    share, output = 0.3, tmp_path / 'merged.safetensors'
    given = names if method == 'add_difference' else names[:2]
    assert merge([*given, '--method', method, '--share', str(share), '--output', str(output)]) == 0
    part = {'weighted': 0.3, 'sigmoid': 0.09 * 2.4, 'inverse_sigmoid': 0.5 - math.sin(math.asin(0.4) / 3)}
    found, source = read_weights(output)
    for key in ('denoiser.a', 'denoiser.b'):
        one, other, base = (each[key].double() for each in (a, b, c))
        moved = share * (other - base) if method == 'add_difference' else part.get(method, 0) * (other - one)
        torch.testing.assert_close(found[key].double(), one + moved, rtol=1e-3 if key[-1] == 'b' else 1e-6, atol=1e-7)
        assert found[key].dtype == a[key].dtype
    assert found['count'] == 0, 'integers are those of the first'
    assert tensorfile.read_header(source.path).metadata['vq.note'] == '0'
    assert '2 tensors, 1 are those of the first' in capsys.readouterr().out


def test_ends_are_the_models_themselves(tmp_path: Path) -> None:
    a, b = written(tmp_path / 'a', 1), written(tmp_path / 'b', 2)
    for method in ('weighted', 'sigmoid', 'inverse_sigmoid'):
        for share, wanted in ((0.0, a), (1.0, b)):
            torch.testing.assert_close(merge_weights(a, b, None, method, share).tensors['denoiser.a'], wanted['denoiser.a'])


def test_only_some_keys_change_and_new_ones_are_kept(tmp_path: Path) -> None:
    a, b = written(tmp_path / 'a', 1, extra=torch.ones(2)), written(tmp_path / 'b', 2)
    found = merge_weights(a, b, None, 'weighted', 1.0, only=('denoiser.b',))
    assert torch.equal(found.tensors['denoiser.a'], a['denoiser.a']) and found.merged == ['denoiser.b']
    assert sorted(found.kept) == ['count', 'denoiser.a', 'extra']


def test_what_cannot_be_merged_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / 'a', 1), written(tmp_path / 'b', 2)
    for arguments, words in (
        ((a, b, None, 'add_difference', 0.5), 'add_difference of 2 models'),
        ((a, b, a, 'weighted', 0.5), 'weighted of 3 models'),
        ((a, b, None, 'weighted', 1.5), 'the share is 1.5'),
        ((a, b, None, 'mean', 0.5), "there is no method 'mean'"),
        ((a, {'x': a['count']}, None, 'weighted', 0.5), 'no tensor in common'),
        ((a, {'denoiser.a': torch.zeros(2)}, None, 'weighted', 0.5), r'has the shapes \(3, 4\) and \(2,\)'),
    ):
        with pytest.raises(UserError, match=words):
            merge_weights(*arguments)
    names = [str(tmp_path / 'a'), str(tmp_path / 'b')]
    assert merge([*names, '--output', names[0]]) == 2 and 'already exists' in capsys.readouterr().err
    assert merge([names[0], '--output', str(tmp_path / 'c')]) == 2 and '1 models are given' in capsys.readouterr().err
