"""Tiny random networks of other packages, their weights by the authors' names, and what they say of images."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, WIDTH, DEPTH, HEADS = 64, 32, 3, 4
SMALL = dict(dimension=WIDTH, depth=DEPTH, heads=HEADS, image_size=SIDE)
VITS: dict[str, dict[str, Any]] = {
    'dino': {'type': 'DINOTeacher', **SMALL},
    'dinov2_registers': {'type': 'DINOv2Teacher', **SMALL, 'patch_size': 16, 'registers': 3},
    'mae': {'type': 'MAETeacher', **SMALL},
    'vit': {'type': 'ViTTeacher', **SMALL},
    'beit2': {'type': 'BEiT2Teacher', **SMALL},
}
CONVNEXT = {'type': 'ConvNeXtTeacher', 'dims': (8, 16, 24, WIDTH), 'depths': (1, 1, 1, DEPTH), 'image_size': SIDE}
FAMILIES: dict[str, dict[str, Any]] = {**VITS, 'convnext': CONVNEXT}

INSIDE = {  # of a block in transformers, whatever its version -> in the authors' files
    r'(layernorm_before|norm1)\.': 'norm1.',
    r'(layernorm_after|norm2)\.': 'norm2.',
    r'attention.*(q_proj|query)\.': 'attn.q.',
    r'attention.*(k_proj|key)\.': 'attn.k.',
    r'attention.*(v_proj|value)\.': 'attn.v.',
    r'attention.*(o_proj|output\.dense)\.': 'attn.proj.',
    r'(mlp\.fc1|intermediate\.dense)\.': 'mlp.fc1.',
    r'(mlp\.fc2|output\.dense)\.': 'mlp.fc2.',
    r'layer_scale(\d)\.lambda1': r'ls\1.gamma',
    r'lambda_(\d)': r'gamma_\1',
}
OUTSIDE = {
    r'embeddings\.(cls_token|mask_token|register_tokens)': r'\1',
    r'embeddings\.position_embeddings': 'pos_embed',
    r'embeddings\.patch_embeddings\.projection\.': 'patch_embed.proj.',
    r'.*relative_position_bias_table': 'rel_pos_bias.relative_position_bias_table',
    r'layernorm\.': 'norm.',
}


class Said(NamedTuple):
    """Tokens (B, prefix + h * w, C) after each block and at the end, and the pooled vector."""

    blocks: list[Tensor]
    last: Tensor
    pooled: Tensor


class Peer(NamedTuple):
    published: dict[str, Tensor]  # by the authors' names
    prefix: int
    says: Callable[[Tensor], Said]


def random_weights(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    state = {name: 0.2 * torch.randn(value.shape, generator=draw) for name, value in module.state_dict().items()}
    module.load_state_dict(state)
    return state


def authors_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network of transformers by the names in DINO's, MAE's and BEiT's files."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        block = re.fullmatch(r'.*layers?\.(\d+)\.(.*)', name)
        begun, table = (f'blocks.{block[1]}.', INSIDE) if block else ('', OUTSIDE)
        rest = block[2] if block else name
        pattern = next(pattern for pattern in table if re.match(pattern, rest))
        found[begun + re.sub(f'^{pattern}', table[pattern], rest)] = value
    for name in [name for name in found if name.endswith('attn.q.weight')]:
        block = name.removesuffix('q.weight')
        found[f'{block}qkv.weight'] = torch.cat([found.pop(f'{block}{part}.weight') for part in 'qkv'])
        if f'{block}k.bias' in found:
            found[f'{block}qkv.bias'] = torch.cat([found.pop(f'{block}{part}.bias') for part in 'qkv'])
        else:  # BEiT
            found |= {f'{block}{part}_bias': found.pop(f'{block}{part}.bias') for part in 'qv'}
    return found


def listening(blocks: Any, forward: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], Said]:
    def says(x: Tensor) -> Said:
        kept: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda *inner: kept.append(inner[2][0] if isinstance(inner[2], tuple) else inner[2]))
            for block in blocks
        ]
        last, pooled = forward(x)
        for hook in hooks:
            hook.remove()
        return Said(kept, last, pooled)

    return says


def peer_of(family: str, height: int, width: int) -> Peer:
    """The package's network for images of this size, with the weights of one for 64 x 64."""
    return {
        'dino': _dino,
        'dinov2_registers': _dinov2,
        'mae': _mae,
        'vit': _torchvision,
        'beit2': _beit2,
        'convnext': _convnext,
    }[family](height, width)


def _transformers(family: str, height: int, width: int, **settings: Any) -> Any:
    transformers = pytest.importorskip('transformers')
    config = getattr(transformers, f'{family}Config')(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        image_size=(height, width),
        patch_size=16,
        layer_norm_eps=1e-6,
        **settings,
    )
    pooling = {} if family in ('ViTMAE', 'Dinov2WithRegisters') else dict(add_pooling_layer=False)
    return getattr(transformers, f'{family}Model')(config, **pooling).eval()


def _layers(network: Any) -> Any:
    return next(module for module in network.modules() if isinstance(module, nn.ModuleList) and len(module) == DEPTH)


def _plain(network: Any, published: dict[str, Tensor], prefix: int, **how: Any) -> Peer:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        last = network(pixel_values=x, **how).last_hidden_state
        return last, last[:, 0]

    return Peer(published, prefix, listening(_layers(network), forward))


