"""The autoencoders of latent diffusion: those in whole checkpoints, and the round trip of both kinds.

No published file was available; the key map of KL autoencoders is checked against diffusers' own converter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vq
from tests.denoisers.test_unet import shaken
from vq.cli.convert import convert_file
from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.published import mar_kl16
from vq.io.published.ldm_autoencoder import convert
from vq.registries import VQModelRegistry

SHAPE: dict[str, Any] = dict(width=32, multipliers=(1, 2), attention_levels=(), refine=True)


def kl() -> Any:
    encoder = dict(type='ConvEncoder', residual_blocks=1, out_channels=8, **SHAPE)
    decoder = dict(type='ConvDecoder', residual_blocks=2, in_channels=4, **SHAPE)
    ends = dict(post_encode=dict(type='ConvConnector'), pre_decode=dict(type='ConvConnector'))
    return shaken(VQModelRegistry.build(dict(type='KLAutoencoder', encoder=encoder, decoder=decoder, **ends)))


def compvis_of(tokenizer: Any) -> dict[str, Any]:
    state = {f'tokenizer.{key}': value for key, value in tokenizer.state_dict().items() if 'statistics' not in key}
    return mar_kl16.restore(state)


@pytest.mark.slow
def test_kl_equals_that_of_diffusers() -> None:
    import diffusers
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    ours = kl()
    state = {f'first_stage_model.{key}': value for key, value in compvis_of(ours).items()}
    blocks = dict(down_block_types=('DownEncoderBlock2D',) * 2, up_block_types=('UpDecoderBlock2D',) * 2)
    config = dict(block_out_channels=(32, 64), layers_per_block=1, latent_channels=4, **blocks)
    theirs = diffusers.AutoencoderKL(**config).eval()
    theirs.load_state_dict(convert_ldm_vae_checkpoint(dict(state), config))
    found = convert({**state, 'betas': torch.zeros(3)})
    again = VQModelRegistry.build(found.tokenizer).eval()
    tensors = {key.removeprefix('tokenizer.'): value for key, value in found.tensors.items()}
    again.load_state_dict(tensors)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        mean, wanted = again.encode(image).mean, theirs.encode(image).latent_dist.mean
        torch.testing.assert_close(mean, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again.decode(mean), theirs.decode(mean).sample, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again.normalize(mean), mean * 0.18215)
    assert found.dropped == {'not of the autoencoder': ['betas']}


def test_vq_of_a_whole_checkpoint(tmp_path: Path) -> None:
    """Features before the quantizer are what the denoiser of faces learns: a round trip through a file."""
    state = compvis_of(kl())
    state['quant_conv.weight'], state['quant_conv.bias'] = torch.randn(3, 8, 1, 1), torch.zeros(3)
    state['post_quant_conv.weight'] = torch.randn(4, 3, 1, 1)
    state['quantize.embedding.weight'] = torch.randn(16, 3)
    whole = {f'first_stage_model.{key}': value for key, value in state.items()}
    torch.save({'state_dict': {**whole, 'model.diffusion_model.out.2.bias': torch.zeros(3)}}, tmp_path / 'celeba.ckpt')
    lines = dict(convert_file('ldm_autoencoder', tmp_path / 'celeba.ckpt', {'image_size': 16}, tmp_path / 'vq.safetensors'))
    assert lines['codes'].startswith('16 of 3 channels') and '1: not of the autoencoder' in lines['left out']
    tokens = vq.load(tmp_path / 'vq.safetensors').tokenize(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    tensors = tensorfile.read_tensors(tmp_path / 'vq.safetensors')
    assert tokens.shape == (1, 8, 8)
    assert torch.equal(tensors['tokenizer.quantizer.codebook.weight'], state['quantize.embedding.weight'])


def test_a_file_without_one_says_so() -> None:
    with pytest.raises(UserError, match='it has no autoencoder'):
        convert({'model.diffusion_model.out.2.bias': torch.zeros(3)})
