"""UNets of text-to-image models: the key map of CompVis against diffusers' own converter, whole checkpoints, and merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.denoisers.test_unet import shaken
from vq.cli.convert import convert_file
from vq.core.errors import UserError
from vq.denoisers.unet.network import UNet
from vq.io import tensorfile
from vq.io.published.ldm_unet import convert
from vq.io.published.unet import LDM_ENDS, LDM_RESIDUAL, TRANSFORMER, from_diffusers
from vq.io.weights import read_weights

SIZES: dict[str, Any] = dict(width=32, multipliers=(1, 2), res_blocks=2, attention_at=(1, 2), sequence_dim=12)
TEXT = dict(type='SpatialTransformer', heads=4)
ADAPTED: dict[str, Any] = dict(adapter_type=dict(type='RegionAttention', own_class=False), adapters_at=(2,), layout_dim=6)


def network(**more: Any) -> UNet:
    return shaken(UNet(channels=4, cells=(8, 8), **SIZES, attn_block_type=TEXT, **more))


def turned(words: dict[str, str]) -> dict[str, str]:
    return {ours: theirs for theirs, ours in words.items()}


def compvis_of(ours: UNet, adapters: bool = False) -> dict[str, Tensor]:
    """The names of CompVis' ``UNetModel``, whose blocks are counted through all levels, from ours. Linear layers that are
    convolutions there get two axes more."""
    found: dict[str, Tensor] = {}
    ends, residual, inner = turned(LDM_ENDS), turned(LDM_RESIDUAL), turned(TRANSFORMER)
    each = ours.res_blocks + 1
    for key, value in ours.state_dict().items():
        side, *rest = key.split('.')
        name, leaf = key.rsplit('.', 1)
        if name in ends:
            found[f'{ends[name]}.{leaf}'] = value
        elif side == 'into':
            found[f'input_blocks.0.0.{leaf}'] = value
        elif side == 'adapters':
            where, level, index = rest[0].split('_')
            block = (
                f'input_blocks.{each * int(level) + 1 + int(index)}'
                if where == 'down'
                else f'output_blocks.{each * int(level) + int(index)}'
            )
            word = {'prompt': 'attention.to_prompt_token', 'proj': 'proj_out'}.get(rest[1], rest[1])
            found[f'{block}.2.{word}.{leaf}'] = value[..., None] if value.ndim == 2 else value
        else:
            found[_place(side, rest, each, leaf, residual, inner, ours)] = (
                value[..., None, None] if _is_conv(rest) and value.ndim == 2 else value
            )
    return found


def _is_conv(rest: list[str]) -> bool:
    return rest[-2] in ('into', 'proj') and 'attention' in rest and 'blocks' not in rest


def _place(
    side: str, rest: list[str], each: int, leaf: str, residual: dict[str, str], inner: dict[str, str], ours: UNet
) -> str:
    if side == 'middle':
        kind, index, *more = rest
        block, part = 'middle_block', 2 * int(index) if kind == 'res' else 1
    else:
        level, kind, *more = rest
        last = ours.res_blocks if kind == 'resample' else None
        index = '0' if last is not None else more.pop(0)
        number = each * int(level) + (int(index) if last is None else last)
        block = f'input_blocks.{number + 1}' if side == 'down' else f'output_blocks.{number}'
        part = 0 if kind == 'res' else 1
        if kind == 'resample':
            part = 0 if side == 'down' else 2 + (f'up_{level}_{last}' in ours.adapters)
            return f'{block}.{part}.{"op" if side == "down" else "conv"}.{leaf}'
    if kind == 'res':
        return f'{block}.{part}.{residual[more[0]]}.{leaf}'
    if more[0] == 'blocks':
        return f'{block}.{part}.transformer_blocks.{more[1]}.{inner[".".join(more[2:-1])]}.{leaf}'
    return f'{block}.{part}.{inner[more[0]]}.{leaf}'


def test_the_map_of_compvis_equals_the_converter_of_diffusers() -> None:
    """Random tensors under CompVis' names, by diffusers' own function to its names, and by ours to ours: the same network."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    ours = network()
    state = {f'model.diffusion_model.{key}': value for key, value in compvis_of(ours).items()}
    config = dict(layers_per_block=2, class_embed_type=None, addition_embed_type=None)
    config |= dict(down_block_types=('CrossAttnDownBlock2D',) * 2, up_block_types=('CrossAttnUpBlock2D',) * 2)
    theirs = from_diffusers(convert_ldm_unet_checkpoint(dict(state), config), lambda channels: 4)
    found = convert({**state, 'first_stage_model.encoder.conv_in.weight': torch.zeros(2), 'betas': torch.zeros(9)}, heads=4)
    own = ours.state_dict()
    assert {key.removeprefix('denoiser.') for key in found.tensors} == set(theirs) == set(own)
    for key, value in own.items():
        assert torch.equal(theirs[key], value) and torch.equal(found.tensors[f'denoiser.{key}'], value), key
    (dropped,) = found.dropped.values()
    assert dropped == ['first_stage_model.encoder.conv_in.weight', 'betas']


