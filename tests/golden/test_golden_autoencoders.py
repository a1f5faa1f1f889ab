"""Published autoencoders, loaded by the converters, reproduce the peers' numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vq.assembly.matching import fit
from vq.io.published import llamagen, mar_kl16, open_magvit2, serezd, taming, var
from vq.io.published.keymap import Converted
from vq.quantizers.gumbel import GumbelQuantizer, kl_to_uniform, relaxed_weights, straight_through_codes
from vq.registries import VQModelRegistry
from vq.tokenizers.vqgan import VQGAN

CLOSE = dict(rtol=1e-4, atol=2e-5)
QUANTIZER = dict(rtol=1e-5, atol=1e-6)


def built(converted: Converted) -> Any:
    """The result of ``vq.load`` for a converted file."""
    fit(converted.tokenizer, {key: tuple(value.shape) for key, value in converted.tensors.items()}, 'golden')
    model = VQModelRegistry.build(converted.tokenizer)
    model.load_state_dict({key.removeprefix('tokenizer.'): value for key, value in converted.tensors.items()}, strict=True)
    return model.eval()


def read_taming(peer) -> VQGAN:
    """The converter infers the architecture from shapes; it must equal the peer's configuration."""
    converted = taming.convert(peer.state, image_size=16)
    config, theirs = converted.tokenizer, peer.meta['ddconfig']
    sizes = [theirs['resolution'] // 2**level for level in range(len(theirs['ch_mult']))]
    for side, blocks in (('encoder', theirs['num_res_blocks']), ('decoder', theirs['num_res_blocks'] + 1)):
        assert config[side]['width'] == theirs['ch']
        assert config[side]['multipliers'] == theirs['ch_mult']
        assert config[side]['residual_blocks'] == blocks
        assert config[side]['attention_levels'] == [
            level for level, size in enumerate(sizes) if size in theirs['attn_resolutions']
        ]
    assert config['encoder']['out_channels'] == config['decoder']['in_channels'] == theirs['z_channels']
    assert (config['quantizer']['codebook_size'], config['quantizer']['embedding_dim']) == (
        peer.meta['n_embed'],
        peer.meta['embed_dim'],
    )
    return built(converted)


def weighted(quantizer, losses: dict[str, Tensor]) -> Tensor:
    return sum(quantizer.loss_weights[term] * value for term, value in losses.items())


@pytest.mark.parametrize('name', ['taming_vqmodel_a', 'taming_vqmodel_b'])
def test_taming_vqgan(golden, name):
    peer = golden(name)
    model = read_taming(peer)
    torch.testing.assert_close(model.encoder(peer['in/image']), peer['out/encoder_out'], **CLOSE)
    latent = model.encode(peer['in/image'])
    torch.testing.assert_close(latent.mean, peer['out/z'], **CLOSE)
    quantized = model.quantize(latent)
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantized.z, peer['out/z_q'], **QUANTIZER)
    torch.testing.assert_close(model.decode(quantized.z), peer['out/reconstruction'], **CLOSE)
    torch.testing.assert_close(model.detokenize(peer['out/indices']), peer['out/decoded_from_indices'], **CLOSE)