def _grid(positions: Tensor) -> Tensor:
    return positions[:, 1:].reshape(1, SIDE // 16, SIDE // 16, WIDTH).permute(0, 3, 1, 2)


def _with(positions: Tensor, plane: Tensor) -> Tensor:
    return torch.cat([positions[:, :1], plane.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _dino(height: int, width: int) -> Peer:
    """Positions by DINO's interpolate_pos_encoding."""
    state = random_weights(_transformers('ViT', SIDE, SIDE))
    network, positions = _transformers('ViT', height, width), state['embeddings.position_embeddings']
    plane = _grid(positions)
    if (height, width) != (SIDE, SIDE):
        factors = (height // 16 + 0.1) / plane.shape[2], (width // 16 + 0.1) / plane.shape[3]
        plane = F.interpolate(plane, scale_factor=factors, mode='bicubic')
    network.load_state_dict({**state, 'embeddings.position_embeddings': _with(positions, plane)})
    return _plain(network, authors_names(state), 1)


def _dinov2(height: int, width: int) -> Peer:
    network = _transformers('Dinov2WithRegisters', SIDE, SIDE, num_register_tokens=3)
    return _plain(network, authors_names(random_weights(network)), 4)


def _mae(height: int, width: int) -> Peer:
    network = _transformers('ViTMAE', SIDE, SIDE, mask_ratio=0.0)
    network.config.image_size = SIDE
    order = torch.arange(height // 16 * (width // 16))[None].expand(2, -1).float()  # patches stay in order
    published = authors_names(random_weights(network))
    return _plain(network, published, 1, noise=order, interpolate_pos_encoding=(height, width) != (SIDE, SIDE))


def _beit2(height: int, width: int) -> Peer:
    settings = dict(
        use_shared_relative_position_bias=True, use_mean_pooling=False, layer_scale_init_value=0.1, use_mask_token=True
    )
    state = random_weights(_transformers('Beit', SIDE, SIDE, **settings))
    network = _transformers('Beit', height, width, **settings)
    name = next(name for name in state if 'relative_position_bias_table' in name)
    table = beit_table(state[name], SIDE // 16, height // 16, width // 16)
    network.load_state_dict({**state, name: table})
    training_only = {
        'lm_head.weight': torch.zeros(5, WIDTH),
        'cls_pt_layers.0.norm1.weight': torch.zeros(WIDTH),
        'rel_pos_bias.relative_position_index': torch.zeros(17, 17),
    }
    return _plain(network, {**authors_names(state), **training_only}, 1)


def beit_table(table: Tensor, side: int, height: int, width: int) -> Tensor:
    """The bias table for height x width patches, by SciPy's spline at the distances of BEiT's fine-tuning script."""
    from scipy.interpolate import RectBivariateSpline

    if (side, side) == (height, width):
        return table

    def places(reach: int) -> np.ndarray:
        half, left, right = side - 1, 1.01, 1.5
        while right - left > 1e-6:
            q = (left + right) / 2
            left, right = (left, q) if sum(q**power for power in range(half)) > reach else (q, right)
        one_side = [sum(q**power for power in range(count)) for count in range(1, half + 1)]
        return np.array([-place for place in reversed(one_side)] + [0.0, *one_side])

    rows, columns = (np.arange(1 - size, size) for size in (height, width))
    length, heads = 2 * side - 1, []
    for head in range(table.shape[1]):
        plane = table[:-3, head].reshape(length, length).double().numpy()
        heads.append(
            torch.from_numpy(RectBivariateSpline(places(height - 1), places(width - 1), plane)(rows, columns)).flatten()
        )
    return torch.cat([torch.stack(heads, 1).float(), table[-3:]])


def _torchvision(height: int, width: int) -> Peer:
    """Positions by torchvision's interpolate_embeddings, which takes squares."""
    models = pytest.importorskip('torchvision.models.vision_transformer')
    assert height == width

    def build(size: int) -> Any:
        return models.VisionTransformer(size, 16, DEPTH, HEADS, WIDTH, 4 * WIDTH, num_classes=5).eval()

    state, network = random_weights(build(SIDE)), build(height)
    network.load_state_dict(models.interpolate_embeddings(height, 16, dict(state)))

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []
        hook = network.encoder.register_forward_hook(lambda _, given, output: kept.append(output))
        network(x)
        hook.remove()
        return kept[0], kept[0][:, 0]

    return Peer(state, 1, listening(network.encoder.layers, forward))


def _convnext(height: int, width: int) -> Peer:
    models = pytest.importorskip('torchvision.models.convnext')
    sizes = [(8, 16, 1), (16, 24, 1), (24, WIDTH, 1), (WIDTH, None, DEPTH)]
    network = models.ConvNeXt([models.CNBlockConfig(*size) for size in sizes], num_classes=5).eval()
    published = random_weights(network)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        last = network.features(x)
        return last, network.classifier[:2](network.avgpool(last))

    def says(x: Tensor) -> Said:
        found = listening(network.features[-1], forward)(x)
        tokens = [each.flatten(2).transpose(1, 2) for each in (*found.blocks, found.last)]
        return Said(tokens[:-1], tokens[-1], found.pooled)

    return Peer(published, 0, says)
