"""LayoutDiffuse: cells of boxes, maps of classes, attention within regions with its gradients, and whole UNets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.published import Golden, read_golden
from vq.conditioners.layout import SegmentationConditioner
from vq.core.conditions import Condition
from vq.denoisers.unet.attention import map_of
from vq.denoisers.unet.layout_cells import box_cells, class_map, covered, labels_at
from vq.denoisers.unet.network import UNet
from vq.denoisers.unet.region_attention import RegionAttention
from vq.interfaces import Conditioned
from vq.interfaces.conditions import Layout
from vq.io.published.ldm_unet import convert
from vq.io.published.unet import flat, from_latent_diffusion

FILES = ('layout_attn_full', 'layout_attn_v1', 'layout_attn_v2', 'layout_attn_segmentation')
TABLE = 'attention.class_embedder.class_embedder.weight'
NAMES = {'norm': 'norm', 'qkv': 'qkv', 'attention.to_prompt_token': 'prompt', 'proj_out': 'proj'}


def close(found: Tensor, expected: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol * expected.abs().max().item())


def layout_of(peer: Golden, case: str, table: Tensor) -> Layout:
    """Boxes x, y, width, height, class; or labels, of which 255 are of nothing."""
    if f'in/{case}_labels' in peer.arrays:
        labels = peer[f'in/{case}_labels']
        return Layout(table, labels=torch.where(labels == 255, len(table) - 1, labels))
    boxes = peer[f'in/{case}_boxes']
    return Layout(table, boxes[..., :4], boxes[..., 4].long(), torch.ones(boxes.shape[:2], dtype=torch.bool))


def attention_of(peer: Golden, heads: int = 1) -> tuple[RegionAttention, Tensor]:
    """The adapter, and the class table."""
    groups = peer.meta['num_groups']
    found = RegionAttention(peer.meta['channels'], 12, peer.meta['variant'], own_class=False, groups=groups, heads=heads)
    state, own = dict(peer.state), {}
    table = state.pop(TABLE).requires_grad_()
    for key, value in state.items():
        name, _, leaf = key.rpartition('.')
        own[f'{NAMES[name]}.{leaf}'] = flat(value)
    found.load_state_dict(own)
    return found, table


def test_cells_of_boxes(golden: Any) -> None:
    peer = golden('layout_box_cells')
    boxes = peer['in/boxes'][:, :4]
    for height, width in ((8, 8), (16, 16), (6, 10)):
        assert torch.equal(box_cells(boxes, height, width), peer[f'out/region_{height}x{width}'])
        assert torch.equal(covered(boxes, height, width), peer[f'out/mask_{height}x{width}'])


def test_maps_of_labels(golden: Any) -> None:
    """The conditioner takes 255 for nothing."""
    peer = golden('layout_segmentation_map')
    (table,) = peer.state.values()
    conditioner = SegmentationConditioner(len(table) - 1, table.shape[1])
    conditioner.table.weight.data = table
    layout = conditioner(Condition(mask=peer['in/labels']), 2).layout
    for size in (32, 16, 8):
        assert torch.equal(labels_at(peer['in/labels'], size, size), peer[f'out/labels_{size}'])
        found = class_map(layout, size, size).unflatten(1, (size, size))
        assert torch.equal(found, peer[f'out/prompt_map_{size}'])


@pytest.mark.parametrize('name', FILES)
def test_region_attention(name: str) -> None:
    """With ``own_class=False``, the rule of the published code. No context of the partial variants is that of no box."""
    peer = read_golden(name)
    cases = ('mask', 'all_ignored', 'wide') if 'segmentation' in name else ('boxes', 'empty', 'wide')
    for heads, end in ((1, 'output'), (2, 'output_2heads')):
        block, table = attention_of(peer, heads)
        for case in cases:
            x, layout = peer[f'in/{case}_x'], layout_of(peer, case, table)
            close(block(x, Conditioned(layout=layout)), peer[f'out/{case}_{end}'])
            if heads == 1:
                close(class_map(layout, *x.shape[2:]).unflatten(1, x.shape[2:]), peer[f'out/{case}_prompt_map'])
                close(map_of(block.mixed(x, layout), x), peer[f'out/{case}_attention'])
        x = peer[f'in/{cases[0]}_x']
        none = Conditioned(layout=layout_of(peer, 'empty', table)) if name.endswith(('v1', 'v2')) else None
        close(block(x, none), peer[f'out/none_{end}'])


@pytest.mark.parametrize('name', FILES)
def test_gradients_of_region_attention(name: str) -> None:
    peer = read_golden(name)
    block, table = attention_of(peer)
    case = 'mask' if 'segmentation' in name else 'boxes'
    x = peer[f'in/{case}_x'].requires_grad_()
    total = (block(x, Conditioned(layout=layout_of(peer, case, table))) * peer['in/cotangent']).sum()
    wanted = {'grad_x': x, 'grad_class_table': table, 'grad_to_prompt_token': block.prompt.weight}
    for key, found in zip(wanted, torch.autograd.grad(total, [*wanted.values()]), strict=True):
        close(found, peer[f'out/{key}'].reshape(found.shape), rtol=1e-3)


def network_of(peer: Golden) -> tuple[UNet, Tensor]:
    told = peer.meta['config']
    text = told.get('text_context_dim')
    own: dict[str, Any] = dict(channels=told['in_channels'], cells=(8, 8), width=told['model_channels'])
    own |= dict(multipliers=tuple(told['channel_mult']), res_blocks=told['num_res_blocks'], sequence_dim=text)
    own |= dict(attention_at=tuple(told['attention_resolutions']), adapters_at=tuple(told['instance_attn_res']))
    if text is None:
        attention: dict[str, Any] = dict(type='SelfAttention', head_dim=told['num_head_channels'])
    else:
        attention = dict(type='SpatialTransformer', heads=told['num_heads'], depth=told['transformer_depth'])
        attention |= dict(prompts=told['num_prompt'], prompt_dim=told['prompt_dim'], image_tokens=told['image_in_kv'])
    adapter = dict(type='RegionAttention', variant=told['instance_prompt_attn_type'], own_class=False)
    size = told['instance_prompt_args']['embedding_dim']
    network = UNet(**own, attn_block_type=attention, adapter_type=adapter, layout_dim=size).eval()
    state = from_latent_diffusion(peer.state, told['num_res_blocks'])
    table = state.pop('table')
    network.load_state_dict(state)
    return network, table


@pytest.mark.parametrize('name', ['layout_unet_text', 'layout_unet_segmentation'])
@torch.no_grad()
def test_whole_networks(name: str) -> None:
    peer = read_golden(name)
    network, table = network_of(peer)
    t = (peer['in/t'] + 1) / 1000
    close(network.time(t), peer['out/time_embedding'], atol=2e-5)
    parts: dict[str, nn.Module] = {
        'input_block_1': network.adapters['down_0_0'],
        'input_block_3': network.adapters['down_1_0'],
        'middle_block': network.middle.res[1],
        'output_block_0': network.adapters['up_0_0'],
    }
    seen: dict[str, Tensor] = {}
    for place, part in parts.items():
        part.register_forward_hook(lambda module, given, found, place=place: seen.update({place: found}))
    text = peer['in/text'] if 'in/text' in peer.arrays else None
    if text is None:
        labels = peer['in/labels']
        layout = Layout(table, labels=torch.where(labels == 255, len(table) - 1, labels))
    else:
        boxes = peer['in/boxes']
        layout = Layout(table, boxes[..., :4], boxes[..., 4].long(), torch.ones(boxes.shape[:2], dtype=torch.bool))
    close(network(peer['in/x'], t, Conditioned(sequence=text, layout=layout)).value, peer['out/output'], atol=2e-5)
    for place, found in seen.items():
        close(found, peer[f'out/after_{place}'], atol=2e-5)
    assert len(seen) == 4
    if layout.boxes is not None:
        none = layout._replace(boxes=layout.boxes[:, :0], categories=layout.categories[:, :0], there=layout.there[:, :0])
        empty = network(peer['in/x'], t, Conditioned(sequence=text, layout=none)).value
        close(empty, peer['out/output_empty_boxes'], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['layout_unet_text', 'layout_unet_segmentation'])
def test_files_of_the_original_are_converted(name: str) -> None:
    """Sizes are read from shapes; the network is that of ``test_whole_networks``, and the class table goes along."""
    peer = read_golden(name)
    wanted, table = network_of(peer)
    told = peer.meta['config']
    heads = {'head_dim': told['num_head_channels']} if told.get('text_context_dim') is None else {'heads': told['num_heads']}
    found = convert({f'model.diffusion_model.{key}': value for key, value in peer.state.items()}, **heads)
    settings = {key: value for key, value in found.denoiser.items() if key != 'type'}
    if settings['attn_block_type']['type'] == 'SelfAttention':
        settings['adapter_type'] = dict(settings['adapter_type'], variant='segmentation')
    network = UNet(cells=(8, 8), **settings)
    network.load_state_dict({key.removeprefix('denoiser.'): value for key, value in found.tensors.items() if key[:3] == 'den'})
    assert repr(network) == repr(wanted)
    assert all(torch.equal(value, wanted.state_dict()[key]) for key, value in network.state_dict().items())
    assert network.adapters.keys() == wanted.adapters.keys() and network.takes == wanted.takes
    (kept,) = (value for key, value in found.tensors.items() if key.endswith('table.weight'))
    assert torch.equal(kept, table)
