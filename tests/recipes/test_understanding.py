"""Recipes of VQ-KD and Cluster: the numbers of their authors, what is decayed, names of old configs, and their size."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from tests.recipes.test_photos import code_lines, understands
from tests.shipped import composed
from tests.sources import ROOT
from vq.assembly.compose import checked, compose
from vq.core import old_configs
from vq.core.config import packaged_configs, resolve_config
from vq.core.errors import ConfigError
from vq.registries import VQRunnerRegistry, VQScheduleRegistry
from vq.runners.optimizers import mark_undecayed

# config -> codes, channels of the teacher's map
VQKD = {
    **dict.fromkeys(('dino_8192', 'mae_8192', 'vit_8192', 'openclip_l14_8192', 'eva_8192'), (8192, 768)),
    'clip_8192': (8192, 512),
    'openclip_h14_8192': (8192, 1024),
    'openclip_bigg14_8192': (8192, 1280),
    'convnext_8192': (8192, 1024),
    'vit_16384': (16384, 768),
}
CLUSTER = dict.fromkeys(('clip_8192', 'dino_8192', 'mae_8192', 'vit_8192'), (8192, 768))


def trainer_of(name: str, **options: Any) -> Any:
    return compose(f'configs/{name}.py', options, {}, tiny=False).trainer


def on_meta(name: str, **options: Any) -> Any:
    config = compose(f'configs/{name}.py', options, {}, tiny=False)
    with torch.device('meta'):
        return VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'codes', 'channels'), [(name, *sizes) for name, sizes in VQKD.items()])
def test_vqkd_has_the_sizes_of_its_authors(name: str, codes: int, channels: int) -> None:
    trainer = on_meta(f'vqkd/{name}_imagenet_ddp')
    task, tokenizer = trainer.model, trainer.model.tokenizer
    assert tokenizer.spec((224, 224)).tokens.shape == (14, 14) and tokenizer.codebooks == (codes,)
    assert (tokenizer.encoder.out_channels, tokenizer.quantizer.embedding_dim) == (32, 32)
    assert tokenizer.feature_decoder.out_channels == channels == task.teacher.channels(task.teacher_layers)
    assert (len(tokenizer.encoder.blocks), len(tokenizer.feature_decoder.blocks)) == (12, 1)
    assert tokenizer.quantizer.loss_weights == {'commitment': 1.0} and tokenizer.quantizer.normalize
    assert (trainer.dataloader.batch_size, trainer.dataloader.batch_size_in_total) == (512, True)
    assert trainer._length[0] == 250_000


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'codes', 'channels'), [(name, *sizes) for name, sizes in CLUSTER.items()])
def test_cluster_has_the_sizes_of_its_authors(name: str, codes: int, channels: int) -> None:
    trainer = on_meta(f'cluster/{name}_imagenet_ddp')
    tokenizer = trainer.model.tokenizer
    assert tokenizer.spec((256, 256)).tokens.shape == (16, 16) and tokenizer.codebooks == (codes,)
    assert tokenizer.quantizer.embedding_dim == tokenizer.encoder.out_channels == channels
    assert tokenizer.quantizer.metric == 'cosine' and not tokenizer.quantizer.normalize
    assert tokenizer.quantizer.loss_weights == {'codebook': 1.0, 'commitment': 0.0}
    assert (trainer.dataloader.batch_size, trainer._length[0]) == (256, 100_000)
    trained = [name for name, value in trainer.model.named_parameters() if value.requires_grad]
    assert trained == ['tokenizer.quantizer.codebook.weight']


def test_steps_of_vqkd_are_those_of_its_authors() -> None:
    adam = trainer_of('vqkd/interface').optimizers.tokenizer
    schedule = VQScheduleRegistry.build(adam.schedule, 'schedule')
    schedule.bind(250_000)
    rates = [adam.lr * schedule(step) for step in (0, 12_500, 25_000, 137_500, 250_000)]
    assert rates == pytest.approx([1e-8, 1e-4, 2e-4, 1.05e-4, 1e-5], rel=1e-3)
    assert (adam.betas, adam.eps, adam.weight_decay) == ((0.9, 0.99), 1e-8, 1e-4)
    adam = trainer_of('cluster/interface').optimizers.tokenizer
    assert (adam.type, adam.lr, adam.betas) == ('Adam', 5.4e-5, (0.5, 0.9))


@pytest.mark.slow
def test_biases_norms_tokens_and_positions_are_not_decayed() -> None:
    trainer = on_meta('vqkd/interface')
    root = trainer.model.roots()['tokenizer']
    named = {name: value for name, value in root.named_parameters() if value.requires_grad}
    mark_undecayed(root, list(named.values()))
    decayed = {name for name, value in named.items() if not value.undecayed}
    left = set(named) - decayed
    assert all(named[name].ndim > 1 and name.endswith('.weight') for name in decayed)
    assert all(name.endswith(('bias', 'class_token', 'positions.weight')) or 'norm' in name for name in left)
    assert not any('norm' in name or 'position' in name or 'token' in name for name in decayed)
    # 13 blocks of 4 matrices, and stem, task_in, task_out of encoder and feature decoder
    assert len(decayed) == 13 * 4 + 2 * 3


def test_a_size_that_patches_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match='image_size is 250, and patch is 16'):
        trainer_of('vqkd/interface', image_size=250)
    with pytest.raises(ConfigError, match='multiple of'):
        trainer_of('vqkd/interface', image_size=[224, 256])


def test_options_reach_their_parts() -> None:
    model = trainer_of('vqkd/interface', num_embeddings=300, embedding_dim=16, image_size=256, patch=8, decoder_depth=3).model
    quantizer, encoder, decoder = (model.tokenizer[name] for name in ('quantizer', 'encoder', 'feature_decoder'))
    assert (quantizer.codebook_size, quantizer.embedding_dim, encoder.out_channels) == (300, 16, 16)
    assert (encoder.image_size, encoder.patch, decoder.grid, decoder.depth) == (256, 8, 32, 3)
    assert 'kmeans' not in trainer_of('vqkd/interface', kmeans_batches=0).callbacks
    kmeans = trainer_of('vqkd/interface', kmeans_batches=3, kmeans_delay=9).callbacks.kmeans
    assert (kmeans.batches, kmeans.delay) == (3, 9)
    assert trainer_of('cluster/interface', anchor='cached').model.tokenizer.quantizer['update'].anchor == 'cached'
    for kind in ('vqkd', 'cluster'):
        assert composed(f'{kind}/clip_8192_imagenet_ddp.py').validator.callbacks.get('reconstructions') is None


@pytest.mark.parametrize('folder', ['configs/', ''])
@pytest.mark.parametrize('old', old_configs.OLD)
def test_old_names_say_so_once(
    old: str, folder: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_configs, '_told', set())
    monkeypatch.setattr(logging.getLogger('vq'), 'propagate', True)
    new = packaged_configs() / old_configs.OLD[old]
    for _ in range(2):
        assert resolve_config(f'{folder}{old}') == new.resolve() and new.is_file()
    told = {id(record): record.getMessage() for record in caplog.records}  # one record can reach several handlers
    assert [*told.values()] == [f'configs/{old} is called configs/{old_configs.OLD[old]} now; the old name still works']


def test_recipes_stay_small() -> None:
    """Code lines of recipes and configs of this family, as those of the others in ``test_photos.py``."""
    paths = [path for folder in ('vq/recipes', 'configs') for path in (ROOT / folder).rglob('*.py') if understands(path)]
    assert len(paths) > 4 and sum(map(code_lines, paths)) <= 200


@pytest.mark.slow
@pytest.mark.parametrize('decoder', ['vqgan', 'vqkd', 'vqkd_large'])
@pytest.mark.parametrize('kind', ['vqkd', 'cluster'])
def test_pixel_decoders_take_both_at_256_pixels(kind: str, decoder: str) -> None:
    """VQ-KD was trained at 224 pixels: its positions are resized. The feature decoder is dropped; the codes stay frozen."""
    trainer = on_meta('decoder/vqgan', it_config=f'configs/{kind}/clip_8192_imagenet_ddp.py', decoder=decoder)
    whole = trainer.model.tokenizer
    inner, channels = whole.frozen.tokenizer, dict(vqkd=32, cluster=768)[kind]
    assert whole.token_spec((256, 256)).shape == (16, 16) and whole.frozen.out_channels == channels
    assert (whole.pre_decode or whole.decoder).in_channels == channels
    assert getattr(inner, 'feature_decoder', None) is None
    trained = {name.partition('.')[0] for name, value in whole.named_parameters() if value.requires_grad}
    assert trained == {'decoder', 'pre_decode'} - ({'pre_decode'} if decoder != 'vqgan' else set())
    with torch.device('meta'):
        z = whole.code(whole.encode(torch.zeros(1, 3, 256, 256)))[0]
        assert z.shape == (1, channels, 16, 16)
        if decoder != 'vqkd_large':
            assert whole.decode(z).shape == (1, 3, 256, 256)


@pytest.mark.parametrize(
    ('name', 'root'), [('ic/imagenet_ddp', 'classifier'), ('ar/c2i_llama_medium_cfg_imagenet_ddp', 'generator')]
)
@pytest.mark.parametrize('kind', ['vqkd', 'cluster'])
def test_probes_and_generators_take_both(kind: str, name: str, root: str) -> None:
    config = f'configs/{kind}/clip_8192_imagenet_ddp.py'
    given = dict(it_config=config) if root == 'classifier' else dict(ir_config='configs/decoder/vqgan.py', it_config=config)
    model = on_meta(name, **given).model
    if root == 'classifier':
        assert model.head.dimension == dict(vqkd=32, cluster=768)[kind]
    else:
        assert (model.generator.tokens.cells, model.generator.tokens.codebooks) == ((16, 16), (8192,))
    outside = [
        name for name, value in model.named_parameters() if value.requires_grad and name.startswith(('tokenizer', 'backbone'))
    ]
    assert not outside
