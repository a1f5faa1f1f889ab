"""Training on a latent cache equals training on images, and a cache of anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.runners.support import own_parts
from tests.tasks.test_latent_diffusion import SMALL, TOY, write_config
from vq.cli.data import main as data
from vq.cli.latents import main as measure
from vq.cli.train import main as train
from vq.cli.val import main as validate

pytestmark = pytest.mark.slow

KL = ['configs/digits/kl.py', '--config-options', 'width:8']
NEW = ['--override', '.trainer.iters:2', '.trainer.optimizers.tokenizer.schedule:None']


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer with statistics, another one, the latents of the first, and a config that trains on them."""
    home = tmp_path_factory.mktemp('latents')
    (home / 'latent_diffusion.py').write_text(TOY.read_text())
    with own_parts(home), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(str(home))
        for name, seed in (('kl', '1'), ('other', '2')):
            assert train([name, 'configs/digits/kl.py', *SMALL, *NEW[2:], '--seed', seed]) == 0
            assert measure([name, '--load-model-from', name]) == 0
        write_config(home)
        latents = ['latents', *KL, '--load-model-from', 'kl', '--output-folder', 'cache', '--shard-size', '300']
        assert data([*latents, '--no-mirror']) == data([*latents, '--no-mirror', '--validation']) == 0
        config = json.loads((home / 'diffusion.json').read_text())
        for which, split in (('trainer', 'train'), ('validator', 'validation')):
            config[which]['dataset'] = {'type': 'LatentDataset', 'folder': f'cache/{split}'}
        config['trainer']['callbacks'].pop('pictures')
        (home / 'cached.json').write_text(json.dumps(config))
        yield home


def test_the_same_model_comes_out_of_images_and_of_their_latents(home: Path) -> None:
    assert train(['images', 'diffusion.json', '--trust']) == 0
    assert train(['latents', 'cached.json', '--trust']) == 0
    models = [load_file(home / f'work_dirs/{name}/checkpoints/iter_6/model.safetensors') for name in ('images', 'latents')]
    assert models[0].keys() == models[1].keys()
    for key, value in models[0].items():
        torch.testing.assert_close(models[1][key], value, rtol=1e-4, atol=1e-6)
    losses = []
    for name in ('images', 'latents'):
        assert validate([name, '--trust']) == 0
        losses.append(json.loads((home / f'work_dirs/{name}/val/iter_6/results.json').read_text())['results']['loss/flow'])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'weights': 'work_dirs/other_latents/tokenizer.safetensors'}, ['were made by another tokenizer', 'vq data latents']),
        ({'image_size': 16}, ['are of images of 32 pixels', 'this run takes 16 pixels', '--image-size']),
    ],
)
def test_a_wrong_pairing_is_refused(home: Path, change: dict[str, Any], words: list[str], capsys: Any) -> None:
    config = json.loads((home / 'cached.json').read_text())
    for which in ('trainer', 'validator'):
        config[which]['model']['tokenizer'].update(change)
    (home / 'wrong.json').write_text(json.dumps(config))
    assert train(['wrong', 'wrong.json', '--trust', '--overwrite']) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    if 'weights' in change:  # both hashes are named
        own = json.loads((home / 'cache/train/latents/manifest.json').read_text())['producer']['weights_hash']
        assert own in said and len(said.partition('of this run are ')[2].split()[0]) == len(own)


def test_statistics_of_other_latents_are_refused(home: Path, capsys: Any) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    source = home / 'work_dirs/kl_latents/tokenizer.safetensors'
    with safe_open(source, 'pt') as file:
        about = {key: value for key, value in file.metadata().items() if 'seal' not in key and 'sha' not in key}
    tensors = load_file(source)
    tensors['tokenizer.statistics.deviation'] *= 10
    save_file(tensors, home / 'scaled.safetensors', about)
    config = json.loads((home / 'cached.json').read_text())
    for which in ('trainer', 'validator'):
        config[which]['model']['tokenizer']['weights'] = 'scaled.safetensors'
    (home / 'wrong.json').write_text(json.dumps(config))
    assert train(['wrong', 'wrong.json', '--trust', '--overwrite']) == 2
    assert 'the statistics in the tokenizer do not fit the latents' in capsys.readouterr().err


def test_a_cache_of_another_tokenizer_is_not_continued(home: Path, capsys: Any) -> None:
    assert (
        data(['latents', *KL, '--load-model-from', 'other', '--output-folder', 'cache', '--shard-size', '300', '--no-mirror'])
        == 2
    )
    said = capsys.readouterr().err
    assert "latents of another tokenizer: 'weights_hash' is" in said
