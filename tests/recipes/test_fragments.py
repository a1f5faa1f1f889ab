"""Fragments that older configs load, and options of their recipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vq.assembly.compose import compose
from vq.core.config import PyConfig
from vq.core.errors import ConfigError

STUDY = 'configs/vqvae_gan_study/vqvae_1024_standard.py'


def written(folder: Path, text: str) -> str:
    file = folder / 'mine.py'
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ('option', 'choices'),
    [
        ('recipe', "'tables' | 'later'"),
        ('quantizer', "'standard' | 'ema' | 'entropy' | 'gumbel'"),
        ('adversarial', "'fixed' | 'adaptive' | None"),
    ],
)
def test_the_study_lists_its_choices(option: str, choices: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(STUDY, {option: 'fsq'}, {}, tiny=False)
    assert f"{option} is 'fsq'" in error.value.message and choices in error.value.message


@pytest.mark.parametrize('option', [{'r1': 10.0}, {'lpips_net': 'alex'}])
def test_an_option_of_what_the_study_does_not_build_here_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match='does not use the option'):
        compose(STUDY, option, {}, tiny=False)
    with_both = {'adversarial': 'fixed', **option}
    assert compose(STUDY, with_both, {}, tiny=False).trainer.model.discriminator.image_size == 256


def test_a_dataset_that_is_loaded_by_name_stays_what_it_is(tmp_path: Path) -> None:
    """For any value of the option ``dataset``, even if it names the file itself."""
    text = "_kwargs_.setdefault('dataset', 'folder')\n_base_ = ['configs/datasets/imagenet.py']\nkind = _kwargs_['dataset']"
    config = PyConfig.load(written(tmp_path, text), data_root='somewhere')
    assert (config.kind, config.trainer.dataset.type) == ('folder', 'VQDatasetRegistry.ImageNetDataset')
    assert config.validator.dataset.root == 'somewhere'
    data = PyConfig.load('configs/datasets/interface.py', dataset='configs/datasets/imagenet', image_size=33)
    assert data.trainer.dataset == PyConfig.load('configs/datasets/imagenet.py', image_size=33).trainer.dataset


def test_the_runner_fragment_reads_a_list_of_step_settings(tmp_path: Path) -> None:
    text = (
        "_kwargs_.setdefault('num_embeddings', 64)\n"
        "_kwargs_.setdefault('optimize', [dict(type='OptimizeCallback', optimizer='tokenizer', clip=0.5)])\n"
        "_kwargs_.setdefault('anneal', [dict(type='AnnealCallback', setting='tokenizer.quantizer.temperature')])\n"
        "_base_ = ['configs/runners/tokenizer.py']\n"
        "trainer = dict(optimizers=dict(tokenizer=dict(type='Adam', lr=1e-3)))"
    )
    trainer = PyConfig.load(written(tmp_path, text)).trainer
    assert trainer.optimizers == {'tokenizer': {'type': 'Adam', 'lr': 1e-3, 'clip': 0.5}}
    assert trainer.callbacks.anneal.setting == 'tokenizer.quantizer.temperature'
    assert PyConfig.load('configs/runners/tokenizer.py').trainer.optimizers == {}


def test_a_network_of_features_has_options_of_its_own() -> None:
    network = compose('configs/fid/interface.py', {'network': 'models/clip.py', 'small': True}, {}, tiny=False)
    assert network.validator.network.dimension == 16
    with pytest.raises(ConfigError, match=r"neither .* nor .* has an option 'smal'; did you mean 'small'"):
        compose('configs/fid/interface.py', {'network': 'models/clip.py', 'smal': True}, {}, tiny=False)


def test_a_classifier_is_probed_or_trained() -> None:
    probe = compose('configs/digits/probe.py', {'codebook_size': 64}, {}, tiny=False).trainer.model.backbone
    assert (probe.type, probe.tokenizer.quantizer.codebook_size, probe.image_size) == ('FrozenTokenizer', 64, 32)
    own = {'backbone': {'type': 'ConvEncoder', 'width': 8}}
    assert compose('configs/ic/imagenet_ddp.py', own, {}, tiny=False).trainer.model.backbone == own['backbone']
    with pytest.raises(ConfigError, match="does not use the option 'gives'"):
        compose('configs/ic/imagenet_ddp.py', {**own, 'gives': 'features'}, {}, tiny=False)


def test_step_settings_of_a_classifier_stay_with_another_optimizer() -> None:
    options = {'optimizer': {'type': 'SGD', 'lr': 0.1}}
    found = compose('configs/ic/digits.py', options, {}, tiny=False).trainer.optimizers.classifier
    assert found == {'type': 'SGD', 'lr': 0.1, 'schedule': {'type': 'CosineSchedule'}}


@pytest.mark.slow
def test_composing_imports_no_torch() -> None:
    files = ['ic/digits.py', 'ic/imagenet_ddp.py', STUDY, 'images/interface.py', 'pairs/interface.py', 'fid/interface.py']
    code = f"import sys; from vq.core import PyConfig; [*map(PyConfig.load, {files})]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False, timeout=60).returncode == 0
