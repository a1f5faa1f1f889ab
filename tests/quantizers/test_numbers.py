"""Edges of numerics: features of zeros, codes that are never used, empty batches, wrong widths, tokens out of range."""

from __future__ import annotations

import pytest
import torch

from vq.core.errors import ConfigError
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.finite_scalar import FiniteScalarQuantizer
from vq.quantizers.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer
from vq.quantizers.updates.ema import EMAUpdate
from vq.quantizers.updates.restart import Restart
from vq.quantizers.vector import VectorQuantizer


@pytest.mark.parametrize('options', [dict(normalize=True), dict(distance='cosine')])
@pytest.mark.parametrize('gradient', ['straight_through', 'rotation'])
def test_a_feature_of_zeros_gets_a_finite_gradient_with_an_entropy_term(options, gradient):
    """It has no direction: its gradient is that of the other terms. Other features are normalised once, and keep theirs."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(11, 3, init='normal', gradient=gradient, entropy=EntropyLoss(), **options).train()
    features = torch.randn(7, 3)
    features[2] = 0
    gradients = []
    for rows in (features, features[[0, 1, 3, 4, 5, 6]]):
        rows.requires_grad_()
        quantized = quantizer(rows)
        (quantized.losses['entropy'] + quantized.z.square().sum()).backward()
        gradients.append(rows.grad)
    assert gradients[0].isfinite().all()
    assert gradients[0].abs().max() < 1e8  # the rotation trick divides by at least 1e-6
    assert (gradients[1].abs().sum(1) > 0).all()


def test_normalized_features_are_not_normalized_again_for_the_entropy():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(11, 3, normalize=True, entropy=EntropyLoss(temperature=0.3)).train()
    features = torch.randn(40, 3)
    unit = torch.nn.functional.normalize(features, dim=1)
    codes = torch.nn.functional.normalize(quantizer.codebook.weight, dim=1)
    expected = EntropyLoss(temperature=0.3).of_distances(unit, codes)
    assert torch.equal(quantizer(features).losses['entropy'], expected)


@pytest.mark.slow
@pytest.mark.parametrize(('options', 'steps'), [(dict(normalize=True), 1000), (dict(distance='cosine'), 400)])
def test_unused_codes_of_cosine_ema_keep_their_unit_length(options, steps):
    """With decay 0.9, 400 steps are 4,200 with 0.99, and 1,000 are 10,500. The direction stays too."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(6, 3, init='normal', update=EMAUpdate(decay=0.9), **options).train()
    with torch.no_grad():
        quantizer.codebook.weight[:5, 0] = -quantizer.codebook.weight[:5, 0].abs() - 1
        quantizer.codebook.weight[5] = torch.tensor([1.0, 0.1, 0.1])
        quantizer.codebook_update.reset(quantizer.codebook.weight)
    start = torch.nn.functional.normalize(quantizer.codebook.weight, dim=1)
    update, feature = quantizer.codebook_update, torch.tensor([[1.0, 0.0, 0.0]])
    for _ in range(steps):  # every feature has the last code
        update.observe(feature, torch.tensor([5]), quantizer.codebook.weight, 1)
        update.update(quantizer.codebook.weight, None)
    codes = quantizer.codebook.weight
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(6), rtol=1e-6, atol=0)
    torch.testing.assert_close(codes[:5], start[:5], rtol=1e-5, atol=1e-6)
    update.observe(-feature.expand(20, 3), torch.zeros(20, dtype=torch.int64), codes, 1)
    update.update(codes, None)  # used again: the direction of its features
    torch.testing.assert_close(codes[0], torch.tensor([-1.0, 0.0, 0.0]), rtol=0, atol=1e-4)


def test_restarted_codes_of_cosine_ema_have_unit_length():
    torch.manual_seed(0)
    update = EMAUpdate(decay=0.5, restart=Restart(threshold=0.9, candidates=8))
    quantizer = VectorQuantizer(16, 3, distance='cosine', init='normal', update=update).train()
    for _ in range(6):
        quantizer(torch.randn(50, 3) * 10 + 20)
        quantizer.update()
        torch.testing.assert_close(quantizer.codebook.weight.norm(dim=1), torch.ones(16), rtol=1e-6, atol=0)


def test_every_update_accepts_an_empty_batch(updated, make):
    """An empty forward changes nothing, alone or beside another one of the step."""
    alone, mixed, plain = (make(updated).train() for _ in range(3))
    before = alone.codebook.weight.detach().clone()
    assert alone(torch.empty(0, 5)).tokens.shape == (0,)
    alone.update()
    assert torch.equal(alone.codebook.weight, before)
    features = torch.randn(40, 5)
    for quantizer in (mixed, plain):
        if quantizer is mixed:
            quantizer(torch.empty(0, 5))
        quantizer(features)
        quantizer.update()
    if updated != 'ema_images':  # its first axis counts images
        assert torch.equal(mixed.codebook.weight, plain.codebook.weight)


WITHOUT_TABLES = [
    (FiniteScalarQuantizer([5, 4, 3]), 60),
    (FiniteScalarQuantizer([5, 4, 3], bound='symmetric'), 60),
    (LookupFreeQuantizer(3), 8),
    (LookupFreeQuantizer(3, bit_order='first_highest'), 8),
    (BinarySphericalQuantizer(3), 8),
]


@pytest.mark.parametrize(('quantizer', 'codes'), WITHOUT_TABLES)
@pytest.mark.parametrize('shape', [(7, 1), (2, 7, 4), (7, 6), ()])
def test_features_of_the_wrong_width_are_refused(quantizer, codes, shape):
    """One channel would be broadcast to all."""
    with pytest.raises(ConfigError, match='quantizes 3 channels') as caught:
        quantizer(torch.zeros(shape))
    assert caught.value.hint


@pytest.mark.parametrize(('quantizer', 'codes'), WITHOUT_TABLES)
def test_tokens_out_of_range_are_refused(quantizer, codes):
    assert quantizer.lookup(torch.empty(0, 2, dtype=torch.int64)).shape == (0, 2, 3)
    assert quantizer.lookup(torch.arange(codes)).shape == (codes, 3)
    for token in (-1, codes, codes + 3, 2**40):
        with pytest.raises(ConfigError, match=f'the tokens 0 to {codes - 1}'):
            quantizer.lookup(torch.tensor([[0, 1], [token, 2]]))


def test_tokens_on_other_devices_are_not_read():
    assert FiniteScalarQuantizer([5, 4, 3]).to('meta').lookup(torch.empty(4, dtype=torch.int64, device='meta')).shape == (4, 3)
