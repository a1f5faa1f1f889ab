"""Files of other projects: their content is read or refused, and none of their code is run."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.published import statistics, tokens
from vq.io.published.reader import StandIn, read_published, read_state
from vq.io.shards import ShardSet


@contextmanager
def posing(**classes: tuple[type, str]) -> Iterator[None]:
    """Classes pretend to be from other modules while a file is written. On reading, these modules do not exist."""
    before = {name: (kind.__module__, kind.__qualname__) for name, (kind, _) in classes.items()}
    modules = dict(sys.modules)
    try:
        for kind, full_name in classes.values():
            kind.__module__, _, kind.__qualname__ = full_name.rpartition('.')
            made = types.ModuleType(kind.__module__)
            setattr(made, kind.__qualname__, kind)
            for parent in itertools.accumulate(kind.__module__.split('.'), '{}.{}'.format):
                sys.modules.setdefault(parent, types.ModuleType(parent))
            sys.modules[kind.__module__] = made
        yield
    finally:
        for name, (kind, _) in classes.items():
            kind.__module__, kind.__qualname__ = before[name]
        for name in set(sys.modules) - set(modules):
            del sys.modules[name]
        sys.modules.update(modules)


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_lightning_checkpoint(tmp_path: Path) -> None:
    """Classes as keys, settings, scores are read as inert objects; only tensors are returned."""

    class ModelCheckpoint:
        pass

    class AttributeDict(dict):  # type: ignore[type-arg]
        pass

    class DictConfig:
        def __init__(self) -> None:
            self._content = {'ch': 128}

    state = {'a.weight': torch.randn(3, 2), 'a.bias': torch.nn.Parameter(torch.randn(3))}
    file = tmp_path / 'last.ckpt'
    content = {
        'epoch': 3,
        'pytorch-lightning_version': '1.0.8',
        'callbacks': {ModelCheckpoint: {'best_model_score': torch.tensor(0.5), 'best_model_path': Path('a/b.ckpt')}},
        'hyper_parameters': AttributeDict(config=DictConfig(), numbers=[1, 2]),
        'args': argparse.Namespace(seed=3),
        'score': np.float64(0.25),
        'state_dict': state,
    }
    with posing(
        callback=(ModelCheckpoint, 'pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint'),
        settings=(AttributeDict, 'pytorch_lightning.utilities.parsing.AttributeDict'),
        config=(DictConfig, 'omegaconf.dictconfig.DictConfig'),
    ):
        torch.save(content, file)

    read = read_state(file, ('state_dict',))
    assert list(read) == list(state)
    for key, value in state.items():
        assert torch.equal(read[key], value)
        assert not read[key].requires_grad
    whole = read_published(file)
    assert not any(name.startswith(('pytorch_lightning', 'omegaconf')) for name in sys.modules)  # nothing was imported
    (key,) = whole['callbacks']
    assert issubclass(key, StandIn)
    assert key.origin == 'pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint'
    assert whole['hyper_parameters']['numbers'] == [1, 2]
    assert whole['hyper_parameters']['config'].state == {'_content': {'ch': 128}}
    assert whole['args'].state == {'seed': 3}


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize(
    ('function', 'name'),
    [(os.system, r'(posix|nt)\.system'), (eval, r'eval'), (exec, r'exec'), (os.mkdir, r'(posix|nt)\.mkdir')],
)
def test_code_in_a_file_is_refused_and_never_run(tmp_path: Path, function: Any, name: str, legacy: bool) -> None:
    mark = tmp_path / 'ran'
    arguments = {'system': f'mkdir {mark}', 'mkdir': str(mark)}.get(
        function.__name__, f'__import__("os").mkdir({str(mark)!r})'
    )
    file = tmp_path / 'model.ckpt'
    content = {'state_dict': {'a': torch.zeros(2)}, 'callbacks': Malicious(function, arguments)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    for read in (lambda: read_state(file, ('state_dict',)), lambda: statistics.convert(file)):
        with pytest.raises(UserError, match='refused' if legacy else f'refused.*{name}'):
            read()
    assert not mark.exists()


@pytest.mark.parametrize('module', ['pytorch_lightning_evil', 'todd.statistics', 'builtins_more', 'evil.omegaconf'])
def test_classes_that_are_not_on_the_list_are_named(tmp_path: Path, module: str) -> None:
    class Popen:
        pass

    with posing(it=(Popen, f'{module}.Popen')):
        torch.save({'state_dict': {'a': torch.zeros(1)}, 'x': Popen()}, tmp_path / 'a.ckpt')
    with pytest.raises(UserError, match=rf'a\.ckpt is refused: it refers to {module}\.Popen'):
        read_published(tmp_path / 'a.ckpt')


def test_allowed_names_do_not_stay_allowed(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({'args': argparse.Namespace(a=1)}, tmp_path / 'a.pth')
    read_published(tmp_path / 'a.pth')
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (lambda file: file.write_bytes(b'version https://git-lfs.github.com/spec/v1\n'), 'Git LFS pointer'),
        (lambda file: file.write_bytes(b'<!DOCTYPE html><html>'), 'a web page'),
        (lambda file: file.write_bytes(b'PK\x03\x04 cut off'), 'damaged'),
        (lambda file: torch.save([1, 2], file), 'holds a list, not a state dict'),
        (lambda file: torch.save({'state_dict': {'a': 1.5}}, file), "'a' is a float"),
        (lambda file: torch.save({'state_dict': {}}, file), 'not a state dict'),
        (lambda file: torch.save({'a': torch.zeros(1)}, file, pickle_protocol=4), 'refused'),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, write: Any, message: str) -> None:
    file = tmp_path / 'last.ckpt'
    write(file)
    with pytest.raises(UserError, match=message) as caught:
        read_state(file, ('state_dict',))
    assert str(file) in caught.value.message
    assert caught.value.hint


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / 'lost.ckpt').touch()
    with pytest.raises(UserError, match='there is no file') as caught:
        read_published(tmp_path / 'last.ckpt')
    assert 'lost.ckpt' in caught.value.hint


# token files


def write_tokens(folder: Path, name: str, ids: list[str], shape: tuple[int, ...] = (2, 3), **changes: Any) -> None:
    """Tokens computed from the id, so that rows can be identified."""
    folder.mkdir(exist_ok=True)
    content = {
        'id_': ids,
        'category': torch.tensor([int(sample[1:]) % 5 for sample in ids]),
        'tokens': torch.stack([torch.full(shape, int(sample[1:])) for sample in ids]),
    }
    torch.save({**content, **changes}, folder / f'{name}.pth')


class TestTokens:
    def test_all_samples_once_by_id(self, tmp_path: Path) -> None:
        """Two ranks, two iterations, the last padded with a sample of the first. Numbers in names are sorted numerically."""
        folder = tmp_path / 'tokens'
        write_tokens(folder, '9_0', ['n30', 'n04'])
        write_tokens(folder, '9_1', ['n12', 'n07'])
        write_tokens(folder, '10_0', ['n29'])
        write_tokens(folder, '10_1', ['n30'])
        (folder / 'notes.txt').touch()
        report = tokens.convert(folder, tmp_path / 'set', codebook_size=64, shard_size=2, dataset='imagenet', split='val')
        assert (report.files, report.samples, report.duplicates, report.differing) == (4, 5, 1, 0)
        shards = ShardSet(tmp_path / 'set', verify=True)
        assert shards.ids() == ['n04', 'n07', 'n12', 'n29', 'n30']
        assert len(shards.manifest.shards) == 3
        for row in shards:
            number = int(row['id'][1:])
            assert np.array_equal(row['tokens'], np.full((1, 2, 3), number))
            assert row['category'] == number % 5
        producer = shards.manifest.producer
        assert producer['codebook_size'] == 64
        assert producer['token_shape'] == [2, 3]
        assert (producer['dataset'], producer['split']) == ('imagenet', 'val')

    def test_again_with_other_tokens_is_another_set(self, tmp_path: Path) -> None:
        write_tokens(tmp_path / 'tokens', '0_0', ['n01', 'n02'])
        for _ in range(2):  # the same ones again change nothing
            tokens.convert(tmp_path / 'tokens', tmp_path / 'set', codebook_size=64)
        write_tokens(tmp_path / 'tokens', '0_0', ['n01', 'n03'])
        with pytest.raises(UserError, match='converted_from'):
            tokens.convert(tmp_path / 'tokens', tmp_path / 'set', codebook_size=64)

    def test_duplicates_that_differ_are_counted(self, tmp_path: Path) -> None:
        write_tokens(tmp_path / 'tokens', '0_0', ['n01', 'n02'])
        write_tokens(tmp_path / 'tokens', '0_1', ['n01', 'n03'], tokens=torch.zeros(2, 2, 3, dtype=torch.int64))
        report = tokens.convert(tmp_path / 'tokens', tmp_path / 'set', codebook_size=64)
        assert (report.samples, report.duplicates, report.differing) == (3, 1, 1)
        assert ShardSet(tmp_path / 'set')[0]['tokens'].max() == 1  # the first one stands

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            (dict(tokens=torch.zeros(2, 4, dtype=torch.int64)), r'has tokens of \(4,\), the files before it of \(2, 3\)'),
            (dict(tokens=torch.full((2, 2, 3), 64)), 'tokens from 64 to 64, and the codebook has 64 codes'),
            (dict(tokens=torch.full((2, 2, 3), -1)), 'tokens from -1 to -1'),
            (dict(tokens=torch.zeros(2, 2, 3)), 'not a tensor of whole numbers'),
            (dict(tokens=torch.zeros(3, 2, 3, dtype=torch.int64)), 'has 3 rows of tokens'),
            (dict(id_=['n01', 5]), 'has 2 rows of tokens'),
            (dict(category=torch.zeros(3)), 'one category per sample'),
            (dict(category=Malicious(os.system, 'true')), 'refused'),
        ],
    )
    def test_bad_files_are_named(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        write_tokens(tmp_path / 'tokens', '0_0', ['n01', 'n02'])
        write_tokens(tmp_path / 'tokens', '0_1', ['n05', 'n06'], **changes)
        with pytest.raises(UserError, match=message) as caught:
            tokens.convert(tmp_path / 'tokens', tmp_path / 'set', codebook_size=64)
        assert '0_1.pth' in caught.value.message
        assert caught.value.hint
        assert not (tmp_path / 'set').exists()

    def test_missing_files_are_named(self, tmp_path: Path) -> None:
        for name in ('3_0', '3_1', '4_1', '6_0', '6_1'):
            write_tokens(tmp_path / 'tokens', name, [f'n{name[0]}{name[2]}'])
        with pytest.raises(UserError, match=r'3 files are missing: 4_0\.pth, 5_0\.pth, 5_1\.pth'):
            tokens.convert(tmp_path / 'tokens', tmp_path / 'set', codebook_size=64)
        with pytest.raises(UserError, match='has no files ITERATION_RANK'):
            tokens.convert(tmp_path, tmp_path / 'set', codebook_size=64)
        with pytest.raises(UserError, match='is not a folder'):
            tokens.convert(tmp_path / 'nowhere', tmp_path / 'set', codebook_size=64)


# statistics


class AsTuple(NamedTuple):
    mean: Tensor
    cov: Tensor
    num: int


@dataclasses.dataclass(frozen=True)
class AsRecord:
    num: Tensor
    sigma: Tensor
    mu: Tensor


def figures() -> tuple[Tensor, Tensor]:
    features = torch.randn(50, 6, dtype=torch.float64)
    return features.mean(0), features.t().cov()


class TestStatistics:
    @pytest.mark.parametrize(
        'name', ['todd.tasks.image_generation.fid.Statistics', 'todd.fid.FIDStatistics', 'todd.Statistics']
    )
    @pytest.mark.parametrize('kind', [AsTuple, AsRecord])
    @pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
    def test_values_whatever_the_class(self, tmp_path: Path, kind: type, name: str, dtype: torch.dtype) -> None:
        mean, covariance = (value.to(dtype) for value in figures())
        value = AsTuple(mean, covariance, 50) if kind is AsTuple else AsRecord(torch.tensor(50), covariance, mean)
        file = tmp_path / 'imagenet_val.pth'
        with posing(it=(kind, name)):
            torch.save(value, file)
        found = statistics.convert(file)
        statistics.write_statistics(tmp_path / 'out', found, file)
        tensors = tensorfile.read_tensors(tmp_path / 'out')
        assert torch.equal(tensors['mean'], mean.double())
        assert torch.equal(tensors['covariance'], covariance.double())
        assert tensors['count'].dtype == torch.int64
        assert tensors['count'].item() == 50
        notes = tensorfile.read_header(tmp_path / 'out').metadata
        assert notes['vq.format'] == 'vq.fid_statistics'
        assert notes['vq.source'] == 'imagenet_val.pth'

    def test_plain_dict(self, tmp_path: Path) -> None:
        mean, covariance = figures()
        torch.save({'mu': mean, 'sigma': covariance, 'n': 50}, tmp_path / 'a.pth')
        assert torch.equal(statistics.convert(tmp_path / 'a.pth').covariance, covariance)

    def test_other_classes_are_refused(self, tmp_path: Path) -> None:
        value = AsTuple(*figures(), 50)
        for name in ('todd.utils.Runner', 'evil.Statistics', 'toddler.Statistics'):
            with posing(it=(AsTuple, name)):
                torch.save(value, tmp_path / 'a.pth')
            with pytest.raises(UserError, match=f'refused: it refers to {name}'):
                statistics.convert(tmp_path / 'a.pth')

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            (dict(mean=torch.zeros(5)), 'a mean of 5 values'),
            (dict(mean=torch.full((6,), float('nan'))), 'not finite'),
            (dict(cov=torch.arange(36.0).view(6, 6)), 'not symmetric'),
            (dict(num=1), 'a count of 1'),
            (dict(num='many'), '0 values that could be the count'),
            (dict(more=torch.zeros(6)), '2 values that could be the mean'),
        ],
    )
    def test_what_does_not_add_up_is_said(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        mean, covariance = figures()
        torch.save({'mean': mean, 'cov': covariance, 'num': 50, **change}, tmp_path / 'a.pth')
        with pytest.raises(UserError, match=message) as caught:
            statistics.convert(tmp_path / 'a.pth')
        assert 'a.pth' in caught.value.message

    def test_something_that_contains_itself(self, tmp_path: Path) -> None:
        loop: list[Any] = []
        loop.append(loop)
        torch.save(loop, tmp_path / 'a.pth')
        with pytest.raises(UserError, match='0 values that could be the mean'):
            statistics.convert(tmp_path / 'a.pth')