@pytest.mark.parametrize('name', ['taming_vqmodel_a', 'taming_vqmodel_b'])
def test_taming_quantizer_loss_and_gradients(golden, name):
    """Taming's older loss has beta on the codebook term; the converter sets the loss weights accordingly."""
    peer = golden(name)
    quantizer = read_taming(peer).quantizer.train()

    z = peer['out/z'].permute(0, 2, 3, 1).requires_grad_()
    quantized = quantizer(z)
    loss = weighted(quantizer, quantized.losses)
    grad_z, grad_codes = torch.autograd.grad(loss, [z, quantizer.codebook.weight], retain_graph=True)
    torch.testing.assert_close(loss, peer['out/quant_loss'], **QUANTIZER)
    torch.testing.assert_close(grad_z.permute(0, 3, 1, 2), peer['out/grad_z_of_quant_loss'], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(grad_codes, peer['out/grad_codebook_of_quant_loss'], rtol=1e-3, atol=1e-6)
    cotangent = peer['in/straight_through_cotangent'].permute(0, 2, 3, 1)
    (straight,) = torch.autograd.grad((quantized.z * cotangent).sum(), z)
    torch.testing.assert_close(straight.permute(0, 3, 1, 2), peer['out/grad_z_of_straight_through'], **QUANTIZER)


def test_taming_gumbel(golden):
    """With the peer's noise: hard and soft codes and the prior term; without noise: results of evaluation."""
    peer = golden('taming_gumbelvq')
    model = read_taming(peer)
    quantizer = model.quantizer
    torch.testing.assert_close(model.encode(peer['in/image']).mean, peer['out/h'], **CLOSE)

    features = peer['out/h'].permute(0, 2, 3, 1)  # channels last
    logits = quantizer.logits(features)
    torch.testing.assert_close(logits.permute(0, 3, 1, 2), peer['out/logits'], **CLOSE)
    noise = peer['in/gumbel_noise'].permute(0, 2, 3, 1)
    weights = relaxed_weights(logits, noise, peer.meta['temperature'])
    tokens, codes = weights.argmax(-1), quantizer.codebook.weight
    assert torch.equal(tokens, peer['out/indices_with_noise'])
    hard = straight_through_codes(weights, tokens, codes).permute(0, 3, 1, 2)
    torch.testing.assert_close(hard, peer['out/z_q_hard'], **QUANTIZER)
    torch.testing.assert_close((weights @ codes).permute(0, 3, 1, 2), peer['out/z_q_soft'], **CLOSE)
    torch.testing.assert_close(model.decode(hard), peer['out/reconstruction_with_noise'], **CLOSE)
    torch.testing.assert_close(quantizer.loss_weights['kl'] * kl_to_uniform(logits), peer['out/kl_term'], **QUANTIZER)

    quantized = model.quantize(model.encode(peer['in/image']))
    assert torch.equal(quantized.tokens, peer['out/argmax_indices'])
    torch.testing.assert_close(quantized.z, peer['out/z_q_argmax'], **QUANTIZER)
    torch.testing.assert_close(weighted(quantizer, quantized.losses), peer['out/kl_term'], **QUANTIZER)
    torch.testing.assert_close(model.decode(quantized.z), peer['out/reconstruction_argmax'], **CLOSE)
    torch.testing.assert_close(model.detokenize(quantized.tokens), peer['out/reconstruction_argmax'], **CLOSE)


def test_serezd_vqvae(golden):
    """No attention, pooling after every level, unbiased group norm, few biases, tanh."""
    peer = golden('serezd_vqvae')
    converted = serezd.convert(peer.state, image_size=16)
    assert converted.tokenizer['encoder']['multipliers'] == peer.meta['channel_multipliers']
    assert converted.tokenizer['encoder']['residual_blocks'] == peer.meta['num_res_blocks']
    model = built(converted)

    assert model.encoder.downsampling == model.decoder.upsampling == 4
    latent = model.encode(peer['in/image'])
    torch.testing.assert_close(latent.mean, peer['out/z'], **CLOSE)
    quantized = model.quantize(latent)
    assert torch.equal(quantized.tokens.flatten(1), peer['out/indices'])
    torch.testing.assert_close(quantized.z, peer['out/quantized'], rtol=1e-5, atol=1e-6)
    loss = sum(model.quantizer.loss_weights[term] * value for term, value in quantized.losses.items())
    torch.testing.assert_close(loss, peer['out/quantizer_loss'], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.decode(quantized.z), peer['out/reconstruction'], **CLOSE)


def test_serezd_gumbel_quantizer(golden):
    """The encoder is as wide as the codebook, and a separate layer computes logits."""
    peer = golden('serezd_vq_gumbel')
    codes, dim = peer.meta['num_embeddings'], peer.meta['embedding_dim']
    quantizer = GumbelQuantizer(codes, dim, kl_weight=peer.meta['kl_cost'], straight_through=False, feature_dim=codes)
    state = {name.replace('x_to_logits', 'logits'): value for name, value in peer.state.items()}
    own = quantizer.state_dict()
    quantizer.load_state_dict({name: value.reshape(own[name].shape) for name, value in state.items()})
    assert (quantizer.feature_dim, quantizer.embedding_dim) == (codes, dim)
    features = peer['in/x'].permute(0, 2, 3, 1)
    logits = quantizer.logits(features)
    torch.testing.assert_close(logits.permute(0, 3, 1, 2), peer['out/logits'], **CLOSE)
    weights = relaxed_weights(logits, peer['in/gumbel_noise'].permute(0, 2, 3, 1), peer.meta['temp'])
    soft = (weights @ quantizer.codebook.weight).permute(0, 3, 1, 2)
    torch.testing.assert_close(soft, peer['out/train_quantized'], **CLOSE)
    assert torch.equal(weights.argmax(-1), peer['out/train_indices'])
    quantized = quantizer.eval()(features)
    assert torch.equal(quantized.tokens, peer['out/argmax_indices'])
    torch.testing.assert_close(quantized.z.permute(0, 3, 1, 2), peer['out/argmax_quantized'], **QUANTIZER)
    torch.testing.assert_close(weighted(quantizer, quantized.losses), peer['out/kl_loss'], **QUANTIZER)


def test_var_tokenizer(golden):
    """Tokens of all scales, decoded images after each scale, and inputs of the transformer in training."""
    peer = golden('var_multiscale_vq')
    scales = tuple(peer.meta['v_patch_nums'])
    model = built(var.convert(peer.state, scales=scales, residual=peer.meta['quant_resi']))
    tokens = torch.cat([peer[f'out/indices_scale{index}'] for index in range(len(scales))], dim=1)
    assert model.token_spec((12, 12)).shape == tokens.shape[1:]

    latent = model.encode(peer['in/image'])
    torch.testing.assert_close(latent.mean, peer['out/feature'], **CLOSE)
    quantized = model.quantize(latent)
    assert torch.equal(quantized.tokens, tokens)
    torch.testing.assert_close(quantized.z, peer[f'out/fhat_after_scale{len(scales) - 1}'], **CLOSE)
    for index, so_far in enumerate(model.quantizer.partial_maps(tokens)):
        torch.testing.assert_close(so_far.permute(0, 3, 1, 2), peer[f'out/fhat_after_scale{index}'], **QUANTIZER)
    torch.testing.assert_close(model.quantizer.teacher_forcing(tokens), peer['out/teacher_forcing_input'], **QUANTIZER)
    torch.testing.assert_close(model.detokenize(tokens).clamp(-1, 1), peer['out/image'], **CLOSE)


def test_open_magvit2(golden):
    peer = golden('open_magvit2_lfq')
    model = built(open_magvit2.convert(peer.state, image_size=16))
    latent = model.encode(peer['in/image'])
    torch.testing.assert_close(latent.mean, peer['out/h'], **CLOSE)
    quantized = model.quantize(latent)
    assert torch.equal(quantized.tokens.flatten(), peer['out/indices'])
    assert torch.equal(quantized.z, peer['out/quantized'])
    torch.testing.assert_close(model.decode(quantized.z), peer['out/reconstruction'], **CLOSE)
    torch.testing.assert_close(model.detokenize(quantized.tokens), peer['out/reconstruction'], **CLOSE)


def test_mar_kl_autoencoder(golden):
    peer = golden('mar_kl_vae')
    model = built(mar_kl16.convert(peer.state, image_size=16))
    assert model.spec((16, 16)).latent.shape == peer['out/mean'].shape[1:]
    latent = model.encode(peer['in/image'])
    torch.testing.assert_close(latent.mean, peer['out/mean'], **CLOSE)
    torch.testing.assert_close(latent.logvar, peer['out/logvar'], **CLOSE)
    torch.testing.assert_close(torch.exp(0.5 * latent.logvar), peer['out/std'], **CLOSE)
    torch.testing.assert_close(model.divergence(latent), peer['out/kl'], **CLOSE)
    sample = model.sample(latent, peer['in/noise'])
    torch.testing.assert_close(sample, peer['out/sample'], **CLOSE)
    torch.testing.assert_close(model.decode(sample), peer['out/reconstruction_of_sample'], **CLOSE)
    torch.testing.assert_close(model(peer['in/image'])[0], peer['out/reconstruction_of_mean'], **CLOSE)


@pytest.mark.parametrize('name', ['llamagen_vq_a', 'llamagen_vq_b'])
def test_llamagen_tokenizer(golden, name):
    """a: codes are normalized, also in lookups; stored codes are not. b: codes are not normalized, images are not square."""
    peer = golden(name)
    converted = llamagen.convert(peer.state, image_size=16, normalize=peer.meta['l2_norm'])
    assert converted.tokenizer['encoder']['multipliers'] == peer.meta['ch_mult']
    assert converted.tokenizer['encoder']['attention_levels'] == [len(peer.meta['ch_mult']) - 1]
    assert list(converted.dropped.values()) == [['quantize.codebook_used']]
    model = built(converted)

    latent = model.encode(peer['in/image'])
    torch.testing.assert_close(latent.mean, peer['out/z'], **CLOSE)
    quantized = model.quantize(latent)
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantized.z, peer['out/z_q'], **CLOSE)
    torch.testing.assert_close(model.decode(quantized.z), peer['out/reconstruction'], **CLOSE)
    torch.testing.assert_close(model.lookup(peer['out/indices']), peer['out/codes_from_indices'], **CLOSE)
    torch.testing.assert_close(model.detokenize(peer['out/indices']), peer['out/reconstruction_from_indices'], **CLOSE)


