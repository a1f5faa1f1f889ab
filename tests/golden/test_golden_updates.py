"""Codebook updates and their losses reproduce the figures of the original projects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.golden.test_golden_quantizers import CLOSE, GRADIENT, quantizer_with, weighted
from vq.quantizers.contrastive import ContrastiveLoss
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.finite_scalar import FiniteScalarQuantizer
from vq.quantizers.updates import anchors
from vq.quantizers.updates.cvq import CVQUpdate
from vq.quantizers.updates.ema import EMAUpdate
from vq.quantizers.updates.vqkd import VQKDUpdate


def channels_last(image: Tensor) -> Tensor:
    return image.movedim(1, -1)


@pytest.mark.parametrize('name', ['cvq_l2_closest', 'cvq_cos_closest_contrastive', 'cvq_l2_probrandom_contrastive'])
def test_cvq(golden, name, monkeypatch):
    """Values, losses and gradients use the codes before the update. The contrastive term has no gradient at features."""
    peer = golden(name)
    update = CVQUpdate(decay=peer.meta['decay'], anchor='nearest' if peer.meta['anchor'] == 'closest' else 'multinomial')
    quantizer = quantizer_with(
        peer['in/codebook'],
        distance='cosine' if peer.meta['distance'] == 'cos' else 'l2',
        commitment_weight=peer.meta['beta'],
        update=update,
        contrastive=ContrastiveLoss() if peer.meta['contras_loss'] else None,
    )
    for step, features in enumerate(peer['in/z'], start=1):
        z = channels_last(features).clone().requires_grad_()
        if update.anchor == 'multinomial':
            rows, table = z.detach().reshape(-1, z.shape[-1]), quantizer.codebook.weight.detach()
            x, c, b = anchors.similarity(rows, table, False)
            probability = torch.softmax(c @ x.t() + b, dim=1)
            torch.testing.assert_close(probability, peer[f'out/step{step}_anchor_probabilities'], rtol=1e-5, atol=3e-6)
            drawn = torch.zeros_like(probability).scatter_(1, peer[f'in/step{step}_anchor_rows'][:, None], 1e6)
            monkeypatch.setattr(
                anchors, 'gumbel_noise', lambda places, codes, *_, drawn=drawn: drawn[codes][:, places]
            )  # noise that reproduces the peer's draws
        quantized = quantizer(z)
        loss = weighted(quantizer, quantized.losses)
        (grad,) = torch.autograd.grad(loss, z)
        quantizer.update()
        assert torch.equal(quantized.tokens, peer[f'out/step{step}_indices'])
        torch.testing.assert_close(quantized.z, channels_last(peer[f'out/step{step}_quantized']), **CLOSE)
        torch.testing.assert_close(loss, peer[f'out/step{step}_loss'], **CLOSE)
        torch.testing.assert_close(grad, channels_last(peer[f'out/step{step}_grad_z']), **GRADIENT)
        torch.testing.assert_close(quantizer.codebook.weight.detach(), peer[f'out/step{step}_codebook'], **CLOSE)
        torch.testing.assert_close(update.probability, peer[f'out/step{step}_embed_prob'], **CLOSE)
        contrastive = quantized.losses.get('contrastive', torch.zeros(()))
        torch.testing.assert_close(loss - contrastive, peer[f'out/step{step}_vq_loss_only'], **CLOSE)
        if quantizer.contrastive:
            torch.testing.assert_close(contrastive, peer[f'out/step{step}_contrastive_only'], rtol=1e-5, atol=1e-6)
    quantized = quantizer.eval()(channels_last(peer['in/z'][0]))
    # two codes that moved to one feature twice are 1e-7 apart: either is nearest
    torch.testing.assert_close(quantized.z, quantizer.lookup(peer['out/eval_indices']), rtol=0, atol=1e-6)
    assert (quantized.tokens != peer['out/eval_indices']).sum() <= (2 if update.anchor == 'multinomial' else 0)
    torch.testing.assert_close(weighted(quantizer, quantized.losses), peer['out/eval_loss'], **CLOSE)


def test_beit2_norm_ema(golden):
    """Values of a step use the codes before its update. The peer also counts in evaluation; no other figure depends on it."""
    peer = golden('beit2_norm_ema')
    update = VQKDUpdate(decay=peer.meta['decay'])
    quantizer = quantizer_with(peer['in/codebook'], normalize=True, commitment_weight=peer.meta['beta'], update=update)
    for step, features in enumerate(peer['in/z'], start=1):
        z = channels_last(features).clone().requires_grad_()
        quantized = quantizer(z)
        loss = weighted(quantizer, quantized.losses)
        (grad,) = torch.autograd.grad(loss, z)
        quantizer.update()
        assert torch.equal(quantized.tokens, peer[f'out/step{step}_indices'])
        torch.testing.assert_close(quantized.z, channels_last(peer[f'out/step{step}_quantized']), **CLOSE)
        torch.testing.assert_close(loss, peer[f'out/step{step}_loss'], **CLOSE)
        torch.testing.assert_close(grad, channels_last(peer[f'out/step{step}_grad_z']), **GRADIENT)
        torch.testing.assert_close(quantizer.codebook.weight, peer[f'out/step{step}_codebook'], **CLOSE)
        torch.testing.assert_close(update.count, peer[f'out/step{step}_cluster_size'], **CLOSE)
    quantized = quantizer.eval()(channels_last(peer['in/z'][0]))
    assert torch.equal(quantized.tokens, peer['out/eval_indices'])
    torch.testing.assert_close(quantized.z, channels_last(peer['out/eval_quantized']), **CLOSE)
    counted = torch.bincount(quantized.tokens.flatten(), minlength=len(update.count))
    torch.testing.assert_close(update.count * 0.99 + counted * 0.01, peer['out/eval_cluster_size'], **CLOSE)


def test_serezd_ema(golden):
    """Smoothing with the number of images, and values before the update."""
    peer = golden('serezd_vq_ema')
    update = EMAUpdate(decay=peer.meta['decay'], eps=peer.meta['epsilon'], smoothing='images')
    quantizer = quantizer_with(peer['in/codebook'], commitment_weight=peer.meta['commitment_cost'], update=update)
    update.count.copy_(peer['in/ema_count'])
    update.sums.copy_(peer['in/ema_weight'])
    cotangent = channels_last(peer['in/cotangent'])
    for step, features in enumerate(peer['in/x'], start=1):
        x = channels_last(features).clone().requires_grad_()
        quantized = quantizer(x)
        loss = weighted(quantizer, quantized.losses)
        (grad,) = torch.autograd.grad(loss, x, retain_graph=True)
        (straight,) = torch.autograd.grad((quantized.z * cotangent).sum(), x)
        quantizer.update()
        assert torch.equal(quantized.tokens.flatten(1), peer[f'out/step{step}_indices'])
        torch.testing.assert_close(quantized.z, channels_last(peer[f'out/step{step}_quantized']), **CLOSE)
        torch.testing.assert_close(loss, peer[f'out/step{step}_loss'], **CLOSE)
        torch.testing.assert_close(grad, channels_last(peer[f'out/step{step}_grad_x_of_loss']), **GRADIENT)
        torch.testing.assert_close(straight, channels_last(peer[f'out/step{step}_grad_x_of_output']), **GRADIENT)
        torch.testing.assert_close(quantizer.codebook.weight, peer[f'out/step{step}_codebook'], **CLOSE)
        torch.testing.assert_close(update.count, peer[f'out/step{step}_ema_count'], **CLOSE)
        torch.testing.assert_close(update.sums, peer[f'out/step{step}_ema_weight'], **CLOSE)
    assert torch.equal(quantizer.eval()(channels_last(peer['in/x'][0])).tokens.flatten(1), peer['out/eval_codes'])
    torch.testing.assert_close(quantizer.lookup(peer['out/eval_codes']), peer['out/codes_to_vec'], **CLOSE)


@pytest.mark.parametrize('name', ['serezd_vq_entropy_argmax', 'serezd_vq_entropy_softmax'])
def test_serezd_entropy(golden, name):
    peer = golden(name)
    target = 'argmax' if peer.meta['ent_loss_type'] == 'argmax' else 'soft'
    entropy = EntropyLoss(peer.meta['ent_loss_ratio'], peer.meta['ent_temperature'], target=target)
    quantizer = quantizer_with(peer['in/codebook'], commitment_weight=peer.meta['commitment_cost'], entropy=entropy)
    x = channels_last(peer['in/x'][0]).clone().requires_grad_()
    quantized = quantizer(x)
    loss = weighted(quantizer, quantized.losses)
    assert torch.equal(quantized.tokens.flatten(1), peer['out/indices'])
    torch.testing.assert_close(quantized.z, channels_last(peer['out/quantized']), **CLOSE)
    torch.testing.assert_close(loss, peer['out/loss'], **CLOSE)
    grads = torch.autograd.grad(loss, [x, quantizer.codebook.weight], retain_graph=True)
    for grad, key in zip(grads, ('out/grad_x_of_loss', 'out/grad_codebook_of_loss'), strict=True):
        expected = channels_last(peer[key]) if peer[key].ndim == 4 else peer[key]
        torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())
    (straight,) = torch.autograd.grad((quantized.z * channels_last(peer['in/cotangent'])).sum(), x)
    torch.testing.assert_close(straight, channels_last(peer['out/grad_x_of_output']), **GRADIENT)
    assert torch.equal(quantizer.eval()(x).tokens.flatten(1), peer['out/eval_codes'])
    torch.testing.assert_close(quantizer.lookup(peer['out/eval_codes']), peer['out/codes_to_vec'], **CLOSE)


def test_symmetric_finite_scalar(golden):
    peer = golden('fsq_symmetric_7444')
    quantizer = FiniteScalarQuantizer(peer.meta['levels'], bound='symmetric')
    assert quantizer.codebook_size == peer.meta['codebook_size']
    assert torch.equal(quantizer.basis, peer['out/basis'].long())
    z = channels_last(peer['in/z']).clone().requires_grad_()
    quantized = quantizer(z)
    assert torch.equal(quantized.tokens, peer['out/indices'].long())
    torch.testing.assert_close(quantized.z, channels_last(peer['out/codes']), **CLOSE)
    (grad,) = torch.autograd.grad((quantized.z * channels_last(peer['in/cotangent'])).sum(), z)
    torch.testing.assert_close(grad, channels_last(peer['out/grad_z']), **GRADIENT)
    torch.testing.assert_close(quantizer.lookup(quantized.tokens), channels_last(peer['out/codes_from_indices']), **CLOSE)
    torch.testing.assert_close(quantizer.lookup(peer['out/sample_indices']), peer['out/sample_codes'], **CLOSE)
