"""VAR's multi-scale quantizer: the interface of a quantizer, and the functions that generators use."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from vq.core.check import find_problems
from vq.core.errors import ConfigError, UserError
from vq.quantizers.multi_scale import nearest_ticks
from vq.registries import VQQuantizerRegistry

INNER = dict(type='VectorQuantizer', codebook_size=19, embedding_dim=3, init='normal')


def build(**options):
    torch.manual_seed(0)
    config = dict(type='MultiScaleQuantizer', **{'quantizer': INNER, 'scales': (1, 2, 3, 5), **options})
    assert list(find_problems(VQQuantizerRegistry, config, 'quantizer')) == []
    return VQQuantizerRegistry.build(config)


INNERS = {
    'plain': INNER,
    'ema': {**INNER, 'update': dict(type='EMAUpdate', decay=0.8, restart=dict(threshold=0.5, candidates=8))},
    'normalized': {**INNER, 'normalize': True},
    'gumbel': dict(type='GumbelQuantizer', codebook_size=19, embedding_dim=3),
    'fsq': dict(type='FiniteScalarQuantizer', levels=[3, 4, 5]),
}


@pytest.fixture(params=INNERS)
def quantizer(request):
    return build(quantizer=INNERS[request.param])


@pytest.mark.parametrize('training', [False, True])
def test_lookup_of_tokens_is_z(quantizer, training):
    quantizer.train(training)
    features = torch.randn(2, 5, 5, 3, requires_grad=True)
    quantized = quantizer(features)
    assert quantized.tokens.shape == (2, *quantizer.token_spec((5, 5)).shape) == (2, 1 + 4 + 9 + 25)
    assert quantized.tokens.dtype == torch.int64
    assert quantized.tokens.min() >= 0 and quantized.tokens.max() < quantizer.codebook_size
    assert torch.equal(quantizer.lookup(quantized.tokens), quantized.z)
    (gradient,) = torch.autograd.grad(quantized.z.sum(), features)
    assert torch.equal(gradient, torch.ones_like(features))


def test_autocast_changes_no_bit(quantizer):
    features = torch.randn(2, 5, 5, 3)
    plain = quantizer.eval()(features)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = quantizer(features)
        again = quantizer.lookup(cast.tokens)
    assert torch.equal(plain.tokens, cast.tokens)
    assert torch.equal(plain.z, cast.z)
    assert torch.equal(plain.z, again)


def test_first_scales_are_what_a_coarser_quantizer_gives():
    """By hand, for two scales: the mean of the map first, then its residual."""
    quantizer = build(scales=(1, 4), convolutions=1).eval()
    features = torch.randn(2, 4, 4, 3)
    inner, blend = quantizer.quantizer, quantizer.blends[0]
    mean = features.mean((1, 2))  # (B, C)
    first = inner(mean)
    flat = first.z[:, :, None, None].expand(-1, -1, 4, 4)
    flat = 0.5 * flat + 0.5 * F.conv2d(flat, blend.weight, blend.bias, padding=1)
    second = inner(features - flat.permute(0, 2, 3, 1))
    fine = second.z.permute(0, 3, 1, 2)
    fine = 0.5 * fine + 0.5 * F.conv2d(fine, blend.weight, blend.bias, padding=1)
    quantized = quantizer(features)
    assert torch.equal(quantized.tokens, torch.cat([first.tokens[:, None], second.tokens.flatten(1)], dim=1))
    torch.testing.assert_close(quantized.z.permute(0, 3, 1, 2), flat + fine)
    maps = quantizer.partial_maps(quantized.tokens)
    torch.testing.assert_close(maps[0].permute(0, 3, 1, 2), flat)
    total = features.permute(0, 3, 1, 2)
    expected = torch.stack([F.mse_loss(flat, total), F.mse_loss(flat + fine, total)]).mean()
    torch.testing.assert_close(quantized.losses['codebook'], expected)
    torch.testing.assert_close(quantized.losses['commitment'], expected)


def test_each_loss_reaches_its_side():
    quantizer = build()
    features = torch.randn(2, 5, 5, 3, requires_grad=True)
    losses = quantizer(features).losses
    assert losses.keys() == {'codebook', 'commitment'}
    wanted = [features, quantizer.quantizer.codebook.weight, *quantizer.blends.parameters()]
    found = {
        name: [gradient is not None for gradient in torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)]
        for name, value in losses.items()
    }
    assert found['commitment'] == [True] + [False] * (len(wanted) - 1)
    assert found['codebook'] == [False] + [True] * (len(wanted) - 1)
    assert quantizer.loss_weights == {'codebook': 1.0, 'commitment': 0.25}


def test_other_losses_of_the_inner_quantizer_are_means_over_scales():
    quantizer = build(quantizer=INNERS['gumbel']).eval()
    assert quantizer.loss_weights == {'kl': 5e-4, 'codebook': 1.0, 'commitment': 0.25}
    assert quantizer(torch.randn(1, 5, 5, 3)).losses.keys() == quantizer.loss_weights.keys()


def test_update_sees_all_scales(monkeypatch):
    quantizer = build(quantizer=INNERS['ema']).train()
    before = quantizer.quantizer.codebook.weight.clone()
    quantizer(torch.randn(2, 5, 5, 3))
    assert quantizer.quantizer.codebook_update.observed.counts.sum() == 2 * (1 + 4 + 9 + 25)
    quantizer.update()
    assert not torch.equal(before, quantizer.quantizer.codebook.weight)


def test_inputs_of_a_model_that_predicts_scales():
    """Inputs computed step by step, as in sampling, equal those computed at once, and do not depend on their own scale."""
    quantizer = build().eval()
    tokens = torch.randint(19, (2, 39))
    inputs = quantizer.teacher_forcing(tokens)
    assert inputs.shape == (2, 38, 3)
    start = 0
    for index, scale in enumerate(quantizer.scales[1:], 1):
        seen = sum(size * size for size in quantizer.scales[:index])
        so_far = quantizer.partial_maps(tokens[:, :seen])[-1]
        step = quantizer.next_input(so_far, index)
        assert torch.equal(step, inputs[:, start : start + scale * scale])
        start += scale * scale
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 19  # from the third scale on
    assert torch.equal(quantizer.teacher_forcing(changed)[:, : 4 + 9], inputs[:, : 4 + 9])


@pytest.mark.parametrize(
    ('scales', 'count', 'expected'),
    [
        # VAR's published tokenizer: ticks at 3/36, 13/36, 23/36, 33/36. The third place, 8/36, and the eighth, 28/36, are as
        # far from one as from another: rounding decides, and has to do so as it does there
        (10, 4, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        (4, 4, [0, 1, 2, 3]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (3, 1, [0, 0, 0]),
        (1, 4, [0]),
    ],
)
def test_convolutions_of_the_scales(scales, count, expected):
    assert nearest_ticks(scales, count) == expected


@pytest.mark.parametrize('scales', range(1, 20))
def test_no_convolution_is_idle_where_each_scale_has_one_or_four_are_shared(scales):
    for count in {1, min(scales, 4), scales}:
        assert set(nearest_ticks(scales, count)) == set(range(count))


@pytest.mark.slow
def test_leaving_the_meta_device_and_state():
    with torch.device('meta'):
        late = build(quantizer=INNERS['ema'])
        assert late(torch.zeros(1, 5, 5, 3)).z.is_meta
    late.to_empty(device='cpu')
    late.reset_parameters()
    assert all(value.isfinite().all() for value in late.state_dict().values())
    early = build(quantizer=INNERS['ema'])
    late.load_state_dict(early.state_dict())
    features = torch.randn(2, 5, 5, 3)
    twin = copy.deepcopy(early)
    for quantizer in (early, late, twin):
        quantizer.train()(features)
        quantizer.update()
    for key, value in early.state_dict().items():
        assert torch.equal(value, late.state_dict()[key])
        assert torch.equal(value, twin.state_dict()[key])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scales=()), 'scales'),
        (dict(scales=(1, 2, 2)), 'scales'),
        (dict(convolutions=0), 'convolutions'),
        (dict(convolutions=5), 'of 5 convolutions for 4 scales, 1 would never be used'),
        (dict(quantizer=dict(type='ResidualQuantizer', quantizer=INNER, stages=2)), 'several tokens per cell'),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(**options)
    assert caught.value.hint


def test_maps_and_tokens_of_another_size():
    quantizer = build()
    for shape in ((2, 4, 5, 3), (2, 5, 4, 3), (5, 3)):
        with pytest.raises(UserError, match='features'):
            quantizer(torch.zeros(shape))
    with pytest.raises(ConfigError, match='need maps of 5 x 5'):
        quantizer.token_spec((8, 8))
    for count in (0, 3, 40):
        with pytest.raises(UserError, match='not a whole number of the scales'):
            quantizer.lookup(torch.zeros(1, count, dtype=torch.int64))
