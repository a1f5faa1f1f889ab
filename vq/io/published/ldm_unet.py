"""UNets of text-to-image models: latent diffusion's, Stable Diffusion's and LayoutDiffuse's, from whole checkpoints of CompVis
or from diffusers' folder ``unet``. What they give is for ``--load-model-from``, under the keys of a task."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from vq.core.errors import UserError, listing
from vq.io.published.keymap import State
from vq.io.published.unet import from_diffusers, from_latent_diffusion

NESTS = ('state_dict', 'model')
WEIGHTS = ('diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.bin')  # in the folder of diffusers
FIRST, FIRST_OF_DIFFUSERS = 'input_blocks.0.0.weight', 'conv_in.weight'
OTHERS = 'not of the UNet: autoencoder, texts, averages, tables of noise'


@dataclasses.dataclass(frozen=True)
class ConvertedUNet:
    """A UNet under our names."""

    denoiser: dict[str, Any]  # its config, for the registry of denoisers
    tensors: dict[str, Tensor]  # denoiser.*, and the class table of a layout
    dropped: dict[str, list[str]]  # reason -> keys of the file


def locate(file: Path) -> tuple[Path, tuple[()]]:
    """The file of weights of a folder of diffusers; any other file is that of CompVis."""
    if not file.is_dir():
        return file, ()
    found = next((path for name in WEIGHTS if (path := file / name).is_file()), None)
    if found is None:
        raise UserError(f'{file} holds no {listing(WEIGHTS)}', "Give diffusers' folder of a UNet, often called unet.")
    return found, ()


def convert(
    state: State,
    *,
    heads: int = 8,
    head_dim: int | None = None,
    ema: bool = False,
    own_class: bool = False,
    mixed: bool | None = None,
) -> ConvertedUNet:
    """``heads``, or ``head_dim``, the channels of one: shapes do not tell. ``ema``: the average of a file of CompVis.

    For files of LayoutDiffuse: ``own_class`` is that of ``RegionAttention``. ``mixed``: the class table is that of the part
    'layout' of a mixture; None: if the network attends to texts.
    """

    def heads_of(channels: int) -> int:
        count = heads if head_dim is None else channels // max(1, head_dim)
        if count < 1 or channels % count:
            raise UserError(f'{channels} channels with {count} heads', 'Give --options heads:N or head_dim:N of the model.')
        return count

    own, rest = _own(state, ema)
    theirs = FIRST_OF_DIFFUSERS in own
    found = from_diffusers(own, heads_of) if theirs else from_latent_diffusion(own, _res_blocks(own))
    table = found.pop('table', None)
    size = {'heads': heads} if head_dim is None else {'head_dim': head_dim}
    denoiser = config_of(found, size, own_class)
    tensors = {f'denoiser.{key}': value for key, value in found.items()}
    if table is not None:
        mixed = denoiser['sequence_dim'] is not None if mixed is None else mixed
        tensors[f'conditioner.{"parts.layout." if mixed else ""}table.weight'] = table
    return ConvertedUNet(denoiser, tensors, {OTHERS: rest} if rest else {})


def _own(state: State, ema: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the UNet, without what stands before their keys; and the other keys."""
    if ema:
        return _averaged(state)
    first = next((key for key in state if key.endswith((FIRST, FIRST_OF_DIFFUSERS)) and '.encoder.' not in f'.{key}'), None)
    if first is None:
        raise UserError(
            f'it has no {FIRST} and no {FIRST_OF_DIFFUSERS}', 'Give a checkpoint of CompVis, or the folder unet of diffusers.'
        )
    prefix = first.removesuffix(FIRST).removesuffix(FIRST_OF_DIFFUSERS)
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return own, [key for key in state if not key.startswith(prefix)]


def _averaged(state: State) -> tuple[dict[str, Tensor], list[str]]:
    """The average of CompVis: its keys are those of the network without their points."""
    own, _ = _own(state, ema=False)
    prefix = next(key for key in state if key.endswith(FIRST)).removesuffix(FIRST).removeprefix('model.')
    names = {key: f'model_ema.{f"{prefix}{key}".replace(".", "")}' for key in own}
    missing = [name for name in names.values() if name not in state]
    if missing:
        raise UserError(f'it has no average of weights: {missing[0]} is missing', 'Leave ema out.')
    return {key: state[name] for key, name in names.items()}, [key for key in state if key not in names.values()]


def _res_blocks(own: State) -> int:
    """Residual blocks of a level: each level of the way down ends with a block that has ``op`` or ``conv``."""
    ends = [int(found[1]) for key in own if (found := re.fullmatch(r'input_blocks\.(\d+)\.0\.(?:op|conv)\.weight', key))]
    blocks = {int(found[1]) for key in own if (found := re.match(r'input_blocks\.(\d+)\.', key))}
    return min(ends) - 1 if ends else len(blocks) - 1


def config_of(found: State, size: dict[str, int], own_class: bool = True) -> dict[str, Any]:
    """The config of a UNet, from the shapes of its tensors under our names. ``size``: heads or head_dim."""
    needed = ('into.weight', 'out.weight', 'down.0.res.0.conv1.weight')
    missing = next((key for key in needed if key not in found), None)
    if missing is not None:
        raise UserError(f"there is no tensor for '{missing}'", 'The file is damaged, or of another architecture.')
    width, channels = found['into.weight'].shape[:2]
    levels = _count(found, r'down\.(\d+)\.')
    adapted = sorted({int(match[1]) for key in found if (match := re.match(r'adapters\.down_(\d+)_', key))})
    attends = [level for level in range(levels) if any(key.startswith(f'down.{level}.attention.') for key in found)]
    config: dict[str, Any] = {
        'type': 'UNet',
        'channels': channels,
        'width': width,
        'multipliers': tuple(found[f'down.{level}.res.0.conv1.weight'].shape[0] // width for level in range(levels)),
        'res_blocks': _count(found, r'down\.0\.res\.(\d+)\.'),
        'attention_at': tuple(2**level for level in attends),
        'learned_variance': found['out.weight'].shape[0] == 2 * channels,
        'sequence_dim': None,
        'attn_block_type': {'type': 'SelfAttention', **size},
    }
    if found['down.0.res.0.embed.weight'].shape[0] == 2 * width * config['multipliers'][0]:
        config['res_block_type'] = {'type': 'ResBlock', 'scale_shift': True}
    block = 'middle.attention.0.blocks.0.'
    if f'{block}cross.k.weight' in found:
        config['sequence_dim'] = found[f'{block}cross.k.weight'].shape[1]
        depth = _count(found, r'middle\.attention\.0\.blocks\.(\d+)\.')
        told: dict[str, Any] = {'type': 'SpatialTransformer', **size, 'depth': depth}
        if f'{block}prompts' in found:
            told |= dict(zip(('prompts', 'prompt_dim'), found[f'{block}prompts'].shape, strict=True))
        config['attn_block_type'] = told | {'image_tokens': f'{block}image_proj.weight' in found}
    if adapted:
        config['adapters_at'] = tuple(2**level for level in adapted)
        config['layout_dim'] = found[f'adapters.down_{adapted[0]}_0.prompt.weight'].shape[1]
        config['adapter_type'] = {'type': 'RegionAttention', 'own_class': own_class}
    return config


def _count(found: State, pattern: str) -> int:
    return 1 + max(int(match[1]) for key in found if (match := re.match(pattern, key)))