def test_settings_are_read_from_shapes() -> None:
    ours = network(**ADAPTED)
    state = compvis_of(ours)
    table = torch.randn(7, 6)
    state['cls_embedder.class_embedder.weight'] = table
    found = convert(state, heads=4)
    told = {key: value for key, value in found.denoiser.items() if key != 'channels'}
    rebuilt = UNet(channels=4, cells=(8, 8), **{key: value for key, value in told.items() if key != 'type'})
    rebuilt.load_state_dict(
        {key.removeprefix('denoiser.'): value for key, value in found.tensors.items() if 'denoiser' in key}
    )
    assert told['adapters_at'] == (2,) and told['attention_at'] == (1, 2) and told['layout_dim'] == 6
    assert torch.equal(found.tensors['conditioner.parts.layout.table.weight'], table)
    assert 'conditioner.table.weight' in convert(state, heads=4, mixed=False).tensors


def test_averages_of_compvis_are_read() -> None:
    state = {f'model.diffusion_model.{key}': value for key, value in compvis_of(network()).items()}
    averages = {'model_ema.' + key.removeprefix('model.').replace('.', ''): value + 1 for key, value in state.items()}
    found = convert({**state, **averages}, heads=4, ema=True).tensors
    assert torch.equal(found['denoiser.into.weight'], state['model.diffusion_model.input_blocks.0.0.weight'] + 1)
    with pytest.raises(UserError, match='it has no average of weights'):
        convert(state, heads=4, ema=True)


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['compvis', 'diffusers'])
def test_the_command_writes_a_file_for_training(layout: str, tmp_path: Path) -> None:
    """From a checkpoint of CompVis, and from diffusers' folder: files with the same tensors as the network."""
    ours = network()
    if layout == 'compvis':
        given = tmp_path / 'model.ckpt'
        torch.save({'state_dict': {f'model.diffusion_model.{k}': v for k, v in compvis_of(ours).items()}}, given)
    else:
        import diffusers

        blocks = dict(down_block_types=('CrossAttnDownBlock2D',) * 2, up_block_types=('CrossAttnUpBlock2D',) * 2)
        how: dict[str, Any] = dict(attention_head_dim=4, cross_attention_dim=12, block_out_channels=(32, 64), sample_size=8)
        theirs = shaken(diffusers.UNet2DConditionModel(**blocks, **how))
        given = tmp_path / 'unet'
        theirs.save_pretrained(given)
        ours.load_state_dict(from_diffusers(theirs.state_dict(), lambda channels: 4))
    lines = dict(convert_file('ldm_unet', given, {'heads': 4}, tmp_path / 'out.safetensors'))
    assert 'texts of 12 channels, 0 adapters' in lines['network']
    tensors = tensorfile.read_tensors(tmp_path / 'out.safetensors')
    assert all(torch.equal(tensors[f'denoiser.{key}'], value) for key, value in ours.state_dict().items())
    assert set(read_weights(tmp_path / 'out.safetensors')[0]) == {f'denoiser.{key}' for key in ours.state_dict()}
    torch.save({'a': torch.zeros(2)}, tmp_path / 'other.ckpt')
    with pytest.raises(UserError, match='it has no input_blocks'):
        convert_file('ldm_unet', tmp_path / 'other.ckpt', {}, tmp_path / 'other.safetensors')