@pytest.mark.parametrize('name', ['llamagen_vq_a', 'llamagen_vq_b'])
def test_llamagen_losses_and_gradients(golden, name):
    peer = golden(name)
    model = built(llamagen.convert(peer.state, image_size=16, normalize=peer.meta['l2_norm']))
    z = peer['out/z'].permute(0, 2, 3, 1).requires_grad_()
    quantized = model.quantizer.train()(z)
    losses = quantized.losses
    torch.testing.assert_close(losses['codebook'], peer['out/train_vq_loss'], **QUANTIZER)
    commitment = model.quantizer.loss_weights['commitment'] * losses['commitment']
    torch.testing.assert_close(commitment, peer['out/train_commit_loss'], **QUANTIZER)
    (grad_codes,) = torch.autograd.grad(losses['codebook'], model.quantizer.codebook.weight)
    torch.testing.assert_close(grad_codes, peer['out/grad_codebook_of_vq_loss'], rtol=1e-3, atol=1e-6)
    (grad_z,) = torch.autograd.grad(commitment, z, retain_graph=True)
    torch.testing.assert_close(grad_z.permute(0, 3, 1, 2), peer['out/grad_z_of_commit_loss'], rtol=1e-3, atol=1e-6)
    cotangent = peer['in/straight_through_cotangent'].permute(0, 2, 3, 1)
    (straight,) = torch.autograd.grad((quantized.z * cotangent).sum(), z)
    torch.testing.assert_close(straight.permute(0, 3, 1, 2), peer['out/grad_z_of_straight_through'], rtol=1e-3, atol=1e-6)
