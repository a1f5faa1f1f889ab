"""Published autoencoders, built from our parts with their weights under our names, give their numbers."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from vq.decoders.convolutional import ConvDecoder
from vq.encoders.convolutional import ConvEncoder
from vq.nn.connectors import ConvConnector
from vq.quantizers.vector import VectorQuantizer
from vq.tokenizers.vqgan import VQGAN

CLOSE = dict(rtol=1e-4, atol=2e-5)


def rename(state: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def load(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    own = model.state_dict()
    model.load_state_dict({key: value.reshape(own[key].shape) for key, value in state.items()}, strict=True)
    model.eval()


def taming_rules(levels: int, quantizer: str = 'quantize.embedding') -> list[tuple[str, str]]:
    rules = [(rf'decoder\.up\.{level}\.', f'decoder.levels.{levels - 1 - level}.') for level in range(levels)]
    return [
        *rules,
        (r'encoder\.down\.', 'encoder.levels.'),
        (r'\.block\.', '.blocks.'),
        (r'\.attn\.', '.attentions.'),
        (r'\.(down|up)sample\.conv', '.resample.conv'),
        ('mid.block_1', 'refine.0'),
        ('mid.attn_1', 'refine.1'),
        ('mid.block_2', 'refine.2'),
        ('proj_out', 'proj'),
        ('nin_shortcut', 'shortcut'),
        ('conv_in', 'stem'),
        (rf'^{quantizer}\.', 'quantizer.codebook.'),
        ('^quant_conv', 'post_encode.conv'),
        ('^post_quant_conv', 'pre_decode.conv'),
    ]


def taming(ddconfig: dict, embed_dim: int, codes: int, quantizer: VectorQuantizer | None = None) -> VQGAN:
    resolutions = [ddconfig['resolution'] // 2**level for level in range(len(ddconfig['ch_mult']))]
    attention = tuple(level for level, size in enumerate(resolutions) if size in ddconfig['attn_resolutions'])
    shared = dict(width=ddconfig['ch'], multipliers=tuple(ddconfig['ch_mult']), attention_levels=attention)
    blocks, latent = ddconfig['num_res_blocks'], ddconfig['z_channels']
    return VQGAN(
        encoder=ConvEncoder(**shared, residual_blocks=blocks, out_channels=latent),
        quantizer=quantizer or VectorQuantizer(codes, embed_dim, codebook_weight=0.25, commitment_weight=1.0),
        post_encode=ConvConnector(latent, embed_dim),
        pre_decode=ConvConnector(embed_dim, latent),
        decoder=ConvDecoder(**shared, residual_blocks=blocks + 1, in_channels=latent),
    )


@pytest.mark.parametrize('name', ['taming_vqmodel_a', 'taming_vqmodel_b'])
def test_taming_vqgan(golden, name):
    peer = golden(name)
    config = peer.meta['ddconfig']
    model = taming(config, peer.meta['embed_dim'], peer.meta['n_embed'])
    load(model, rename(peer.state, taming_rules(len(config['ch_mult']))))

    torch.testing.assert_close(model.encoder(peer['in/image']), peer['out/encoder_out'], **CLOSE)
    latent = model.encode(peer['in/image'])
    torch.testing.assert_close(latent.mean, peer['out/z'], **CLOSE)
    quantized = model.quantize(latent)
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantized.z, peer['out/z_q'], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.decode(quantized.z), peer['out/reconstruction'], **CLOSE)
    torch.testing.assert_close(model.detokenize(peer['out/indices']), peer['out/decoded_from_indices'], **CLOSE)


@pytest.mark.parametrize('name', ['taming_vqmodel_a', 'taming_vqmodel_b'])
def test_taming_quantizer_loss_and_gradients(golden, name):
    """Taming's older loss puts beta on the codebook term; here that is a choice of weights."""
    peer = golden(name)
    model = taming(peer.meta['ddconfig'], peer.meta['embed_dim'], peer.meta['n_embed'])
    load(model, rename(peer.state, taming_rules(len(peer.meta['ddconfig']['ch_mult']))))
    quantizer = model.quantizer.train()

    z = peer['out/z'].permute(0, 2, 3, 1).requires_grad_()
    quantized = quantizer(z)
    loss = sum(quantizer.loss_weights[term] * value for term, value in quantized.losses.items())
    grad_z, grad_codes = torch.autograd.grad(loss, [z, quantizer.codebook.weight], retain_graph=True)
    torch.testing.assert_close(loss, peer['out/quant_loss'], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad_z.permute(0, 3, 1, 2), peer['out/grad_z_of_quant_loss'], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(grad_codes, peer['out/grad_codebook_of_quant_loss'], rtol=1e-3, atol=1e-6)
    cotangent = peer['in/straight_through_cotangent'].permute(0, 2, 3, 1)
    (straight,) = torch.autograd.grad((quantized.z * cotangent).sum(), z)
    torch.testing.assert_close(straight.permute(0, 3, 1, 2), peer['out/grad_z_of_straight_through'], rtol=1e-5, atol=1e-6)


def test_serezd_vqvae(golden):
    """No attention, pooling after every level, unbiased group norm, few biases, tanh."""
    peer = golden('serezd_vqvae')
    multipliers, blocks = peer.meta['channel_multipliers'], peer.meta['num_res_blocks']
    levels, codes, dim = len(multipliers), peer.meta['num_embeddings'], peer.meta['embedding_dim']
    shared = dict(
        width=peer.meta['channels'],
        residual_blocks=blocks,
        attention_levels=(),
        refine_blocks=blocks,
        refine_attention=False,
        resample_last=True,
        norm='group_unbiased',
        conv_bias=False,
    )
    model = VQGAN(
        encoder=ConvEncoder(
            **shared, multipliers=tuple(multipliers), downsample='average', out_channels=dim, out_kernel_size=1
        ),
        quantizer=VectorQuantizer(codes, dim),
        decoder=ConvDecoder(
            **shared, multipliers=(1, *multipliers[:-1]), stem_multiplier=multipliers[-1], in_channels=dim, output='tanh'
        ),
    )
    rules = [
        (
            rf'^{side}\.blocks\.{level * (blocks + 1) + block}\.(norm|conv\d|conv_shortcut)',
            rf'{side}.levels.{level}.blocks.{block}.\1',
        )
        for side in ('encoder', 'decoder')
        for level in range(levels)
        for block in range(blocks)
    ]
    rules += [
        (rf'^decoder\.blocks\.{level * (blocks + 1) + blocks}\.conv\.', f'decoder.levels.{level}.resample.conv.')
        for level in range(levels)
    ]
    rules += [
        ('(final|initial)_residual', 'refine'),
        ('conv_in', 'stem'),
        (r'coder\.norm\.', 'coder.norm_out.'),
        ('conv_shortcut', 'shortcut'),
    ]
    load(model, rename(peer.state, rules))

    assert model.encoder.downsampling == model.decoder.upsampling == 4
    latent = model.encode(peer['in/image'])
    torch.testing.assert_close(latent.mean, peer['out/z'], **CLOSE)
    quantized = model.quantize(latent)
    assert torch.equal(quantized.tokens.flatten(1), peer['out/indices'])
    torch.testing.assert_close(quantized.z, peer['out/quantized'], rtol=1e-5, atol=1e-6)
    loss = sum(model.quantizer.loss_weights[term] * value for term, value in quantized.losses.items())
    torch.testing.assert_close(loss, peer['out/quantizer_loss'], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.decode(quantized.z), peer['out/reconstruction'], **CLOSE)


def test_llamagen_tokenizer(golden):
    """Codes of unit length, also where they are looked up; the stored ones are not."""
    peer = golden('llamagen_vq_a')
    levels, blocks = len(peer.meta['ch_mult']), peer.meta['num_res_blocks']
    config = dict(
        ch=peer.meta['ch'],
        ch_mult=peer.meta['ch_mult'],
        num_res_blocks=blocks,
        z_channels=peer.meta['z_channels'],
        resolution=2**levels,
        attn_resolutions=[2],
    )
    dim, codes = peer.meta['codebook_embed_dim'], peer.meta['codebook_size']
    model = taming(config, dim, codes, VectorQuantizer(codes, dim, normalize=True))
    rules = [
        (r'(en|de)coder\.conv_blocks\.', r'\1coder.levels.'),
        (r'\.res\.', '.blocks.'),
        (r'\.attn\.', '.attentions.'),
        (r'\.(down|up)sample\.conv', '.resample.conv'),
        (r'\.mid\.', '.refine.'),
        ('proj_out', 'proj'),
        ('nin_shortcut', 'shortcut'),
        ('conv_in', 'stem'),
        (r'^quantize\.embedding\.', 'quantizer.codebook.'),
        ('^quant_conv', 'post_encode.conv'),
        ('^post_quant_conv', 'pre_decode.conv'),
    ]
    state = {key: value for key, value in peer.state.items() if 'codebook_used' not in key}
    load(model, rename(state, rules))

    quantized = model.quantize(model.encode(peer['in/image']))
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantized.z, peer['out/z_q'], **CLOSE)
    torch.testing.assert_close(model.decode(quantized.z), peer['out/reconstruction'], **CLOSE)
    torch.testing.assert_close(model.lookup(peer['out/indices']), peer['out/codes_from_indices'], **CLOSE)
    torch.testing.assert_close(model.detokenize(peer['out/indices']), peer['out/reconstruction_from_indices'], **CLOSE)

    z = peer['out/z'].permute(0, 2, 3, 1).requires_grad_()
    losses = model.quantizer.train()(z).losses
    torch.testing.assert_close(losses['codebook'], peer['out/train_vq_loss'], rtol=1e-5, atol=1e-6)
    commitment = model.quantizer.loss_weights['commitment'] * losses['commitment']
    torch.testing.assert_close(commitment, peer['out/train_commit_loss'], rtol=1e-5, atol=1e-6)
    (grad_codes,) = torch.autograd.grad(losses['codebook'], model.quantizer.codebook.weight)
    torch.testing.assert_close(grad_codes, peer['out/grad_codebook_of_vq_loss'], rtol=1e-3, atol=1e-6)
    (grad_z,) = torch.autograd.grad(commitment, z)
    torch.testing.assert_close(grad_z.permute(0, 3, 1, 2), peer['out/grad_z_of_commit_loss'], rtol=1e-3, atol=1e-6)
