"""CVQ's anchors: sampled with the right probability, for any tiling of the batch; and the contrastive loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.quantizers.measuring import largest_tensor
from vq.quantizers.contrastive import ContrastiveLoss
from vq.quantizers.updates.anchors import draw_anchors
from vq.quantizers.updates.cvq import CVQUpdate
from vq.quantizers.updates.draw import gumbel_noise
from vq.quantizers.vector import VectorQuantizer

BUDGET = 2**20


def similarities(features, codebook, cosine):
    if cosine:
        return F.normalize(codebook.double(), dim=1) @ F.normalize(features.double(), dim=1).t()
    return -(codebook.double()[:, None] - features.double()).square().sum(2)  # (K, N)


@pytest.mark.slow
@pytest.mark.parametrize('cosine', [False, True])
def test_features_are_drawn_with_the_softmax_over_all_of_them(cosine):
    """1500 draws per code against its probabilities: the chi-square of each code is within six sigma."""
    torch.manual_seed(0)
    features, codebook, draws = torch.randn(12, 3), torch.randn(7, 3), 1500
    p = torch.softmax(similarities(features, codebook, cosine), dim=1)
    places, counts = torch.arange(12) + 1000, torch.zeros(7, 12, dtype=torch.float64)
    for number in range(draws):
        index, _ = draw_anchors(features, codebook, places, 5, torch.tensor(number), cosine, BUDGET)
        counts[torch.arange(7), index] += 1
    chi_square = ((counts - draws * p).square() / (draws * p)).sum(1)
    assert (chi_square < 11 + 6 * 22**0.5).all(), chi_square


def test_the_draw_does_not_depend_on_tiles():
    features, codebook = torch.randn(301, 4), torch.randn(67, 4)
    arguments = (features, codebook, torch.arange(301), 3, torch.tensor(2), False)
    index, score = draw_anchors(*arguments, 2**28)
    for budget in (1, 1000, 100_000):
        again, value = draw_anchors(*arguments, budget)
        assert torch.equal(again, index)
        torch.testing.assert_close(value, score)


@pytest.mark.slow
def test_the_draw_keeps_no_matrix():
    features, codebook = torch.randn(2000, 4), torch.randn(1500, 4)
    with largest_tensor() as seen:
        draw_anchors(features, codebook, torch.arange(2000), 0, torch.tensor(0), False, BUDGET)
    assert seen.bytes <= BUDGET < features.shape[0] * codebook.shape[0] * 4


def test_noise_is_independent_gumbel():
    noise = gumbel_noise(torch.arange(5000, 7000), torch.arange(400), 3, torch.tensor(4)).double()
    assert noise.mean().item() == pytest.approx(0.577216, abs=0.01)
    assert noise.var().item() == pytest.approx(1.644934, abs=0.02)
    even = torch.exp(-torch.exp(-noise))
    for table in (even, even.t()):  # draws of different codes, and at different places, are independent
        correlation = torch.corrcoef(table)
        size = len(correlation)
        assert correlation[~torch.eye(size, dtype=torch.bool)].abs().max() < 6 * table.shape[1] ** -0.5
    other = gumbel_noise(torch.arange(5000, 7000), torch.arange(400), 3, torch.tensor(5)).double()
    assert torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1].abs() < 0.01


def test_steps_draw_different_anchors_and_one_feature_is_enough():
    quantizer = VectorQuantizer(30, 2, init='normal', update=CVQUpdate(anchor='multinomial')).train()
    seen = set()
    for _ in range(4):
        quantizer(torch.arange(40.0)[:, None].expand(40, 2) / 40)
        anchors, _ = quantizer.codebook_update.anchors.collect(torch.zeros(30))
        seen.add(tuple(anchors[:, 0].tolist()))
        quantizer.update()
    assert len(seen) == 4
    quantizer(torch.ones(1, 2))
    anchors, _ = quantizer.codebook_update.anchors.collect(torch.zeros(30))
    assert torch.equal(anchors, torch.ones(30, 2))


def test_cached_anchors_are_different_features_and_stay_where_there_are_too_few():
    quantizer = VectorQuantizer(9, 2, init='normal', update=CVQUpdate(anchor='cached')).train()
    anchors = quantizer.codebook_update.anchors
    start = quantizer.codebook.weight.detach().clone()
    few = torch.randn(4, 2)
    quantizer(few)
    quantizer.update()
    fresh = torch.tensor([bool((few == row).all(1).any()) for row in anchors.cache])
    assert fresh.sum() == 4 and len(anchors.cache[fresh].unique(dim=0)) == 4
    assert torch.equal(anchors.cache[~fresh], start[~fresh])
    many = torch.randn(50, 2)
    quantizer(many)
    quantizer.update()
    assert all((many == row).all(1).any() for row in anchors.cache)
    assert len(anchors.cache.unique(dim=0)) == 9
    before = anchors.cache.clone()
    quantizer(torch.randn(50, 2))
    quantizer.update(torch.tensor(False))
    assert torch.equal(anchors.cache, before)


def test_fewer_features_than_codes_reach_every_code_in_time():
    quantizer = VectorQuantizer(12, 2, init='normal', update=CVQUpdate(anchor='cached')).train()
    anchors, start = quantizer.codebook_update.anchors, quantizer.codebook.weight.detach().clone()
    for _ in range(30):
        quantizer(torch.randn(3, 2))
        quantizer.update()
    assert (anchors.cache != start).any(1).all()


def textbook(features, codebook, cosine, temperature):
    scores, _ = similarities(features, codebook, cosine).sort(dim=1)
    positives = max(1, len(features) // len(codebook))
    logits = torch.cat([scores[:, -positives:].mean(1, keepdim=True), scores[:, : len(features) // 2]], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(codebook), dtype=torch.int64))


@pytest.mark.parametrize('budget', [1, 3000, None])
@pytest.mark.parametrize('metric', ['l2', 'cosine'])
@pytest.mark.parametrize(('rows', 'codes'), [(31, 7), (7, 31), (1, 3), (64, 8)])
def test_contrastive_against_the_whole_matrix(metric, rows, codes, budget):
    """Value and gradient of the codes in float64; features have no gradient."""
    torch.manual_seed(0)
    x, codebook = torch.randn(rows, 5) + 3, (torch.randn(codes, 5) + 3).requires_grad_()
    x.requires_grad_()
    reference = codebook.detach().double().requires_grad_()
    ours = ContrastiveLoss(temperature=0.6).of(x, codebook, metric, budget)
    theirs = textbook(x.detach(), reference, metric == 'cosine', 0.6)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    at_features, gradient = torch.autograd.grad(2 * ours, [x, codebook], allow_unused=True)
    assert at_features is None
    (expected,) = torch.autograd.grad(2 * theirs, reference)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-5 * max(expected.abs().max().item(), 1e-3))


@pytest.mark.slow
def test_contrastive_memory_is_the_budget():
    x, codebook = torch.randn(1000, 4), torch.randn(3000, 4, requires_grad=True)
    with largest_tensor() as seen:
        ContrastiveLoss().of(x, codebook, 'l2', BUDGET).backward()
    assert seen.bytes <= BUDGET < 1000 * 3000 * 4


def test_contrastive_is_a_loss_of_training_only_and_of_the_codes_before_an_update():
    losses = []
    for in_forward in (False, True):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(
            6, 3, distance='cosine', init='normal', update=CVQUpdate(in_forward=in_forward), contrastive=ContrastiveLoss(0.5)
        ).train()
        assert quantizer.loss_weights['contrastive'] == 0.5
        quantized = quantizer(torch.randn(20, 3))
        losses.append(quantized.losses['contrastive'])
        losses[-1].backward()
        assert quantizer.codebook.weight.grad.abs().sum() > 0
    assert torch.equal(*losses)
    assert 'contrastive' not in quantizer.eval()(torch.randn(20, 3)).losses
