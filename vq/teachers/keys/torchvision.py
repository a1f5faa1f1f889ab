"""Keys of torchvision's ViT and ConvNeXt -> those of timm's networks. The last linear layer, of 1,000 classes, is left out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vq.io.published.keymap import drop, map_keys, rename

CLASSES = 'the linear layer of the classes'
_THEIRS, _OURS = 'encoder.layers.encoder_layer_{i}.', 'blocks.{i}.'

VIT = [
    rename('class_token', 'cls_token'),
    rename('conv_proj.{leaf}', 'patch_embed.proj.{leaf}'),
    rename('encoder.pos_embedding', 'pos_embed'),
    rename('encoder.ln.{leaf}', 'norm.{leaf}'),
    rename(f'{_THEIRS}self_attention.in_proj_{{leaf}}', f'{_OURS}attn.qkv.{{leaf}}'),
    *(
        rename(f'{_THEIRS}{theirs}.{{leaf}}', f'{_OURS}{ours}.{{leaf}}')
        for theirs, ours in (
            ('ln_1', 'norm1'),
            ('self_attention.out_proj', 'attn.proj'),
            ('ln_2', 'norm2'),
            ('mlp.linear_1', 'mlp.fc1'),  # in the published files
            ('mlp.linear_2', 'mlp.fc2'),
            ('mlp.0', 'mlp.fc1'),  # of newer versions
            ('mlp.3', 'mlp.fc2'),
        )
    ),
    drop('heads.{rest}', CLASSES),
    rename('{rest}', '{rest}'),
]
_STAGE, _BETWEEN = {'1': '0', '3': '1', '5': '2', '7': '3'}, {'2': '1', '4': '2', '6': '3'}  # of features -> of stages
CONVNEXT = [
    rename('features.0.{i}.{leaf}', 'stem.{i}.{leaf}'),
    rename('features.{between}.{i}.{leaf}', 'stages.{between}.downsample.{i}.{leaf}'),
    rename('features.{stage}.{i}.block.{layer}.{leaf}', 'stages.{stage}.blocks.{i}.{layer}.{leaf}'),
    rename('features.{stage}.{i}.layer_scale', 'stages.{stage}.blocks.{i}.gamma'),
    rename('classifier.0.{leaf}', 'head.norm.{leaf}'),
    drop('classifier.2.{leaf}', CLASSES),
    rename('{rest}', '{rest}'),
]
_WORDS = {'stage': _STAGE, 'between': _BETWEEN, 'layer': {'0': 'conv_dw', '2': 'norm', '3': 'mlp.fc1', '5': 'mlp.fc2'}}


def vit_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return map_keys(published, VIT, {})[0]


def convnext_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layer scales are (C, 1, 1) in the file, and (C,) in the network."""
    found, _ = map_keys(published, CONVNEXT, _WORDS)
    return {name: value.flatten() if name.endswith('.gamma') else value for name, value in found.items()}
