"""Taming's VQLPIPSWithDiscriminator (perceptual weight 0): our task gives its losses, weight, gradients and statistics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from vq.core.records import Latent, Quantized
from vq.discriminators.patchgan import PatchGAN
from vq.interfaces import Decoder, Tokenizer
from vq.io.published.discriminators import patchgan_keys
from vq.losses.adversarial import hinge_discriminator, hinge_generator, vanilla_discriminator
from vq.losses.generator_weight import AdaptiveWeight
from vq.losses.reconstruction import L1Loss
from vq.tasks.image_tokenization.adversarial import AdversarialTokenization
from vq.tasks.image_tokenization.task import AutoEncoderOutput

CLOSE = dict(rtol=1e-4, atol=2e-5)


class LastConvolution(Decoder):
    """A decoder with only a last layer: the golden file starts from its input."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.in_channels = nn.Parameter(weight), nn.Parameter(bias), weight.shape[1]

    def features(self, z: Tensor) -> Tensor:
        return z

    def project(self, features: Tensor) -> Tensor:
        return F.conv2d(features, self.weight, self.bias, padding=1)

    def last_layer_gradients(self, features: Tensor, image: Tensor, gradients: Tensor) -> Tensor:
        return torch.stack([conv2d_weight(features, self.weight.shape, gradient, padding=1) for gradient in gradients])


class Features(Tokenizer):
    """The golden file's features and codebook loss in place of an encoder and a quantizer."""

    codebook_size, can_decode = 2, True

    def __init__(self, peer) -> None:
        super().__init__()
        self.decoder = LastConvolution(peer['in/last_weight'], peer['in/last_bias'])
        self.given, self.loss = peer['in/features'], peer['in/codebook_loss']
        self.codebook_weight = peer.meta['codebook_weight']

    @property
    def loss_weights(self) -> dict[str, float]:
        return {'codebook': self.codebook_weight}

    def encode(self, image: Tensor) -> Latent:
        return Latent(self.given)

    def quantize(self, latent: Latent) -> Quantized:
        return Quantized(latent.mean, torch.zeros(len(latent.mean), 1, 1, dtype=torch.int64), {'codebook': self.loss})

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def decoder_features(self, z: Tensor) -> Tensor:
        return self.decoder.features(z)


def make_task(peer) -> AdversarialTokenization:
    discriminator = PatchGAN(width=peer.meta['ndf'], depth=peer.meta['n_layers'])
    discriminator.load_state_dict(patchgan_keys(peer.state))
    return AdversarialTokenization(
        tokenizer=Features(peer),
        losses={'l1': L1Loss()},
        discriminator=discriminator,
        generator_loss=hinge_generator,
        discriminator_loss=hinge_discriminator if peer.meta['loss'] == 'hinge' else vanilla_discriminator,
        weight=AdaptiveWeight(peer.meta['disc_weight'], peer.meta['adaptive_max'], peer.meta['adaptive_eps']),
        discriminator_start=peer.meta['disc_start'],
    )


@pytest.fixture(params=['hinge', 'vanilla'])
def peer(request, golden):
    return golden(f'taming_vqlpips_disc_{request.param}')


def step_of(peer, when: str) -> int:
    """Taming counts steps from 0, we from 1."""
    return peer.meta['steps'][when] + 1


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('when', ['before', 'after'])
def test_generator(peer, mode, when):
    task = make_task(peer)
    task.discriminator.train(mode == 'train')
    image = peer['in/image']
    coded: AutoEncoderOutput = task.roots()['tokenizer'](image)
    torch.testing.assert_close(coded.reconstruction, peer['out/reconstruction'], **CLOSE)
    losses = task._tokenizer_losses(image, coded, task._strength(step_of(peer, when)))
    losses.total.backward()
    expected = {name: peer[f'out/{mode}_{when}_gen_{name}'] for name in ('total', 'nll_loss', 'g_loss', 'd_weight')}
    assert task._strength(step_of(peer, when)) == float(peer[f'out/{mode}_{when}_gen_disc_factor'])
    torch.testing.assert_close(losses.total, expected['total'], **CLOSE)
    torch.testing.assert_close(losses.values['l1'], expected['nll_loss'], **CLOSE)
    if when == 'after':
        torch.testing.assert_close(losses.values['generator'], expected['g_loss'], **CLOSE)
        torch.testing.assert_close(losses.notes['generator_weight'], expected['d_weight'], rtol=1e-3, atol=0)
    gradient = peer[f'out/{mode}_{when}_gen_grad_last_layer']
    found = task.tokenizer.decoder.weight.grad
    torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_discriminator(peer, mode):
    task = make_task(peer)
    task.discriminator.train(mode == 'train')
    step = step_of(peer, 'after')
    losses = task._discriminator_losses(task.roots()['discriminator'], peer['in/image'], peer['out/reconstruction'], step)
    losses.total.backward()
    torch.testing.assert_close(losses.total, peer[f'out/{mode}_after_disc_loss'], **CLOSE)
    for kind in ('real', 'fake'):
        expected = peer[f'out/{mode}_after_disc_logits_{kind}_mean']
        torch.testing.assert_close(losses.notes[f'logits_{kind}'], expected, **CLOSE)
    if mode == 'train':
        gradient = peer['out/train_after_disc_grad_first_conv']
        torch.testing.assert_close(
            task.discriminator.stem.weight.grad, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max())
        )
        state = {name.removeprefix('out/bn_after_disc_step/'): peer[name] for name in peer.arrays if 'bn_after' in name}
        untouched = {name: value for name, value in peer.state.items() if name not in state}
        renamed, own = patchgan_keys({**untouched, **state}), task.discriminator.state_dict()
        for name in own:
            if 'running_' in name:
                torch.testing.assert_close(own[name], renamed[name], **CLOSE)


def test_before_its_start_the_discriminator_is_not_asked(peer):
    """Taming multiplies its loss by zero before the start; we do not compute it."""
    assert float(peer['out/train_before_disc_loss']) == 0
    assert make_task(peer)._strength(step_of(peer, 'before')) == 0
