"""Diffusion of pixels with a UNet: DDPM, improved DDPM, and digits by layouts."""

from __future__ import annotations

from typing import Annotated, Any

from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.data import Known, datasets
from vq.recipes.denoisers import Kind
from vq.recipes.diffusion import diffusion
from vq.recipes.parts import watching
from vq.recipes.segmentation import tiny_canvases

TINY_UNET: Part = dict(width=8, multipliers=(1, 1, 1), res_blocks=1, attention_at=(4,))
FIRST_STAGE = ('tokenizer_run', 'tokenizer', 'it_config', 'it_state_dict', 'ir_config', 'ir_state_dict', 'gives')
OF_DIT = ('denoiser', 'tiny_denoiser', 'form', 'size', 'dim', 'depth', 'heads', 'patch', 'bottleneck', 'context')
HEAD = ('head_dim', 'head_depth', 'prediction', 'learned_variance')


@recipe()
def unet_part(
    given: Given,
    learned_variance: bool = False,
    *,
    width: Annotated[int, 'channels of the first level'] = 64,
    multipliers: Annotated[tuple[int, ...], 'channels of each level, in widths; each halves the resolution'] = (1, 2, 2),
    res_blocks: Annotated[int, 'residual blocks of a level'] = 2,
    attention_at: Annotated[tuple[int, ...], 'levels with attention, by the factor of their resolution: 1, 2, 4'] = (2, 4),
    dropout: Annotated[float, 'in residual blocks, unless res_block_type has settings'] = 0.1,
    res_block_type: Annotated[str | Part, 'residual block: a name, or dict(type=name, ...) with settings'] = 'ResBlock',
    attn_block_type: Annotated[str | Part, 'attention block, likewise'] = 'SelfAttention',
    down_block_type: Annotated[str | Part, 'block to half the resolution, likewise'] = 'Downsample',
    up_block_type: Annotated[str | Part, 'block to twice the resolution, likewise'] = 'Upsample',
    prediction: Annotated[Kind, 'what the network estimates'] = 'epsilon',
) -> Part:
    """A UNet. Blocks of one's own: see vq/interfaces/unet.py."""
    own = dict(dropout=dropout) if res_block_type == 'ResBlock' else {}
    named = dict(res_block_type=res_block_type, attn_block_type=attn_block_type)
    named |= dict(down_block_type=down_block_type, up_block_type=up_block_type)
    blocks = {name: dict(type=kind) if isinstance(kind, str) else kind for name, kind in named.items()}
    blocks['res_block_type'] |= own
    sizes: dict[str, Any] = dict(width=width, multipliers=multipliers, res_blocks=res_blocks, attention_at=attention_at)
    return dict(type='UNet', **sizes, **blocks, learned_variance=learned_variance, kind=prediction)


@recipe(unet_part, diffusion, hides=(*FIRST_STAGE, *OF_DIT, *HEAD))
def ddpm(given: Given) -> Config:
    """Denoising diffusion (Ho et al. 2020): a UNet on pixels, 1,000 linear betas, |eps' - eps|^2, ancestral steps."""
    return _of_pixels(given, unet_part(given), steps=1000, **TRAINING)


@recipe(unet_part, diffusion, hides=(*FIRST_STAGE, *OF_DIT, *HEAD))
def improved_ddpm(given: Given) -> Config:
    """Improved DDPM (Nichol and Dhariwal 2021): cosine betas, a learned variance with its bound, times where losses are large.

    loss = |eps' - eps|^2 + the variational bound,  at times of probability p ~ sqrt(mean L^2), with weights 1 / (T p)
    """
    learned = dict(noise_schedule='cosine', times='loss_second_moment', steps=250)
    return _of_pixels(given, unet_part(given, learned_variance=True), **learned, **TRAINING)


TRAINING: dict[str, Any] = dict(dataset='mnist', image_size=32, batch_size=128, num_classes=0, iters=50_000)
TRAINING |= dict(lr=2e-4, ema=0.999, features=None, evaluate=None, sampler='Ancestral', threshold=1.0, precision='fp32')


def _of_pixels(given: Given, network: Part, **settings: Any) -> Config:
    return diffusion(given, pixels=True, path='beta', denoiser=network, tiny_denoiser=TINY_UNET, **settings)


@recipe(unet_part, diffusion, hides=(*FIRST_STAGE, *OF_DIT, *HEAD))
def digits_layout(
    given: Given,
    *,
    layout_drop: Annotated[float, 'share of layouts dropped in training; guidance needs it'] = 0.1,
    layout_dim: Annotated[int, 'channels of a class vector'] = 32,
    variant: Annotated[str, 'of the region attention; segmentation: labels of pixels in place of boxes'] = 'layout_partial_v2',
) -> Config:
    """Digits where boxes, or labels of pixels, ask for them: a UNet on patches of 4 x 4 pixels, with region attention."""
    # x0, not noise: 48 numbers of a patch pass through 32 channels, and only images are so simple
    sizes: dict[str, Any] = dict(width=32, multipliers=(1, 2), res_blocks=1, attention_at=(2,))
    network = unet_part(given, **sizes, dropout=0.0, prediction='x0')
    adapter: Part = dict(type='RegionAttention', variant=variant, places=variant.startswith('layout_partial'))
    network |= dict(groups=8, adapter_type=adapter, adapters_at=(1, 2), layout_dim=layout_dim)
    kind = 'SegmentationConditioner' if variant == 'segmentation' else 'BoxConditioner'
    conditioner = dict(type=kind, labels=10, drop=layout_drop, std=1.0)
    schedule = dict(type='CosineSchedule', warmup=100, final=0.02)
    images: dict[str, Any] = dict(dataset='digits_canvas', image_size=64, batch_size=32, num_workers=0, num_classes=0)
    training = dict(iters=900, lr=2e-3, ema=0.99, schedule=schedule, features=None, evaluate=None, precision='fp32')
    drawn = dict(sampler='DPMSolver', steps=20, guidance=2.0, threshold=1.0)
    patches = dict(type='SpaceToDepth', factor=4)
    told = dict(pixels=True, path='beta', conditioner=conditioner, connector=patches)
    config = diffusion(given, denoiser=network, tiny_denoiser=TINY_UNET, **told, **images, **training, **drawn)
    whole, small = watching(gates=300)
    validator = {} if variant == 'segmentation' else dict(callbacks=dict(layout_files=dict(type='LayoutFilesCallback')))
    told_of = dict(trainer=dict(callbacks=whole), validator=validator, tiny=dict(trainer=dict(callbacks=small)))
    return merge(config, told_of, dict(tiny=tiny_canvases()))


@recipe(datasets, hides=('dataset', 'classes', 'held_out'))
def digits_canvas(given: Given) -> Config:
    """Both splits of ``DigitsCanvasDataset``."""
    known = Known('DigitsCanvasDataset', None, image_size=64, augmentation=None, decodes=False)
    return datasets(given, known, dataset='digits_canvas')
