"""Sign quantizers, SimVQ, the rotation trick and entropy losses reproduce the figures of the original projects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.golden.test_golden_quantizers import CLOSE, GRADIENT, quantizer_with, weighted
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.gradients import rotation
from vq.quantizers.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer
from vq.quantizers.sim_vq import SimVectorQuantizer
from vq.quantizers.vector import VectorQuantizer


def channels_last(image: Tensor) -> Tensor:
    return image.movedim(1, -1)


def parts_of(entropy: EntropyLoss, features: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """The two terms (per sample, of the mean), whose difference is the loss."""
    rows = features.reshape(-1, features.shape[-1])
    certainty = EntropyLoss(temperature=entropy.temperature, floor=entropy.floor, diversity=0).of_signs(rows, length)
    return certainty, certainty - EntropyLoss(temperature=entropy.temperature, floor=entropy.floor).of_signs(rows, length)


@pytest.mark.parametrize(('name', 'kind'), [('lfq_8bit', LookupFreeQuantizer), ('lfq_bsq_8bit', BinarySphericalQuantizer)])
def test_vector_quantize_pytorch_signs(golden, name, kind):
    peer = golden(name)
    entropy = EntropyLoss(peer.meta['entropy_loss_weight'], 1 / peer.meta['inv_temperature'], floor='clamp')
    quantizer = kind(8, peer.meta['commitment_loss_weight'], entropy, entropy_group=None, bit_order='first_highest').train()
    z = channels_last(peer['in/z']).requires_grad_()
    quantized = quantizer(z)
    loss = weighted(quantizer, quantized.losses)
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantized.z, channels_last(peer['out/train_quantized']), **CLOSE)
    torch.testing.assert_close(quantized.losses['commitment'], peer['out/commitment'], **CLOSE)
    torch.testing.assert_close(loss, peer['out/train_aux_loss'], **CLOSE)
    (grad,) = torch.autograd.grad(loss, z, retain_graph=True)
    expected = channels_last(peer['out/grad_z_of_aux_loss'])
    torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())
    (straight,) = torch.autograd.grad((quantized.z * channels_last(peer['in/cotangent'])).sum(), z)
    torch.testing.assert_close(straight, channels_last(peer['out/grad_z_of_straight_through']), **GRADIENT)
    torch.testing.assert_close(quantizer.lookup(peer['out/indices']), channels_last(peer['out/codes_from_indices']), **CLOSE)
    torch.testing.assert_close(quantizer.eval()(z).z, channels_last(peer['out/eval_quantized']), **CLOSE)
    for inverse, suffix in ((100.0, ''), (10.0, '_invtemp10.0'), (1.0, '_invtemp1.0')):
        settings = EntropyLoss(temperature=1 / inverse, floor='clamp')
        certainty, diversity = parts_of(settings, quantizer.prepared(z), quantizer.length)
        torch.testing.assert_close(certainty, peer[f'out/per_sample_entropy{suffix}'], **CLOSE)
        torch.testing.assert_close(diversity, peer[f'out/batch_entropy{suffix}'], **CLOSE)


def test_open_magvit2_signs(golden):
    """The other bit order, and 1e-5 added to probabilities."""
    peer = golden('open_magvit2_lfq')
    entropy = EntropyLoss(1.0, peer.meta['entropy_temperature'])
    quantizer = LookupFreeQuantizer(8, 0.25, entropy).train()
    h = channels_last(peer['out/h']).requires_grad_()
    quantized = quantizer(h)
    assert torch.equal(quantized.tokens.flatten(), peer['out/indices'])
    torch.testing.assert_close(quantized.z, channels_last(peer['out/quantized']), **CLOSE)
    assert torch.equal(quantizer.lookup(peer['out/indices']).view(h.shape), channels_last(peer['out/quantized']))
    torch.testing.assert_close(quantized.losses['entropy'], peer['out/train_entropy_loss'], **CLOSE)
    torch.testing.assert_close(quantized.losses['commitment'], peer['out/commitment'], **CLOSE)
    certainty, diversity = parts_of(entropy, h, 1.0)
    torch.testing.assert_close(certainty, peer['out/per_sample_entropy'], **CLOSE)
    torch.testing.assert_close(diversity, peer['out/codebook_entropy'], **CLOSE)
    (grad,) = torch.autograd.grad(weighted(quantizer, quantized.losses), h)
    expected = channels_last(peer['out/grad_h_of_entropy_plus_quarter_commit'])
    torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_rotation_trick(golden):
    """Row 0 has parallel vectors, row 1 nearly opposite ones, where the rotation is ill-conditioned."""
    peer = golden('rotation_trick')
    e = peer['in/e'].requires_grad_()
    output = rotation(e, peer['in/q'])
    assert torch.equal(output, peer['in/q'])
    torch.testing.assert_close(output, peer['out/output'], rtol=1e-4, atol=1e-4)
    (grad,) = torch.autograd.grad((output * peer['in/cotangent']).sum(), e)
    expected = peer['out/grad_e']
    others = torch.arange(len(e)) != 1
    torch.testing.assert_close(grad[others], expected[others], **GRADIENT)
    torch.testing.assert_close(grad[1], expected[1], rtol=1e-2, atol=1e-2)


def test_simvq_of_the_paper(golden):
    peer = golden('simvq_paper')
    quantizer = SimVectorQuantizer(peer.meta['n_e'], peer.meta['e_dim'], commitment_weight=peer.meta['beta'])
    renamed = {'frozen.weight': 'embedding.weight'} | {
        f'projection.{key}': f'embedding_proj.{key}' for key in ('weight', 'bias')
    }
    quantizer.load_state_dict({ours: peer.state[theirs] for ours, theirs in renamed.items()})
    z = channels_last(peer['in/z']).requires_grad_()
    quantized = quantizer.train()(z)
    loss = weighted(quantizer, quantized.losses)
    assert torch.equal(quantized.tokens.flatten(), peer['out/indices'])
    torch.testing.assert_close(quantizer.codes(), peer['out/codebook'], **CLOSE)
    torch.testing.assert_close(quantized.z, channels_last(peer['out/quantized']), **CLOSE)
    torch.testing.assert_close(loss, peer['out/loss'], **CLOSE)
    grad_z, grad_weight = torch.autograd.grad(loss, [z, quantizer.projection.weight])
    torch.testing.assert_close(grad_z, channels_last(peer['out/grad_z']), **GRADIENT)
    torch.testing.assert_close(grad_weight, peer['out/grad_proj_weight'], **GRADIENT)


@pytest.mark.parametrize('name', ['simvq_straight_through', 'simvq_rotation'])
def test_vector_quantize_pytorch_simvq(golden, name):
    peer = golden(name)
    quantizer = SimVectorQuantizer(
        peer.meta['codebook_size'],
        peer.meta['dim'],
        bias=False,
        gradient='rotation' if peer.meta['rotation_trick'] else 'straight_through',
        commitment_weight=peer.meta['input_to_quantize_weight'],
    )
    quantizer.load_state_dict(
        {'frozen.weight': peer.state['frozen_codebook'], 'projection.weight': peer.state['code_transform.weight']}
    )
    x = peer['in/x'].requires_grad_()
    quantized = quantizer.train()(x)
    loss = weighted(quantizer, quantized.losses)
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantizer.codes(), peer['out/effective_codebook'], **CLOSE)
    torch.testing.assert_close(quantized.z, peer['out/quantized'], rtol=1e-5, atol=3e-6)  # theirs is rotated, ours exact
    torch.testing.assert_close(loss, peer['out/commit_loss'], **CLOSE)
    grad_x, grad_weight = torch.autograd.grad(loss, [x, quantizer.projection.weight], retain_graph=True)
    torch.testing.assert_close(grad_x, peer['out/grad_x_of_loss'], **GRADIENT)
    torch.testing.assert_close(grad_weight, peer['out/grad_weight_of_loss'], **GRADIENT)
    (through,) = torch.autograd.grad((quantized.z * peer['in/cotangent']).sum(), x)
    torch.testing.assert_close(through, peer['out/grad_x_of_output'], **GRADIENT)
    torch.testing.assert_close(quantizer.lookup(peer['out/indices']), peer['out/codes_from_indices'], **CLOSE)


@pytest.mark.parametrize(('name', 'target'), [('softmax', 'soft'), ('argmax', 'argmax')])
def test_serezd_entropy_quantizer(golden, name, target):
    peer = golden(f'serezd_vq_entropy_{name}')
    entropy = EntropyLoss(peer.meta['ent_loss_ratio'], peer.meta['ent_temperature'], target=target)
    quantizer = quantizer_with(peer['in/codebook'], entropy=entropy)
    x = channels_last(peer['in/x'][0]).requires_grad_()
    quantized = quantizer(x)
    loss = weighted(quantizer, quantized.losses)
    assert torch.equal(quantized.tokens.flatten(1), peer['out/indices'])
    torch.testing.assert_close(quantized.z, channels_last(peer['out/quantized']), **CLOSE)
    torch.testing.assert_close(loss, peer['out/loss'], **CLOSE)
    grad_x, grad_codes = torch.autograd.grad(loss, [x, quantizer.codebook.weight])
    for ours, theirs in (
        (grad_x, channels_last(peer['out/grad_x_of_loss'])),
        (grad_codes, peer['out/grad_codebook_of_loss']),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * theirs.abs().max().item())
    (straight,) = torch.autograd.grad((quantizer(x).z * channels_last(peer['in/cotangent'])).sum(), x)
    torch.testing.assert_close(straight, channels_last(peer['out/grad_x_of_output']), **GRADIENT)
    assert torch.equal(quantizer.eval()(x).tokens.flatten(1), peer['out/eval_codes'])
    torch.testing.assert_close(quantizer.lookup(peer['out/eval_codes']), peer['out/codes_to_vec'], **CLOSE)


@pytest.mark.parametrize('name', ['llamagen_vq_a', 'llamagen_vq_b'])
def test_llamagen_losses(golden, name):
    """With and without unit length; each term on its own."""
    peer = golden(name)
    entropy = EntropyLoss(peer.meta['entropy_loss_ratio'], peer.meta['entropy_temperature'])
    codebook = peer.state['quantize.embedding.weight']
    quantizer: VectorQuantizer = quantizer_with(codebook, normalize=peer.meta['l2_norm'], entropy=entropy)
    z = channels_last(peer['out/z']).requires_grad_()
    quantized = quantizer(z)
    terms = {name: quantizer.loss_weights[name] * value for name, value in quantized.losses.items()}
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantized.z, channels_last(peer['out/z_q']), **CLOSE)
    torch.testing.assert_close(quantizer.lookup(peer['out/indices']), channels_last(peer['out/codes_from_indices']), **CLOSE)
    for ours, theirs in (('codebook', 'vq'), ('commitment', 'commit'), ('entropy', 'entropy')):
        torch.testing.assert_close(terms[ours], peer[f'out/train_{theirs}_loss'], **CLOSE)
    for term, inputs in (
        ('codebook', {'codebook_of_vq': quantizer.codebook.weight}),
        ('commitment', {'z_of_commit': z}),
        ('entropy', {'z_of_entropy': z, 'codebook_of_entropy': quantizer.codebook.weight}),
    ):
        gradients = torch.autograd.grad(terms[term], list(inputs.values()), retain_graph=True)
        for key, gradient in zip(inputs, gradients, strict=True):
            expected = peer[f'out/grad_{key}_loss']
            expected = channels_last(expected) if expected.dim() == 4 else expected
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())
    (straight,) = torch.autograd.grad((quantized.z * channels_last(peer['in/straight_through_cotangent'])).sum(), z)
    torch.testing.assert_close(straight, channels_last(peer['out/grad_z_of_straight_through']), **GRADIENT)
