"""LlamaGen's transformers at full size: every tensor of every key list is mapped to ours, and the mapping is invertible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.published import read_golden, read_manifest
from vq.cli.convert import main
from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.published.llamagen_gpt import convert, restore
from vq.io.weights import load_model_from
from vq.registries import VQGeneratorRegistry

MANIFESTS = [f'llamagen_gpt_{size}_c2i_{pixels}' for size in ('b', 'l', 'xl') for pixels in (256, 384)]


def on_meta(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


def by_formula(depth: int, dim: int, ffn: int) -> dict[str, list[int]]:
    shapes = {f'{name}.weight': [16384, dim] for name in ('tok_embeddings', 'output')}
    shapes |= {'cls_embedding.embedding_table.weight': [1001, dim], 'norm.weight': [dim]}
    for layer in range(depth):
        for name, shape in (
            ('attention.wqkv', [3 * dim, dim]),
            ('attention.wo', [dim, dim]),
            ('feed_forward.w1', [ffn, dim]),
            ('feed_forward.w3', [ffn, dim]),
            ('feed_forward.w2', [dim, ffn]),
            ('attention_norm', [dim]),
            ('ffn_norm', [dim]),
        ):
            shapes[f'layers.{layer}.{name}.weight'] = shape
    return shapes


def check(state: dict[str, Tensor], image_size: int) -> dict:
    converted = convert(state, image_size=image_size)
    with torch.device('meta'):
        generator = VQGeneratorRegistry.build(converted.generator, 'generator')
    assert shapes_of(converted.tensors) == {
        f'generator.{key}': tuple(value.shape) for key, value in generator.state_dict().items()
    }
    assert shapes_of(restore(converted.tensors)) == shapes_of(state)
    assert not converted.dropped
    return converted.generator


@pytest.mark.slow
@pytest.mark.parametrize('name', MANIFESTS)
def test_every_tensor_maps_both_ways(name: str) -> None:
    manifest = read_manifest(name)
    generator = check(on_meta(manifest['tensors']), int(name[-3:]))
    side = int(name[-3:]) // 16
    theirs = manifest['config']
    assert generator['network']['depth'] == theirs['n_layer'] and generator['network']['heads'] == theirs['n_head']
    assert generator['network']['dim'] == theirs['dim'] and generator['network']['grid'] == (side, side)
    assert generator['classes'] == theirs['num_classes'] == 1000
    assert generator['codebooks'] == (theirs['vocab_size'],)


@pytest.mark.parametrize(('depth', 'dim', 'heads', 'ffn'), [(48, 1536, 24, 4096), (24, 3200, 32, 8704)])
def test_sizes_without_a_key_list_follow_the_formula(depth: int, dim: int, heads: int, ffn: int) -> None:
    network = check(on_meta(by_formula(depth, dim, ffn)), 384)['network']
    assert (network['depth'], network['heads'], network['kv_heads'], network['ffn_dim']) == (depth, heads, heads, ffn)


def test_the_formula_is_that_of_the_key_lists() -> None:
    assert by_formula(12, 768, 2048) == read_manifest('llamagen_gpt_b_c2i_256')['tensors']


@pytest.mark.parametrize('name', ['llamagen_gpt_a', 'llamagen_gpt_gqa'])
def test_values_go_back_to_where_they_came_from(name: str) -> None:
    peer = read_golden(name)
    converted = convert(peer.state, image_size=64, heads=4)
    assert converted.generator['network']['kv_heads'] == (peer.meta['config']['n_kv_head'] or 4)
    back = restore(converted.tensors)
    assert back.keys() == peer.state.keys()
    assert all(torch.equal(back[key], value) for key, value in peer.state.items())


@pytest.mark.parametrize('nest', ['model', None])
def test_tool_writes_what_a_task_loads(nest: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = read_golden('llamagen_gpt_a')
    torch.save({nest: peer.state, 'steps': 3} if nest else peer.state, tmp_path / 'c2i.pt')
    arguments = ['llamagen_gpt', str(tmp_path / 'c2i.pt'), '--options', 'image_size:64', 'heads:4']
    assert main(arguments) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines['tokens'] == '4 x 4 of 48 codes, 10 classes'
    assert lines['network'] == '2 layers of 32 channels, 4 heads'
    output = tmp_path / 'c2i.pt.converted'
    config = json.loads(tensorfile.read_header(output).metadata['vq.generator'])
    task = torch.nn.Module()
    task.generator = VQGeneratorRegistry.build(config, 'generator')
    report = load_model_from(task, [output])
    assert len(report.loaded) == len(task.state_dict()) and not report.unexpected
    assert torch.equal(task.generator.class_embedding.weight, peer.state['cls_embedding.embedding_table.weight'])


def test_other_files_are_refused() -> None:
    state = dict(read_golden('llamagen_gpt_a').state)
    with pytest.raises(UserError, match='unknown: cap_proj'):
        convert({**state, 'cap_proj.weight': torch.zeros(2)})
    with pytest.raises(UserError, match=r'has no network\.blocks\.1\.up'):
        convert({key: value for key, value in state.items() if key != 'layers.1.feed_forward.w3.weight'})
    with pytest.raises(UserError, match='do not divide into 5 heads'):
        convert(state, heads=5)
    with pytest.raises(UserError, match='not a tensor of a LlamaGen'):
        restore({'generator.start': torch.zeros(3)})
