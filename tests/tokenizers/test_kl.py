"""The continuous autoencoder: its loss, its samples, its errors, and its training."""

from __future__ import annotations

import copy

import numpy
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vq.core.check import find_problems
from vq.core.errors import ConfigError, UserError
from vq.core.records import Batch, Latent
from vq.metrics.codebook import CodebookMetric
from vq.registries import VQModelRegistry, VQTaskRegistry

NETWORK = dict(width=4, multipliers=(1, 2, 2), residual_blocks=1, attention_levels=())


def config(**options):
    return dict(
        type='KLAutoencoder',
        encoder=dict(type='ConvEncoder', **NETWORK, out_channels=6),
        post_encode=dict(type='ConvConnector'),
        decoder=dict(type='ConvDecoder', **NETWORK, in_channels=3),
        pre_decode=dict(type='ConvConnector'),
        **options,
    )


def build(settings):
    torch.manual_seed(0)
    assert list(find_problems(VQModelRegistry, settings, 'model')) == []
    return VQModelRegistry.build(settings, 'model')


def images(count=3, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_divergence_is_that_of_the_distributions():
    mean, logvar = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0, 1)).sum((1, 2, 3))
    torch.testing.assert_close(build(config()).divergence(Latent(mean, logvar)), expected)


def test_training_decodes_samples_and_evaluation_means():
    model = build(config())
    latent = model.encode(images())
    assert latent.mean.shape == latent.logvar.shape == (3, *model.spec((8, 8)).latent.shape) == (3, 3, 2, 2)
    z, tokens, losses = model.eval().code(latent)
    assert torch.equal(z, latent.mean)
    assert tokens is None
    assert losses.keys() == model.loss_weights.keys() == {'kl'}
    torch.testing.assert_close(losses['kl'], model.divergence(latent).mean())
    model.train()
    torch.manual_seed(5)
    first = model.code(latent)[0]
    torch.manual_seed(5)
    assert torch.equal(first, model.code(latent)[0])
    assert not torch.equal(first, model.code(latent)[0])
    wide = Latent(torch.full((4, 3, 50, 50), 2.0), torch.full((4, 3, 50, 50), 2 * numpy.log(0.5)))
    drawn = model.sample(wide)
    torch.testing.assert_close(drawn.mean(), torch.tensor(2.0), rtol=0, atol=0.015)  # 5 standard errors of 30,000 draws
    torch.testing.assert_close(drawn.std(), torch.tensor(0.5), rtol=0, atol=0.011)


def test_gradients_reach_every_part_also_under_autocast():
    model = build(config())
    for context in (torch.autocast('cpu', enabled=False), torch.autocast('cpu', dtype=torch.bfloat16)):
        model.zero_grad()
        with context:
            latent = model.encode(images())
            z, _, losses = model.code(latent)
            made = model.decode(z)
        assert latent.mean.dtype == latent.logvar.dtype == losses['kl'].dtype == torch.float32
        (made.float().square().mean() + losses['kl']).backward()
        assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_variances_stay_finite():
    model = build(config())
    with torch.no_grad():
        model.post_encode.conv.bias[3:] = 1e6
    latent = model.encode(images())
    assert latent.logvar.max() == 20
    assert model.code(latent)[0].isfinite().all()
    assert model.divergence(latent).isfinite().all()


def test_what_it_has_not_is_said():
    model = build(config())
    latent = model.encode(images())
    for ask in (
        lambda: model.tokenize(images()),
        lambda: model.quantize(latent),
        lambda: model.lookup(torch.zeros(1, 2, 2, dtype=torch.int64)),
        lambda: model.token_spec((8, 8)),
    ):
        with pytest.raises(UserError, match='no tokens') as caught:
            ask()
        assert 'encode(image).mean' in caught.value.hint
    for ask in (lambda: model.encode(torch.zeros(1, 3, 8, 10)), lambda: model.spec((10, 10))):
        with pytest.raises(UserError, match='cells of 4 pixels'):
            ask()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['decoder'].update(in_channels=6), 'gives 6 channels and the decoder side takes 6'),
        (lambda c: c.pop('pre_decode'), None),
        (lambda c: c['post_encode'].update(in_channels=5), 'a connector does not fit'),
    ],
)
def test_widths(change, message):
    settings = copy.deepcopy(config())
    change(settings)
    if message is None:
        assert build(settings).latent_channels == 3
        return
    with pytest.raises(ConfigError, match=message) as caught:
        build(settings)
    assert caught.value.hint


TASK = dict(tokenizer=config(kl_weight=0.01), losses=dict(l2=dict(type='MSELoss')))
ADVERSARIAL = dict(
    type='AdversarialTokenization',
    discriminator=dict(type='PatchGAN', width=4, depth=2),
    generator_loss=dict(type='HingeGeneratorLoss'),
    discriminator_loss=dict(type='HingeDiscriminatorLoss'),
    weight=dict(type='AdaptiveWeight'),
)


def batch():
    pictures = ((images(4, 16) + 1) * 127.5).to(torch.uint8)
    return Batch(pictures, list('abcd'), torch.arange(4))


@pytest.mark.parametrize('kind', [dict(type='ImageTokenization'), ADVERSARIAL], ids=['plain', 'adversarial'])
def test_it_trains_in_the_tasks_of_tokenizers(kind):
    torch.manual_seed(0)
    task = VQTaskRegistry.build({**kind, **copy.deepcopy(TASK)}).train()
    assert task.codebooks == ()
    for step in (1, 2):
        for name, losses in task.training_step(batch(), task.roots(), step):
            losses.total.backward()
            if name == 'tokenizer':
                assert losses.weights['kl'] == 0.01
        task.update(torch.tensor(True))
    assert task.outputs.tokens is None
    assert not [name for name, parameter in task.tokenizer.named_parameters() if parameter.grad is None]
    outputs = task.eval().validation_step(batch())
    assert outputs.tokens is None
    assert {'l2', 'kl', 'total'} <= outputs.losses.keys()
    with pytest.raises(ConfigError, match='need tokens') as caught:
        CodebookMetric(8).update(batch(), outputs)
    assert 'Leave CodebookMetric out' in caught.value.hint
