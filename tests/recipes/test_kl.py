"""KL autoencoders of photographs: the networks of published ones, and the weight of the divergence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.published import read_manifest
from tests.shipped import composed
from vq.io.published import diffusers_kl, mar_kl16
from vq.io.published.keymap import Converted
from vq.registries import VQModelRegistry

F16, F8 = ('configs/two_stage/klvae_f16_imagenet_ddp.py', 'configs/two_stage/klvae_f8_imagenet_ddp.py')


def tokenizer_of(file: str) -> Any:
    return composed(file, tiny=False)['trainer']['model']['tokenizer']


def fits(config: Any, converted: Converted) -> None:
    """The config has the tensors of a converted file."""
    with torch.device('meta'):
        ours = VQModelRegistry.build(config)
    theirs = {key: value.shape for key, value in converted.tensors.items() if '.statistics.' not in key}
    assert {f'tokenizer.{key}': value.shape for key, value in ours.state_dict().items()} == theirs


def test_f16_is_the_network_of_kl_16() -> None:
    shapes = read_manifest('mar_kl16_vae')['tensors']
    converted = mar_kl16.convert({key: torch.empty(shape, device='meta') for key, shape in shapes.items()})
    fits(tokenizer_of(F16), converted)


@pytest.mark.slow
def test_f8_is_that_of_stable_diffusion() -> None:
    import diffusers

    blocks = dict(down_block_types=('DownEncoderBlock2D',) * 4, up_block_types=('UpDecoderBlock2D',) * 4)
    with torch.device('meta'):
        peer = diffusers.AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=256, **blocks)
    fits(tokenizer_of(F8), diffusers_kl.convert(peer.state_dict(), dict(peer.config)))


def test_the_weight_of_the_divergence_is_that_of_summed_pixel_losses() -> None:
    """total (ours) = total (theirs) / (3 H W), for the divergence as for the pixel losses."""
    config = composed(F8, tiny=False)
    assert config['trainer']['model']['tokenizer']['kl_weight'] == pytest.approx(1e-6 / (3 * 256 * 256))
    assert config['trainer']['model']['weight'] == dict(type='AdaptiveWeight', gain=0.5)
    assert config['trainer']['model']['losses'] == dict(l1=dict(type='L1Loss'), lpips=dict(type='LPIPSLoss'))
    assert not [key for key in ('codebook', 'window') if config['validator']['metrics'].get(key)]
