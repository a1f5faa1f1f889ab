"""Images that are no squares, through every command: training, tokens, a generator, samples, pictures, Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vq
from vq.cli.config import main as config
from vq.cli.inference import main as reconstruct
from vq.cli.sample import main as sample
from vq.cli.tokenize import main as tokenize
from vq.cli.train import main as train
from vq.core.specs import TokenSpec
from vq.io.shards import ShardSet

SIZE = 'image_size:(24,48)'
FEW = ['--override', '.trainer.iters:3', '.trainer.optimizers.{}.schedule:None']

pytestmark = pytest.mark.slow


def test_a_rectangle_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)

    def few(optimizer: str) -> list[str]:
        return [word.format(optimizer) for word in FEW]

    assert train(['tok', 'digits/vq_ema.py', '--config-options', SIZE, 'width:8', *few('tokenizer')]) == 0
    spec = json.loads((tmp_path / 'work_dirs/tok/checkpoints/iter_3/spec.json').read_text())
    assert spec['image'] == [24, 48] and spec['tokens'] == {'cells': [3, 6], 'codebooks': [256]}
    assert tokenize(['tok', '--load-model-from', 'work_dirs/tok']) == 0
    shards = ShardSet(tmp_path / 'work_dirs/tok_tokenize/tokens')
    assert shards[0]['tokens'].shape == (1, 3, 6) and shards.manifest.producer['image_size'] == [24, 48]
    options = ['--config-options', 'tokenizer_run::tok', SIZE]
    assert train(['gen', 'digits/ar.py', *options, *few('generator')]) == 0
    assert sample(['gen', '--num-samples', '4']) == 0
    assert Image.open(tmp_path / 'work_dirs/gen_sample/samples/000003.png').size == (48, 24)
    loaded = vq.load('tok')
    assert loaded.model.spec((24, 48)).tokens == TokenSpec((3, 6), (256,)) and loaded.image_size == (24, 48)
    Image.fromarray(np.zeros((24, 48, 3), np.uint8)).save('wide.png')
    assert loaded.tokenize('wide.png').shape == (1, 3, 6)
    assert reconstruct(['wide.png', '--load-model-from', 'work_dirs/tok', '--output', 'out']) == 0
    assert Image.open('out/wide_tokens.png').size == (48, 24)
    assert vq.load('gen').sample(3, to='pil')[0].size == (48, 24)
    capsys.readouterr()
    assert config(['digits/vq_ema.py', '--config-options', SIZE, '--memory']) == 0
    assert train(['odd', 'digits/vq_ema.py', '--config-options', 'image_size:(24,44)', *few('tokenizer')]) == 2
    assert '24 x 44 pixels' in capsys.readouterr().err
