"""A tokenizer and a probe on it are trained and used: every command, resume, and the wrong tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runners.support import assert_same, commands_here, everything, logged, said_by
from vq.cli import test as test_command
from vq.cli import tokenize, train, val
from vq.core.random import python_stream
from vq.data.datasets.digits import DigitsDataset
from vq.loading import load
from vq.teachers.classifier import classifier_features

SMALL = 'trainer.model.tokenizer'
TINY = [f'.{SMALL}.{part}.width:4' for part in ('encoder', 'decoder')] + [f'.{SMALL}.encoder.out_channels:8']
TOKENIZER = ['--override', '.trainer.iters:2', '.trainer.optimizers.tokenizer.schedule.warmup:0', *TINY]
PROBE = ['configs/digits/probe.py', '--config-options', 'tokenizer_run::tokens', 'iters:8', 'save_every:4', 'batch_size:8']


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=False):
        yield tmp_path


@pytest.mark.slow
def test_a_probe_from_its_tokenizer_to_its_figures(folder: Path, capsys: Any) -> None:
    said_by(capsys, train.main, 'tokens', 'configs/digits/vq_ema.py', *TOKENIZER)
    said_by(capsys, train.main, 'probe', *PROBE)
    runs = folder / 'work_dirs'
    last = runs / 'probe' / 'checkpoints' / 'iter_8'
    recorded = json.loads((last / 'meta.json').read_text())['frozen']
    assert [*recorded] == ['work_dirs/tokens/checkpoints/iter_2/ema.safetensors']

    # the tokenizer of the probe is that of the run
    network = classifier_features('probe')
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    tokenizer = load('tokens')
    codes = tokenizer.model.lookup(tokenizer.tokenize(image))
    assert torch.equal(network.classifier.backbone(image.float() / 127.5 - 1), codes)

    # all commands
    said_by(capsys, val.main, 'probe', *PROBE)
    results = json.loads((runs / 'probe' / 'val' / 'iter_8' / 'results.json').read_text())['results']
    assert 0 < results['top1'] < results['top5'] <= 1 and results['loss/cross_entropy'] > 0 and results['samples'] == 180
    weights = ('--load-model-from', str(runs / 'probe'))
    said_by(capsys, test_command.main, 'probe', *PROBE, *weights)
    assert json.loads((runs / 'probe_test' / 'results.json').read_text())['results']['top1'] == results['top1']
    assert 'no tokenizer to write tokens with' in said_by(capsys, tokenize.main, 'probe', *PROBE, *weights, code=2)
    composed = str(runs / 'probe' / 'probe.py')  # the config in the run folder needs no option
    said = said_by(capsys, test_command.main, 'again', composed, *weights, '--visual')
    assert 'no pictures were written: ImageClassification makes no reconstructions' in said
    assert json.loads((runs / 'again_test' / 'results.json').read_text())['results']['top1'] == results['top1']

    # resuming leads to the same bits
    shutil.copytree(runs / 'probe', runs / 'resumed')
    shutil.rmtree(runs / 'resumed' / 'checkpoints' / 'iter_8')
    said_by(capsys, train.main, 'resumed', *PROBE, '--auto-resume')
    assert_same(everything_but_average(last), everything_but_average(runs / 'resumed' / 'checkpoints' / 'iter_8'))
    assert logged(runs / 'probe') == logged(runs / 'resumed')

    # a tokenizer that was trained further is another one
    shutil.rmtree(runs / 'tokens')
    said_by(capsys, train.main, 'tokens', 'configs/digits/vq_ema.py', *TOKENIZER, '--seed', '1')
    assert 'belongs to another tokenizer' in said_by(capsys, test_command.main, 'probe', *PROBE, *weights, code=2)
    shutil.rmtree(runs / 'resumed' / 'checkpoints' / 'iter_8')
    assert 'was trained with another' in said_by(capsys, train.main, 'resumed', *PROBE, '--auto-resume', code=2)


def everything_but_average(checkpoint: Path) -> dict[str, Any]:
    """The content of a checkpoint; a probe has no average."""
    shutil.copy(checkpoint / 'model.safetensors', checkpoint / 'ema.safetensors')
    return everything(checkpoint)


@pytest.mark.slow
def test_a_classifier_is_a_feature_network(folder: Path, capsys: Any) -> None:
    small = ['--config-options', 'iters:6', 'save_every:6', 'batch_size:8', 'classifier_width:4']
    said_by(capsys, train.main, 'sorter', 'configs/ic/digits.py', *small)
    said_by(capsys, val.main, 'sorter', 'configs/ic/digits.py', *small)
    network = classifier_features('sorter')
    assert network.pretrained_files() == [Path('work_dirs/sorter/checkpoints/iter_6/model.safetensors')]
    assert (network.dimension, network.image_size) == (64, 32)
    digits = DigitsDataset('validation')
    samples = [digits.load(index, python_stream('any')) for index in range(len(digits))]
    images = torch.stack([torch.tensor(sample['image']).permute(2, 0, 1) for sample in samples])
    category = torch.tensor([sample['category'] for sample in samples])
    right = (network(images).logits.argmax(1) == category).double().mean().item()
    results = json.loads((folder / 'work_dirs' / 'sorter' / 'val' / 'iter_6' / 'results.json').read_text())['results']
    assert right == pytest.approx(results['top1'])
