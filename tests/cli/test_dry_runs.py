"""Dry runs: weights that a command names are read, the tiny form keeps strategy and split, and tools of FID form a chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runners.support import commands_here, said_by
from tests.shipped import composed
from vq.assembly.compose import compose
from vq.cli import fid, fid_of, fidelity, sample, train, val
from vq.cli import test as test_command
from vq.registries import VQFeatureNetworkRegistry, VQTaskRegistry

DIGITS, AR, DECODER = 'configs/digits/vq_ema.py', 'configs/digits/ar.py', 'configs/digits/decoder.py'
PHOTOS = 'configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py'
FITS = 'fit the full form; the tiny form keeps random weights'

Say = Callable[..., str]


@pytest.fixture(autouse=True)
def dry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path / 'pretrained'))
    with commands_here():
        yield


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    return lambda main, *words, code=0: said_by(capsys, main, *words, code=code)


def weights_of(entry: str, tiny: bool, file: str) -> str:
    """A file with the weights of an untrained model."""
    torch.manual_seed(0)
    model = VQTaskRegistry.build(composed(entry, tiny).trainer.model, 'model')
    save_file({name: value.clone() for name, value in model.state_dict().items()}, file)
    return file


@pytest.mark.parametrize(
    ('main', 'words'),
    [
        (train.main, ['x', DIGITS, '--load-model-from', 'nowhere']),
        (train.main, ['x', AR, '--load-model-from', 'nowhere']),
        (train.main, ['x', AR, '--config-options', f'it_config::{DIGITS}', 'it_state_dict::nowhere']),
        (train.main, ['x', AR, '--config-options', f'ir_config::{DECODER}', 'ir_state_dict::nowhere']),
        (train.main, ['x', DECODER, '--config-options', 'it_state_dict::nowhere.safetensors']),
        (val.main, ['x', DIGITS, '--load-model-from', 'nowhere']),
        (test_command.main, ['x', DIGITS, '--load-model-from', 'nowhere']),
        (sample.main, ['x', AR, '--load-model-from', 'nowhere']),
    ],
)
def test_9b_weights_that_do_not_exist_are_refused(main: Any, words: list[str], say: Say) -> None:
    assert 'nowhere' in say(main, *words, code=2)


@pytest.mark.slow
def test_9b_weights_of_the_tiny_form_are_loaded(say: Say) -> None:
    file = weights_of(DIGITS, True, 'small.safetensors')
    say(train.main, 'x', AR, '--config-options', f'it_state_dict::{file}')
    saved = load_file('work_dirs/dry_run/x/checkpoints/iter_8/model.safetensors')
    assert saved['tokenizer.digest'].any(), 'it was read'
    assert FITS not in say(val.main, 'given', DIGITS, '--load-model-from', file)
    record = json.loads(Path('work_dirs/dry_run/given/val/given/results.json').read_text())
    assert record['loaded'].startswith('loaded ') and record['random_weights'] is False


@pytest.mark.slow
def test_9b_weights_of_the_full_form_are_checked_and_not_loaded(say: Say) -> None:
    file = weights_of(DIGITS, False, 'large.safetensors')
    assert FITS in say(val.main, 'x', DIGITS, '--load-model-from', file)
    assert json.loads(Path('work_dirs/dry_run/x/val/given/results.json').read_text())['random_weights'] is True
    assert FITS in say(train.main, 'ar', AR, '--config-options', f'it_state_dict::{file}')
    assert FITS in say(train.main, 'decoder', DECODER, '--load-model-from', file)


@pytest.mark.parametrize('tiny', [True, False])
def test_9b_weights_of_another_tokenizer_are_refused(tiny: bool, say: Say) -> None:
    file = weights_of('configs/digits/kl.py', tiny, 'other.safetensors')
    assert 'checkpoint of another architecture' in say(train.main, 'x', DIGITS, '--load-model-from', file, code=2)
    said = say(train.main, 'y', AR, '--config-options', f'it_state_dict::{file}', code=2)
    assert 'checkpoint of another architecture' in said and 'other.safetensors' in said


@pytest.mark.parametrize('entry', [PHOTOS, 'configs/vq/folder.py', AR, 'configs/ic/imagenet_ddp.py', DIGITS])
def test_9b_the_tiny_form_keeps_a_strategy_that_was_said(entry: str) -> None:
    said = {'strategy': 'ddp', 'precision': 'bf16', 'accumulate': 2}
    assert compose(entry, said, {}).trainer.strategy == {'type': 'DDPStrategy', 'precision': 'bf16', 'accumulate': 2}
    assert compose(entry, {'strategy': 'fsdp'}, {}).trainer.strategy.type == 'FSDPStrategy'
    assert not compose(entry, {}, {}).trainer.dataloader.get('batch_size_in_total'), 'eight images divide among few ranks'


def test_9b_the_tools_of_fid_form_a_chain(say: Say) -> None:
    np.savez('samples.npz', np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), np.uint8))
    assert '1437 images' in say(fid.main, 'imagenet', '--train')
    assert '180 images' in say(fid.main, 'imagenet')
    assert '180 images' in say(fid_of.main, 'imagenet_validation', 'samples.npz')
    assert '1,437 images' in say(fid_of.main, 'imagenet_train', 'samples.npz', '--figures', 'fid', 'sfid')
    record = json.loads(Path('work_dirs/dry_run/fid_of/samples/fid.json').read_text())
    assert record['random_weights'] is True and record['metrics']['features']['network'] == 'SmallFeatures'
    assert not Path('pretrained').exists(), 'statistics of random weights stay apart'


@pytest.mark.slow
def test_9b_torch_fidelity_measures_the_small_network_too(say: Say) -> None:
    pytest.importorskip('torch_fidelity')
    np.savez('samples.npz', np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), np.uint8))
    assert 'difference' in say(fidelity.main, 'imagenet', 'samples.npz', '--ours', '--splits', '1')
    record = json.loads(Path('work_dirs/dry_run/fidelity/samples/fidelity.json').read_text())
    assert record['results']['fid'] == pytest.approx(record['torch_fidelity']['fid'], rel=1e-3)


def test_9b_the_small_network_is_for_dry_runs_alone() -> None:
    first, second = (VQFeatureNetworkRegistry.build(dict(type='SmallFeatures')) for _ in range(2))
    image = torch.randint(0, 256, (3, 3, 17, 40), dtype=torch.uint8)
    assert all(torch.equal(one, other) for one, other in zip(first(image), second(image), strict=True))
    with pytest.raises(Exception, match='it is the feature network of dry runs'):
        first.load_pretrained()


@pytest.mark.slow
def test_steps_that_a_dry_run_does_not_have_mean_its_newest_checkpoint(say: Say) -> None:
    """Lines written for other numbers of steps run. The config of the decoder names the checkpoint that was read."""
    say(train.main, 'tok', DIGITS)
    assert 'iter_150000, iter_160000' in say(val.main, 'tok', DIGITS, '--load-from', 'iter_{15..26}0000')
    assert Path('work_dirs/dry_run/tok/val/iter_8/results.json').is_file()
    place = 'work_dirs/dry_run/tok/checkpoints'
    given = ['--config-options', f'it_config::{DIGITS}', '--load-model-from', f'{place}/iter_7/model.pth']
    assert f'{place}/iter_8 is taken in its place' in say(train.main, 'decoder', DECODER, *given)
    assert f'"weights": "{place}/iter_8/model.safetensors"' in Path('work_dirs/dry_run/decoder/decoder.json').read_text()
    said = [
        f'ir_config::{DECODER}',
        f'it_state_dict::{place}/iter_7/model.pth',
        'ir_state_dict::decoder/checkpoints/iter_2/model.pth',
    ]
    say(train.main, 'ar', AR, '--config-options', *said)
    text = Path('work_dirs/dry_run/ar/ar.json').read_text()
    assert 'iter_7' not in text and 'iter_2' not in text and 'dry_run/decoder/checkpoints/iter_8/model.safetensors' in text
