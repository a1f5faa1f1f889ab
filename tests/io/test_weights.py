"""Formats of weights are detected by content, no code is run, and mismatches with the model are reported."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.io.samples import sample
from vq.core.errors import UserError
from vq.io import checkpoints
from vq.io.checkpoints import Checkpoint
from vq.io.weights import file_digest, load_model_from, read_weights, sniff

STATE = {'a.weight': torch.randn(3, 5), 'b': torch.arange(7)}


def save_legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def assert_is_state(found: dict[str, Tensor]) -> None:
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize('name', ['model.safetensors', 'model.pth', 'odd name.bin', 'none'])
@pytest.mark.parametrize(('kind', 'write'), [('safetensors', save_file), ('torch', torch.save), ('torch-legacy', save_legacy)])
def test_files_are_known_by_content(tmp_path: Path, kind: str, write: Callable[[Any, Path], None], name: str) -> None:
    write(STATE, tmp_path / name)
    assert sniff(tmp_path / name) == kind
    found, source = read_weights(tmp_path / name)
    assert_is_state(found)
    assert (source.kind, source.path, source.part) == (kind, tmp_path / name, None)
    assert source.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == file_digest(tmp_path / name)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: {'state_dict': state, 'epoch': 3, 'optimizer': {'lr': 0.1}},
        lambda state: {'model': state, 'args': 'text'},
        lambda state: {'model': {'state_dict': state}, 'step': 5},
    ],
)
def test_nested_states_are_unwrapped(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    torch.save(wrap(STATE), tmp_path / 'x')
    assert_is_state(read_weights(tmp_path / 'x')[0])


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ({'a': torch.zeros(1), 'epoch': 3}, "'epoch' is a int"),
        ({'state_dict': {'a': torch.zeros(1), 'name': 'x'}}, "'name' is a str"),
        ({1: torch.zeros(1)}, 'its keys are not text'),
        ({}, 'not a state dict'),
        ([torch.zeros(1)], 'holds a list'),
        (torch.zeros(1), 'holds a Tensor'),
    ],
)
def test_what_is_no_state_dict_is_said(tmp_path: Path, value: Any, message: str) -> None:
    torch.save(value, tmp_path / 'x')
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / 'x')


class Malice:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize('write', [torch.save, save_legacy])
@pytest.mark.parametrize('wrap', [lambda bad: {'w': torch.zeros(1), 'x': bad}, lambda bad: {'state_dict': {}, 'x': bad}])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, write: Callable[..., None], wrap: Callable[..., Any]) -> None:
    write(wrap(Malice(str(tmp_path / 'ran'))), tmp_path / 'x')
    with pytest.raises(UserError, match=r'x is refused: it holds more than tensors \(posix\.mkdir\)') as caught:
        read_weights(tmp_path / 'x')
    assert caught.value.exit_code == 2
    assert not (tmp_path / 'ran').exists()


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    for protocol in (2, 4):
        (tmp_path / 'x').write_bytes(pickle.dumps({'x': Malice(str(tmp_path / 'ran'))}, protocol))
        with pytest.raises(UserError, match=r'x is (refused|damaged)'):
            read_weights(tmp_path / 'x')
        assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\n', 'Git LFS pointer'),
        (b'\n<!DOCTYPE html><html>404</html>', 'web page'),
        (b'', 'neither safetensors nor a torch file'),
        (b'some text that is longer than eight bytes', 'neither safetensors nor a torch file'),
        (b'PK\x03\x04 not really a zip file', 'damaged'),
        (b'\x80\x02 not really a pickle', 'damaged|refused'),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / 'model.safetensors').write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / 'model.safetensors')


@pytest.mark.parametrize('write', [save_file, torch.save, save_legacy])
def test_a_truncated_file_is_an_error_for_users(tmp_path: Path, write: Callable[[Any, Path], None]) -> None:
    write({'w': torch.randn(5000)}, tmp_path / 'x')
    (tmp_path / 'x').write_bytes((tmp_path / 'x').read_bytes()[:-9000])
    with pytest.raises(UserError, match=r'damaged|refused'):
        read_weights(tmp_path / 'x')


def test_a_numpy_archive_is_no_torch_file(tmp_path: Path) -> None:
    np.savez(tmp_path / 'x.npz', a=np.zeros(3))
    with pytest.raises(UserError, match=r'x\.npz is (damaged|refused)'):
        read_weights(tmp_path / 'x.npz')


# folders


def test_checkpoints_and_runs(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    checkpoints.save(run / 'checkpoints', sample(20, 2.0))
    checkpoints.save(run / 'checkpoints', sample(10, 1.0, ema=False))
    for place in (run, run / 'checkpoints', run / 'checkpoints' / 'iter_10'):  # iter_10 was saved last
        found, source = read_weights(place)
        assert (source.path.parent.name, source.part) == ('iter_10', 'model')
        assert found['encoder.weight'][0, 0] == 1.0
    twenty = run / 'checkpoints' / 'iter_20'
    assert read_weights(twenty)[0]['encoder.weight'][0, 0] == 3.0  # auto: EMA where there is one
    assert read_weights(twenty)[1].part == 'ema'
    assert read_weights(twenty, 'model')[0]['encoder.weight'][0, 0] == 2.0
    assert read_weights(str(twenty / 'model.pth'))[0]['encoder.weight'][0, 0] == 2.0  # there is no such file
    with pytest.raises(UserError, match='iter_10 has no ema weights'):
        read_weights(run / 'checkpoints' / 'iter_10', 'ema')


def test_a_damaged_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, sample(20, 2.0))
    data = bytearray((path / 'ema.safetensors').read_bytes())
    data[-1] ^= 1
    (path / 'ema.safetensors').write_bytes(data)
    with pytest.raises(UserError, match=r'ema\.safetensors is damaged'):
        read_weights(path)
    (path / 'COMPLETE').unlink()
    with pytest.raises(UserError, match='iter_20 is not a complete checkpoint'):
        read_weights(path)


def test_model_pth_finds_model_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / 'model.safetensors')
    assert_is_state(read_weights(tmp_path / 'model.pth')[0])
    assert_is_state(read_weights(tmp_path)[0])
    torch.save({'other': torch.zeros(1)}, tmp_path / 'model.pth')
    assert list(read_weights(tmp_path / 'model.pth')[0]) == ['other']  # the file itself comes first


def test_a_missing_path_suggests_a_near_one(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / 'decoder.safetensors')
    with pytest.raises(UserError, match=r"there is no run, checkpoint or file .*did you mean 'decoder.safetensors'"):
        read_weights(tmp_path / 'decoder.safetensor')
    with pytest.raises(UserError, match='no complete checkpoint'):
        read_weights(tmp_path)


# matching


class Model(nn.Module):
    def __init__(self, width: int = 5, frozen: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, width), nn.Linear(width, 3)
        self.norm = nn.BatchNorm1d(width)
        self._frozen = frozen

    def frozen_prefixes(self) -> tuple[str, ...]:
        return self._frozen


def saved(path: Path, model: nn.Module, *parts: str, prefix: str = '') -> Path:
    torch.save(
        {prefix + key: value for key, value in model.state_dict().items() if not parts or key.split('.')[0] in parts}, path
    )
    return path


def test_everything_fits(tmp_path: Path) -> None:
    source, target = Model(), Model()
    report = load_model_from(target, [saved(tmp_path / 'x', source)])
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in target.state_dict().items())
    assert sorted(report.loaded) == sorted(target.state_dict())
    assert not (report.missing or report.unexpected or report.mismatched or report.frozen or report.collisions)
    digest = hashlib.sha256((tmp_path / 'x').read_bytes()).hexdigest()
    assert report.summary() == f'loaded 9 of 9 tensors from {tmp_path / "x"} (sha256 {digest[:12]})'


def test_two_files_are_merged_and_the_last_wins(tmp_path: Path) -> None:
    first, second, target = Model(), Model(), Model()
    paths = [saved(tmp_path / 'x', first, 'encoder', 'norm'), saved(tmp_path / 'y', second, 'decoder', 'encoder')]
    report = load_model_from(target, paths)
    assert torch.equal(target.encoder.weight, second.encoder.weight)
    assert torch.equal(target.decoder.weight, second.decoder.weight)
    assert report.collisions == ['encoder.weight', 'encoder.bias']
    assert [source.path for source in report.sources] == paths
    assert '2 collisions (encoder.weight, encoder.bias)' in report.summary()


def test_missing_keys_are_an_error_unless_frozen_new_or_not_strict(tmp_path: Path) -> None:
    path = saved(tmp_path / 'x', Model(), 'encoder', 'norm')
    with pytest.raises(
        UserError, match=r'2 of 9 tensors of the model are missing\s+2 missing: decoder\.weight, decoder\.bias'
    ):
        load_model_from(Model(), [path])
    report = load_model_from(Model(frozen=('decoder',)), [path])
    assert report.frozen == ['decoder.weight', 'decoder.bias']
    assert report.summary().endswith('2 frozen (decoder.weight, decoder.bias)')
    assert load_model_from(Model(), [path], new_prefixes=['decoder.']).new == ['decoder.weight', 'decoder.bias']
    target = Model()
    before = target.decoder.weight.clone()
    assert load_model_from(target, [path], strict=False).missing == ['decoder.weight', 'decoder.bias']
    assert torch.equal(target.decoder.weight, before)
    with pytest.raises(UserError, match='missing'):
        load_model_from(Model(frozen=('dec',)), [path])  # a part's name, not any prefix of it


def test_another_architecture_is_called_so(tmp_path: Path) -> None:
    path = saved(tmp_path / 'x', Model(width=7))
    with pytest.raises(UserError) as caught:
        load_model_from(Model(), [path])
    assert caught.value.message.startswith(f'{path}: checkpoint of another architecture; 2 of 9 tensors fit')
    assert 'encoder.weight: (7, 3) in the file, (5, 3) in the model' in caught.value.message
    assert caught.value.exit_code == 2
    with pytest.raises(
        UserError, match=r"another architecture; 0 of 9 .*\n.*9 missing: encoder\.weight.*did you mean 'encodr\.weight'"
    ):
        load_model_from(Model(), [saved(tmp_path / 'y', nn.ModuleDict({'encodr': nn.Linear(3, 5)}))])
    with pytest.raises(UserError, match='another architecture'):  # not even strict=False loads nothing at all
        load_model_from(Model(), [saved(tmp_path / 'z', nn.ModuleDict({'encodr': nn.Linear(3, 5)}))], strict=False)


def test_other_shapes_load_only_when_said(tmp_path: Path) -> None:
    path = saved(tmp_path / 'x', Model(width=7))
    with pytest.raises(UserError, match='7 of another shape'):  # as in a resume, strict=False is about missing keys
        load_model_from(Model(), [path], strict=False)
    report = load_model_from(Model(), [path], new_prefixes=['encoder', 'decoder', 'norm'])
    assert 'encoder.weight' in report.new
    assert not report.mismatched


def test_unexpected_keys_are_reported(tmp_path: Path) -> None:
    both = nn.ModuleDict({'encoder': nn.Linear(3, 5), 'extra': nn.Linear(1, 1)})
    report = load_model_from(nn.ModuleDict({'encoder': nn.Linear(3, 5)}), [saved(tmp_path / 'x', both)])
    assert report.unexpected == ['extra.weight', 'extra.bias']
    assert '2 unexpected' in report.summary()


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'module._orig_mod.'])
def test_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    source, target = Model(), Model()
    load_model_from(target, [saved(tmp_path / 'x', source, prefix=prefix)])
    assert torch.equal(target.encoder.weight, source.encoder.weight)


def test_tied_weights_need_one_name_only(tmp_path: Path) -> None:
    def tied() -> nn.ModuleDict:
        parts = nn.ModuleDict({'embedding': nn.Embedding(5, 3), 'head': nn.Linear(3, 5, bias=False)})
        parts['head'].weight = parts['embedding'].weight
        return parts

    source, target = tied(), tied()
    path = checkpoints.save(tmp_path, Checkpoint(step=1, model=source.state_dict()))
    load_model_from(target, [path])
    assert torch.equal(target['head'].weight, source['head'].weight)
    assert target['head'].weight is target['embedding'].weight
    save_file({'embedding.weight': source['embedding'].weight.detach()}, tmp_path / 'x')
    assert sorted(load_model_from(tied(), [tmp_path / 'x']).loaded) == ['embedding.weight', 'head.weight']


def test_a_model_without_memory_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with torch.device('meta'):
        empty = Model()
    with pytest.raises(ValueError, match='meta device'):
        load_model_from(empty, [saved(tmp_path / 'x', Model())])
