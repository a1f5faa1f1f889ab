"""Recipes of representation and masked autoencoders: what their options set."""

from __future__ import annotations

from typing import Any

import pytest

from vq.assembly.compose import checked, compose
from vq.core.errors import ConfigError

RAE = 'configs/two_stage/rae_dinov2_b_imagenet_ddp.py'
MAE = 'configs/two_stage/mae_b16_imagenet_ddp.py'
DIGITS = 'configs/digits/rae.py'


def model_of(config: str, tiny: bool = False, **options: Any) -> Any:
    composed = compose(config, options, {}, tiny=tiny)
    for which in ('trainer', 'validator'):
        checked(composed, which)
    return composed['trainer']['model']


def test_the_published_first_stage() -> None:
    composed = compose(RAE, {}, {}, tiny=False)
    trainer, model = composed['trainer'], composed['trainer']['model']
    epoch = 1_281_167 // 512
    assert (trainer['iters'], trainer['dataloader']['batch_size']) == (16 * epoch, 512)
    start = model['discriminator_start']
    assert (start, start + model['warmup']) == (6 * epoch, 8 * epoch)
    for optimizer in trainer['optimizers'].values():
        assert (optimizer['lr'], tuple(optimizer['betas']), optimizer['schedule']['final']) == (2e-4, (0.9, 0.95), 0.1)
    assert trainer['callbacks']['ema']['decay'] == 0.9978 and model['weight']['gain'] == 0.75
    assert model['tokenizer']['perturbation'] == dict(type='GaussianNoise', tau=0.8)
    assert model['losses'].keys() == {'l1', 'lpips'}


def test_teachers_layers_and_sizes() -> None:
    tokenizer = model_of(RAE, teacher='siglip2', layers='sum_of_last_4', train_teacher=True, decoder_size='XL')['tokenizer']
    encoder, decoder = tokenizer['encoder'], tokenizer['decoder']
    assert (encoder['teacher']['type'], encoder['layers'], encoder['train_teacher']) == (
        'SigLIPTeacher',
        'sum_of_last_4',
        True,
    )
    assert (decoder['dim'], decoder['depth'], decoder['grid']) == (1152, 28, 16)
    assert model_of(RAE, cell=32)['tokenizer']['decoder']['grid'] == 8
    assert model_of(RAE, perturbation=None)['tokenizer']['perturbation'] is None
    assert model_of(DIGITS)['tokenizer']['encoder']['layers'] == 'last'
    with pytest.raises(ConfigError, match='image_size is 250, and cell is 16'):
        model_of(RAE, image_size=250)


@pytest.mark.parametrize('tiny', [False, True])
@pytest.mark.parametrize('config', [RAE, MAE])
def test_other_discriminators(config: str, tiny: bool) -> None:
    for kind in ('PatchGAN', 'ViTDiscriminator'):
        assert model_of(config, tiny, discriminator=dict(type=kind))['discriminator']['type'] == kind


@pytest.mark.parametrize('tiny', [False, True])
def test_masks_class_tokens_and_losses(tiny: bool) -> None:
    model = model_of(MAE, tiny, mask_ratio=0.75, no_cls=False, loss='l2', lpips=0.0, train_encoder=True)
    encoder, decoder = model['tokenizer']['encoder'], model['tokenizer']['decoder']
    assert (encoder['mask_ratio'], encoder['train_encoder']) == (0.75, True)
    assert (decoder['masked'], decoder['class_token']) == (True, 'given')
    assert [name for name, loss in model['losses'].items() if loss is not None] == ['l2']
