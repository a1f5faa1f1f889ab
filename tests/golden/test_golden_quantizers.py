"""Quantizers and codebook updates reproduce the figures of the original projects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vq.quantizers.finite_scalar import FiniteScalarQuantizer
from vq.quantizers.updates.cvq import CVQUpdate
from vq.quantizers.updates.ema import EMAUpdate
from vq.quantizers.updates.vqkd import VQKDUpdate
from vq.quantizers.vector import VectorQuantizer

CLOSE = dict(rtol=1e-5, atol=1e-6)
GRADIENT = dict(rtol=1e-3, atol=1e-6)


def quantizer_with(codebook: Tensor, **options) -> VectorQuantizer:
    quantizer = VectorQuantizer(*codebook.shape, **options)
    with torch.no_grad():
        quantizer.codebook.weight.copy_(codebook)
    if quantizer.codebook_update is not None:
        quantizer.codebook_update.reset(codebook)
    return quantizer.train()


def weighted(quantizer: VectorQuantizer, losses: dict[str, Tensor]) -> Tensor:
    return sum(quantizer.loss_weights[name] * value for name, value in losses.items())


def test_reference_vqgan_quantizer(golden):
    peer = golden('vq_reference_vqgan_quantizer')
    quantizer = quantizer_with(peer['in/codebook'])
    x = peer['in/x'][0].requires_grad_()
    quantized = quantizer(x)
    loss = weighted(quantizer, quantized.losses)
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantized.z, peer['out/output'], **CLOSE)
    torch.testing.assert_close(loss, peer['out/loss'], **CLOSE)
    grad_x, grad_codes = torch.autograd.grad(loss, [x, quantizer.codebook.weight])
    torch.testing.assert_close(grad_x, peer['out/grad_x_of_loss'], **GRADIENT)
    torch.testing.assert_close(grad_codes, peer['out/grad_codebook_of_loss'], **GRADIENT)
    quantizer.eval()
    assert torch.equal(quantizer(x).tokens, peer['out/eval_indices'])
    torch.testing.assert_close(quantizer.lookup(peer['out/eval_indices']), peer['out/eval_output'], **CLOSE)


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('vq_reference_cvqvae', dict(update=lambda: CVQUpdate(in_forward=True))),
        (
            'vq_reference_vqkd_quantizer',
            dict(update=lambda: VQKDUpdate(in_forward=True), normalize=True, commitment_weight=1.0),
        ),
    ],
)
def test_reference_updates_inside_forward(golden, name, options):
    """Three steps; values, loss and gradients use the codes after the update."""
    peer = golden(name)
    quantizer = quantizer_with(peer['in/codebook'], **{**options, 'update': options['update']()})
    assert quantizer.updates_in_forward
    for step, features in enumerate(peer['in/x'], start=1):
        x = features.clone().requires_grad_()
        quantized = quantizer(x)
        loss = weighted(quantizer, quantized.losses)
        (grad,) = torch.autograd.grad(loss, x)
        quantizer.update()  # nothing is left for it to do
        assert torch.equal(quantized.tokens, peer[f'out/step{step}_indices'])
        torch.testing.assert_close(quantizer.codebook.weight.detach(), peer[f'out/step{step}_codebook'], **CLOSE)
        torch.testing.assert_close(quantized.z, peer[f'out/step{step}_output'], **CLOSE)
        torch.testing.assert_close(loss, peer[f'out/step{step}_loss'], **CLOSE)
        torch.testing.assert_close(grad, peer[f'out/step{step}_grad_x_of_loss'], **GRADIENT)
        if name == 'vq_reference_cvqvae':
            torch.testing.assert_close(quantizer.codebook_update.probability, peer[f'out/step{step}_probability'], **CLOSE)
    quantized = quantizer.eval()(peer['in/x'][0])
    assert torch.equal(quantized.tokens, peer['out/eval_indices'])
    torch.testing.assert_close(quantized.z, peer['out/eval_output'], **CLOSE)


@pytest.mark.parametrize('name', ['ema_vq_3steps', 'ema_vq_3steps_decay99', 'ema_vq_cosine_3steps'])
def test_vector_quantize_pytorch_ema(golden, name):
    """Values of a step use the codes before its update; counts start at 1, sums at the first codes."""
    peer = golden(name)
    cosine = peer.meta['use_cosine_sim']
    update = EMAUpdate(decay=peer.meta['decay'], eps=peer.meta['eps'])
    quantizer = quantizer_with(peer['in/codebook'], normalize=cosine, update=update)
    for step, features in enumerate(peer['in/x'], start=1):
        quantized = quantizer(features)
        assert torch.equal(quantized.tokens, peer[f'out/step{step}_indices'])
        torch.testing.assert_close(quantized.z, peer[f'out/step{step}_quantized'], **CLOSE)
        torch.testing.assert_close(quantized.losses['commitment'], peer[f'out/step{step}_commit_loss'], **CLOSE)
        assert set(quantized.losses) == {'commitment'}
        quantizer.update()
        torch.testing.assert_close(update.count, peer[f'out/step{step}_cluster_size'], **CLOSE)
        torch.testing.assert_close(update.sums, peer[f'out/step{step}_embed_avg'], **CLOSE)
        torch.testing.assert_close(quantizer.codebook.weight, peer[f'out/step{step}_codebook'], **CLOSE)
    quantized = quantizer.eval()(peer['in/x'][0])
    assert torch.equal(quantized.tokens, peer['out/eval_indices'])
    torch.testing.assert_close(quantized.z, peer['out/eval_quantized'], **CLOSE)


def test_serezd_standard_quantizer(golden):
    peer = golden('serezd_vq_standard')
    quantizer = quantizer_with(peer['in/codebook'])
    x = peer['in/x'][0].permute(0, 2, 3, 1).requires_grad_()  # (B, h, w, C)
    quantized = quantizer(x)
    loss = weighted(quantizer, quantized.losses)
    assert torch.equal(quantized.tokens.flatten(1), peer['out/indices'])
    torch.testing.assert_close(quantized.z.permute(0, 3, 1, 2), peer['out/quantized'], **CLOSE)
    torch.testing.assert_close(loss, peer['out/loss'], **CLOSE)
    grad_x, grad_codes = torch.autograd.grad(loss, [x, quantizer.codebook.weight])
    torch.testing.assert_close(grad_x.permute(0, 3, 1, 2), peer['out/grad_x_of_loss'], **GRADIENT)
    torch.testing.assert_close(grad_codes, peer['out/grad_codebook_of_loss'], **GRADIENT)
    (straight,) = torch.autograd.grad((quantizer(x).z * peer['in/cotangent'].permute(0, 2, 3, 1)).sum(), x)
    torch.testing.assert_close(straight.permute(0, 3, 1, 2), peer['out/grad_x_of_output'], **GRADIENT)
    assert torch.equal(quantizer.eval()(x).tokens.flatten(1), peer['out/eval_codes'])
    torch.testing.assert_close(quantizer.lookup(peer['out/eval_codes']), peer['out/codes_to_vec'], **CLOSE)


@pytest.mark.parametrize('name', ['vq_reference_fsq_88555', 'vq_reference_fsq_888555', 'fsq_8555', 'fsq_888555'])
def test_finite_scalar(golden, name):
    """The reference bounds below the last level, vector-quantize-pytorch above it."""
    peer = golden(name)
    ours = name.startswith('vq_reference')
    quantizer = FiniteScalarQuantizer(peer.meta['levels'], bound='inner' if ours else 'outer')
    z = peer['in/x' if ours else 'in/z']
    x = (z if ours else z.permute(0, 2, 3, 1)).clone().requires_grad_()
    quantized = quantizer(x)

    def channels_last(value: Tensor) -> Tensor:
        return value if ours else value.permute(0, 2, 3, 1)

    assert torch.equal(quantized.tokens, peer['out/indices'].long())
    torch.testing.assert_close(quantized.z, channels_last(peer['out/codes']), **CLOSE)
    (grad,) = torch.autograd.grad((quantized.z * channels_last(peer['in/cotangent'])).sum(), x)
    torch.testing.assert_close(grad, channels_last(peer['out/grad_x' if ours else 'out/grad_z']), **GRADIENT)
    torch.testing.assert_close(quantizer.lookup(peer['out/sample_indices']), peer['out/sample_codes'], **CLOSE)
    if not ours:
        torch.testing.assert_close(quantizer.bounded(x), channels_last(peer['out/bounded']), **CLOSE)
