"""The VQGAN tokenizer: matching of widths, shapes, and the Tokenizer interface."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from vq.core.check import find_problems
from vq.core.errors import ConfigError, UserError
from vq.registries import VQModelRegistry

NETWORK = dict(width=4, multipliers=(1, 2, 2), residual_blocks=1, attention_levels=(2,))


def config(**parts):
    """f4: codes of 5 channels between networks of 6."""
    return dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', **NETWORK, out_channels=6),
        quantizer=dict(type='VectorQuantizer', codebook_size=11, embedding_dim=5, init='normal'),
        post_encode=dict(type='ConvConnector'),
        decoder=dict(type='ConvDecoder', **NETWORK),
        pre_decode=dict(type='ConvConnector'),
        **parts,
    )


def build(settings):
    torch.manual_seed(0)
    assert list(find_problems(VQModelRegistry, settings, 'model')) == []
    return VQModelRegistry.build(settings, 'model')


def test_widths_follow_from_the_neighbours():
    model = build(config())
    assert (model.post_encode.in_channels, model.post_encode.out_channels) == (6, 5)
    assert (model.pre_decode.in_channels, model.pre_decode.out_channels) == (5, 6)
    assert model.decoder.in_channels == 6


def test_without_connectors():
    settings = config()
    del settings['post_encode'], settings['pre_decode']
    settings['encoder']['out_channels'] = 5
    model = build(settings)
    assert model.decoder.in_channels == 5
    assert model(torch.zeros(1, 3, 8, 8))[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    'quantizer',
    [
        dict(type='VectorQuantizer', codebook_size=11, embedding_dim=5, normalize=True),
        dict(type='FiniteScalarQuantizer', levels=[5, 4, 3]),
    ],
)
@pytest.mark.parametrize(('height', 'width'), [(8, 8), (12, 20)])
def test_promises(quantizer, height, width):
    settings = config()
    settings['quantizer'] = quantizer
    model = build(settings).eval()
    image = torch.rand(3, 3, height, width) * 2 - 1
    tokens = model.tokenize(image)
    assert tokens.shape == (3, height // 4, width // 4)
    assert tokens.dtype == torch.int64
    assert model.can_decode
    quantized = model.quantize(model.encode(image))
    assert torch.equal(model.lookup(tokens), quantized.z)
    assert quantized.z.shape == (3, model.quantizer.embedding_dim, height // 4, width // 4)
    reconstruction, also = model(image)
    assert torch.equal(also.tokens, tokens)
    torch.testing.assert_close(model.detokenize(tokens), reconstruction)
    assert reconstruction.shape == image.shape
    assert model.codebook_size == model.quantizer.codebook_size == (11 if 'codebook_size' in quantizer else 60)
    assert model.bits == model.quantizer.bits


INNER = dict(type='VectorQuantizer', codebook_size=11, embedding_dim=5, init='normal')


@pytest.mark.parametrize(
    ('quantizer', 'shape', 'sizes', 'bits'),
    [
        (dict(type='ResidualQuantizer', quantizer=INNER, stages=3), (3, 3, 3), (11, 11, 11), 3 * math.log2(11)),
        (dict(type='ResidualQuantizer', quantizer=INNER, stages=3, shared=True), (3, 3, 3), (11,), 3 * math.log2(11)),
        (dict(type='GroupedQuantizer', quantizer=INNER, groups=2), (3, 3, 2), (11, 11), 2 * math.log2(11)),
        (dict(type='MultiScaleQuantizer', quantizer=INNER, scales=(1, 2, 3), convolutions=2), (14,), (11,), math.log2(11)),
    ],
)
def test_tokens_of_other_shapes(quantizer, shape, sizes, bits):
    settings = config()
    settings['quantizer'] = quantizer
    model = build(settings).eval()
    image = torch.rand(2, 3, 12, 12) * 2 - 1
    assert model.token_spec((12, 12)).shape == shape
    tokens = model.tokenize(image)
    assert tokens.shape == (2, *shape)
    quantized = model.quantize(model.encode(image))
    assert quantized.z.shape == (2, *model.spec((12, 12)).latent.shape)
    assert torch.equal(model.lookup(tokens), quantized.z)
    torch.testing.assert_close(model.detokenize(tokens), model(image)[0])
    assert model.codebooks == sizes
    assert model.bits == pytest.approx(bits)
    model.train()
    reconstruction, quantized = model(image)
    weighted = [model.loss_weights[name] * value for name, value in quantized.losses.items()]
    (reconstruction.square().mean() + sum(weighted)).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_token_shape_and_images_that_do_not_divide():
    model = build(config())
    assert model.token_spec((32, 32)).shape == (8, 8)
    for size in (30, 2, 0):
        with pytest.raises(UserError, match='multiple of 4'):
            model.token_spec((size, size))
    with pytest.raises(UserError, match='8 x 10'):
        model.encode(torch.zeros(1, 3, 8, 10))


def test_gradients_reach_every_part():
    model = build(config())
    reconstruction, quantized = model(torch.randn(2, 3, 8, 8))
    loss = reconstruction.square().mean() + sum(model.loss_weights[name] * value for name, value in quantized.losses.items())
    loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_update_reaches_the_codebook():
    settings = config()
    settings['quantizer']['update'] = dict(type='EMAUpdate', decay=0.5)
    model = build(settings)
    before = model.quantizer.codebook.weight.clone()
    model(torch.randn(2, 3, 8, 8))
    model.update(torch.tensor(False))
    assert torch.equal(before, model.quantizer.codebook.weight)
    model(torch.randn(2, 3, 8, 8))
    model.update()
    assert not torch.equal(before, model.quantizer.codebook.weight)


def test_autocast_trains_and_quantizes_in_fp32():
    model = build(config())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        reconstruction, quantized = model(torch.randn(2, 3, 8, 8))
    assert quantized.z.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in quantized.losses.values())
    reconstruction.float().mean().backward()


@pytest.mark.slow
def test_the_published_f16_model_on_the_meta_device():
    """Parameters of taming's f16, 16384 codes, without its losses."""
    with torch.device('meta'):
        model = VQModelRegistry.build(
            dict(
                type='VQGAN',
                encoder=dict(type='ConvEncoder'),
                decoder=dict(type='ConvDecoder'),
                post_encode=dict(type='ConvConnector'),
                pre_decode=dict(type='ConvConnector'),
                quantizer=dict(type='VectorQuantizer', codebook_size=16384, embedding_dim=256),
            )
        )
        reconstruction, quantized = model(torch.zeros(2, 3, 256, 256))
    assert sum(p.numel() for p in model.parameters()) == 29298176 + 42449795 + 2 * (256 * 256 + 256) + 16384 * 256
    assert reconstruction.shape == (2, 3, 256, 256)
    assert quantized.tokens.shape == (2, 16, 16)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.pop('post_encode'), 'encoder gives 6 channels and quantizer takes 5'),
        (lambda c: c.pop('pre_decode'), 'quantizer gives 5 channels and decoder takes 6'),
        (lambda c: c['post_encode'].update(out_channels=7), 'post_encode joins 6 to 7'),
        (lambda c: c['decoder'].update(multipliers=(1, 2), attention_levels=()), '4 times, decoder enlarges them 2'),
    ],
)
def test_parts_that_do_not_fit(change, message):
    settings = copy.deepcopy(config())
    change(settings)
    with pytest.raises(ConfigError, match=message) as caught:
        VQModelRegistry.build(settings, 'model')
    assert caught.value.message.startswith('model')
    assert caught.value.hint
