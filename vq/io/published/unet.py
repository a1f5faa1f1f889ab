"""UNets of diffusers and of latent diffusion (CompVis): their tensors under the names of our UNet.

Ours are the tensors of a denoiser: ``down.0.res.1.conv1.weight``. Weights of 1x1 convolutions become those of linear layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vq.core.errors import UserError

Words = dict[str, str]  # theirs -> ours

TRANSFORMER = {
    'proj_in': 'into',
    'proj_out': 'proj',
    'norm': 'norm',
    'attn1.to_q': 'own.q',
    'attn1.to_k': 'own.k',
    'attn1.to_v': 'own.v',
    'attn1.to_out.0': 'own.proj',
    'attn2.to_q': 'cross.q',
    'attn2.to_k': 'cross.k',
    'attn2.to_v': 'cross.v',
    'attn2.to_out.0': 'cross.proj',
    'attn2.prompt_to_context_dim': 'prompt_proj',
    'attn2.image_to_context_dim': 'image_proj',
    'ff.net.0.proj': 'mlp.into',
    'ff.net.2': 'mlp.out',
    **{name: name for name in ('norm1', 'norm2', 'norm3')},
}
# of diffusers

ENDS = {
    'time_embedding.linear_1': 'time.mlp.into',
    'time_embedding.linear_2': 'time.mlp.out',
    'conv_in': 'into',
    'conv_norm_out': 'norm',
    'conv_out': 'out',
}
RESIDUAL = {
    'time_emb_proj': 'embed',
    'conv_shortcut': 'skip',
    **{name: name for name in ('norm1', 'conv1', 'norm2', 'conv2')},
}
SELF = {'group_norm': 'norm', 'to_out.0': 'proj', 'qkv': 'qkv'}
DIFFUSERS_PLACE = re.compile(
    r'(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)'
)
SIDES = {'down_blocks': 'down', 'up_blocks': 'up', 'mid_block': 'middle'}

# of latent diffusion

LDM_ENDS = {'time_embed.0': 'time.mlp.into', 'time_embed.2': 'time.mlp.out', 'out.0': 'norm', 'out.2': 'out'}
LDM_RESIDUAL = {
    'in_layers.0': 'norm1',
    'in_layers.2': 'conv1',
    'emb_layers.1': 'embed',
    'out_layers.0': 'norm2',
    'out_layers.3': 'conv2',
    'skip_connection': 'skip',
}
LDM_SELF = {'norm': 'norm', 'qkv': 'qkv', 'proj_out': 'proj'}
LDM_ADAPTER = {**LDM_SELF, 'attention.to_prompt_token': 'prompt'}
LDM_PLACE = re.compile(r'(input_blocks|middle_block|output_blocks)\.(?:(\d+)\.)?(\d+)\.(.+)')
LDM_TABLE = 'cls_embedder.class_embedder.weight'


def from_diffusers(state: Mapping[str, Tensor], heads: Callable[[int], int]) -> dict[str, Tensor]:
    """``UNet2DModel`` and ``UNet2DConditionModel`` -> ours. ``heads``: of a self-attention on so many channels."""
    found: dict[str, Tensor] = {}
    for key, value in _joined(state, heads).items():
        name, _, leaf = key.rpartition('.')
        place = DIFFUSERS_PLACE.fullmatch(key)
        if name in ENDS:
            found[f'{ENDS[name]}.{leaf}'] = value
            continue
        if place is None:
            raise _unknown(key, 'diffusers')
        side, level, kind, number, rest = place.groups()
        where = SIDES[side] if level is None else f'{SIDES[side]}.{level}'
        if kind in ('downsamplers', 'upsamplers'):
            found[f'{where}.resample.{rest}'] = value
        elif kind == 'resnets':
            found[f'{where}.res.{number}.{_within(rest, RESIDUAL, key)}'] = value
        else:
            words = SELF if rest.startswith(('group_norm.', 'qkv.', 'to_out.')) else TRANSFORMER
            found[f'{where}.attention.{number}.{_within(rest, words, key)}'] = flat(value)
    return found


def _joined(state: Mapping[str, Tensor], heads: Callable[[int], int]) -> dict[str, Tensor]:
    """``to_q``, ``to_k`` and ``to_v`` with a bias, those of self-attention, as one ``qkv``: rows of head 0 (q, k, v), ..."""
    found = dict(state)
    for key in state:
        prefix, mark, _ = key.partition('.to_q.bias')
        if mark:
            for leaf in ('weight', 'bias'):
                parts = [found.pop(f'{prefix}.to_{name}.{leaf}') for name in 'qkv']
                count = heads(len(parts[0]))
                whole = torch.stack([part.reshape(count, -1, *part.shape[1:]) for part in parts], dim=1)  # (heads, 3, D, ...)
                found[f'{prefix}.qkv.{leaf}'] = whole.flatten(0, 2)
    return found


def from_latent_diffusion(state: Mapping[str, Tensor], res_blocks: int) -> dict[str, Tensor]:
    """CompVis' ``UNetModel``, and that of LayoutDiffuse with its adapters -> ours. ``res_blocks``: of a level.

    The class table of the adapters, which stands in the file once for each, is ``table``.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name, _, leaf = key.rpartition('.')
        place = LDM_PLACE.fullmatch(key)
        if name in LDM_ENDS:
            found[f'{LDM_ENDS[name]}.{leaf}'] = value
        elif key == LDM_TABLE:
            found['table'] = value
        elif key.endswith('attention.class_embedder.class_embedder.weight'):
            if LDM_TABLE in state and not torch.equal(value, state[LDM_TABLE]):
                raise UserError(f"'{key}' is another table than '{LDM_TABLE}'", 'In files of LayoutDiffuse both are one.')
        elif place is None:
            raise _unknown(key, 'latent diffusion')
        else:
            found |= _of_latent_diffusion(key, value, place, state, res_blocks)
    return found


