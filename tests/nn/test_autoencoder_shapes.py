"""The convolutional encoder and decoder: shapes, parameter counts of published networks, limits of their settings."""

from __future__ import annotations

import pytest
import torch

from vq.core.errors import ConfigError
from vq.decoders.convolutional import ConvDecoder
from vq.encoders.convolutional import ConvEncoder

TINY = dict(width=4, residual_blocks=1)
SEREZD = dict(attention_levels=(), refine_attention=False, resample_last=True, norm='group_unbiased', conv_bias=False)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ('multipliers', 'resample_last', 'factor'), [((1,), False, 1), ((1, 2), False, 2), ((1, 2, 3), True, 8)]
)
@pytest.mark.parametrize(('height', 'width'), [(8, 8), (16, 40)])
def test_mirror(multipliers, resample_last, factor, height, width):
    options = dict(**TINY, multipliers=multipliers, resample_last=resample_last, attention_levels=(0,))
    encoder, decoder = ConvEncoder(**options, out_channels=5), ConvDecoder(**options, in_channels=5)
    image = torch.randn(2, 3, height, width)
    features = encoder(image)
    assert features.shape == (2, 5, height // factor, width // factor)
    assert encoder.downsampling == decoder.upsampling == factor
    assert decoder(features).shape == image.shape


def test_sizes_of_published_networks():
    """VQGAN f16 as listed in the key manifests (without connectors and codebook), and the VQ-VAE/GAN study's autoencoder."""
    with torch.device('meta'):
        assert count(ConvEncoder()) == 29298176
        assert count(ConvDecoder()) == 42449795
        study = (
            ConvEncoder(multipliers=(1, 2, 2, 4), downsample='average', out_kernel_size=1, **SEREZD),
            ConvDecoder(multipliers=(1, 1, 2, 2), stem_multiplier=4, residual_blocks=2, output='tanh', **SEREZD),
        )
    assert sum(map(count, study)) == 42189315 - 1024 * 256


@pytest.mark.parametrize('output', ['linear', 'tanh'])
@pytest.mark.parametrize('count', [1, 3])
def test_gradients_at_the_last_layer_are_those_of_autograd(output, count):
    decoder = ConvDecoder(**TINY, multipliers=(1, 1), attention_levels=(), in_channels=2, output=output)
    features = decoder.features(torch.randn(3, 2, 5, 4))
    image = decoder.project(features)
    gradients = torch.randn(count, *image.shape)
    expected = [torch.autograd.grad(image, decoder.conv_out.weight, g, retain_graph=True)[0] for g in gradients]
    found = decoder.last_layer_gradients(features.detach(), image.detach(), gradients)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_tanh_output_and_dropout():
    decoder = ConvDecoder(**TINY, multipliers=(1, 2), attention_levels=(), in_channels=2, output='tanh', dropout=0.5)
    z = 100 * torch.randn(1, 2, 3, 3)
    assert decoder(z).abs().max() <= 1
    assert not torch.equal(decoder(z), decoder(z))
    decoder.eval()
    assert torch.equal(decoder(z), decoder(z))


def test_refine_switches():
    for options, blocks in (({}, 3), ({'refine': False}, 0), ({'refine_attention': False}, 2), ({'refine_blocks': 3}, 5)):
        assert len(ConvEncoder(**TINY, multipliers=(1,), attention_levels=(), **options).refine) == blocks


@pytest.mark.parametrize(
    'options',
    [
        dict(multipliers=()),
        dict(attention_levels=(3,)),
        dict(attention_levels=(-1,)),
        dict(residual_blocks=0),
        dict(multipliers=(1, 0)),
    ],
)
def test_settings_that_make_no_network(options):
    for network in (ConvEncoder, ConvDecoder):
        with pytest.raises(ConfigError) as caught:
            network(**{'width': 4, 'multipliers': (1, 2), 'attention_levels': (), **options})
        assert caught.value.hint


def test_gradients_reach_every_parameter():
    encoder = ConvEncoder(**TINY, multipliers=(1, 2), attention_levels=(1,), out_channels=3)
    decoder = ConvDecoder(**TINY, multipliers=(1, 2), attention_levels=(1,), in_channels=3)
    decoder(encoder(torch.randn(2, 3, 8, 8))).square().sum().backward()
    missing = [name for part in (encoder, decoder) for name, p in part.named_parameters() if p.grad is None]
    assert not missing