def _of_latent_diffusion(
    key: str, value: Tensor, place: re.Match[str], state: Mapping[str, Tensor], res_blocks: int
) -> dict[str, Tensor]:
    side, block, part, rest = place.groups()
    prefix = key[: -len(rest)]
    if side == 'middle_block':
        if part == '1':
            return {f'middle.attention.0.{_within(rest, _attention_words(prefix, state), key)}': flat(value)}
        return {f'middle.res.{int(part) // 2}.{_within(rest, LDM_RESIDUAL, key)}': value}
    if side == 'input_blocks' and block == '0':
        return {f'into.{rest}': value}
    # the first block of the way down is the convolution; each level ends with a block of its own between resolutions
    number = int(block) - 1 if side == 'input_blocks' else int(block)
    level, index = divmod(number, res_blocks + 1)
    where = f'{"down" if side == "input_blocks" else "up"}.{level}'
    if rest.startswith(('op.', 'conv.')):
        return {f'{where}.resample.conv.{rest.partition(".")[2]}': value}
    if part == '0':
        return {f'{where}.res.{index}.{_within(rest, LDM_RESIDUAL, key)}': value}
    words = _attention_words(prefix, state)
    owner = f'adapters.{where.replace(".", "_")}_{index}' if words is LDM_ADAPTER else f'{where}.attention.{index}'
    return {f'{owner}.{_within(rest, words, key)}': flat(value)}


def _attention_words(prefix: str, state: Mapping[str, Tensor]) -> Words:
    """What kind of attention stands there: its keys tell."""
    if f'{prefix}attention.to_prompt_token.weight' in state:
        return LDM_ADAPTER
    return LDM_SELF if f'{prefix}qkv.weight' in state else TRANSFORMER


def _within(rest: str, words: Words, key: str) -> str:
    """A key within a block, by ``words``; blocks of a transformer keep their numbers."""
    if rest.endswith('attn2.prompt'):
        return f'{rest.removesuffix("attn2.prompt").replace("transformer_blocks", "blocks")}prompts'
    found = re.fullmatch(r'(?:transformer_blocks\.(\d+)\.)?(.+)\.(weight|bias)', rest)
    if found is None or found[2] not in words:
        raise _unknown(key, 'these files')
    block = '' if found[1] is None else f'blocks.{found[1]}.'
    return f'{block}{words[found[2]]}.{found[3]}'


def flat(value: Tensor) -> Tensor:
    """The weight of a 1x1 convolution (D, C, 1, 1) or (D, C, 1) -> (D, C); learned tokens (1, N, D) -> (N, D)."""
    if value.ndim == 3 and len(value) == 1 and value.shape[2] > 1:
        return value[0]
    return value.flatten(1) if value.ndim > 2 else value


def _unknown(key: str, what: str) -> UserError:
    return UserError(f"'{key}' is no tensor of a UNet that is known from {what}", 'Give the tensors of the UNet alone.')
