"""Scalar codes and StyleGAN2's discriminator in files of the reference toolkit."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vq
from tests.io.test_published import shapes_of, state_of
from tests.published import read_golden, read_manifest
from vq.assembly.matching import fit
from vq.cli.convert import convert_file
from vq.core.errors import UserError
from vq.io.published import reference
from vq.registries import VQDiscriminatorRegistry, VQQuantizerRegistry

LEVELS = {8000: [8, 8, 5, 5, 5], 64000: [8, 8, 8, 5, 5, 5]}
FILES = {8000: 'vq_reference_fsq_88555', 64000: 'vq_reference_fsq_888555'}


def table_of(levels: list[int]) -> Tensor:
    """All combinations, the first channel fastest; each channel from -1 on in steps of 1 / floor(L / 2)."""
    channels = [[digit / (level // 2) - 1 for digit in range(level)] for level in reversed(levels)]
    return torch.tensor([row[::-1] for row in itertools.product(*channels)])


def fsq_state(state: dict[str, Tensor], levels: list[int], table: Tensor, middle: int = 256) -> dict[str, Tensor]:
    """A VQGAN's tensors, with quantizer and connectors of the toolkit's FSQ configs."""
    inside = {'_quantizer.', '_post_encode.', '_pre_decode.'}
    kept = {key: value for key, value in state.items() if not key.startswith(tuple(inside))}
    features, back = state['_encoder._projector.2.weight'].shape[0], state['_decoder._in_conv.weight'].shape[1]
    chains = {'_post_encode': [features, middle, len(levels)], '_pre_decode': [len(levels), middle, back]}
    for name, widths in chains.items():
        for index in range(2):
            kept[f'{name}._connectors.{index}._conv.weight'] = table.new_zeros(widths[index + 1], widths[index], 1, 1)
            kept[f'{name}._connectors.{index}._conv.bias'] = table.new_zeros(widths[index + 1])
    return {**kept, reference.TABLE: table}


@pytest.mark.parametrize('codes', LEVELS)
def test_every_tensor_of_a_scalar_tokenizer_maps(codes: int) -> None:
    levels = LEVELS[codes]
    table = torch.empty(codes, len(levels), device='meta')
    state = fsq_state(state_of(read_manifest('vq_reference_vqgan_f16_1024')), levels, table)
    converted = reference.convert(state)
    tokenizer = fit(converted.tokenizer, shapes_of(converted), 'a file')
    assert [keys for keys in converted.dropped.values() if keys != [reference.TABLE]] == []
    assert tokenizer.codebook_size == codes
    assert converted.tokenizer['quantizer'] == {'type': 'FiniteScalarQuantizer', 'levels': levels}
    widths = [tokenizer.get_parameter(f'{name}.convs.0.weight').shape[0] for name in ('post_encode', 'pre_decode')]
    assert widths == [256, 256]


@pytest.mark.parametrize('codes', LEVELS)
def test_levels_are_read_off_the_table_and_give_the_peers_tokens(codes: int) -> None:
    peer, table = read_golden(FILES[codes]), table_of(LEVELS[codes])
    torch.testing.assert_close(table[peer['out/sample_indices']], peer['out/sample_codes'], rtol=0, atol=1e-6)
    levels = reference.levels_of(table)
    assert levels == LEVELS[codes] == peer.meta['levels']
    quantizer = VQQuantizerRegistry.build(dict(type='FiniteScalarQuantizer', levels=levels))
    assert torch.equal(quantizer(peer['in/x']).tokens, peer['out/indices'].long())
    torch.testing.assert_close(quantizer.lookup(peer['out/sample_indices']), peer['out/sample_codes'], rtol=0, atol=1e-6)


@pytest.mark.parametrize('levels', [[3, 5, 4], [7, 7], [4, 4, 4, 4]])
def test_other_levels_are_found_too(levels: list[int]) -> None:
    assert reference.levels_of(table_of(levels)) == levels


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        (torch.zeros(8000), 'K x d is needed'),
        (torch.zeros(60, 3), 'not all combinations'),
        (torch.full((60, 3), float('nan')), 'not all combinations'),
        (table_of([3, 5, 4]) * 2, 'equal steps'),
        (table_of([3, 5, 4]).flip(0), 'equal steps'),
        (torch.empty(60, 3, device='meta'), 'not all combinations'),
    ],
)
def test_other_tables_are_refused(table: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        reference.levels_of(table)
    assert caught.value.hint


def test_a_scalar_tokenizer_is_converted_and_used(tmp_path: Path) -> None:
    """A small tokenizer of ours, written in the toolkit's format, is converted back to the same tokens and pixels."""
    from vq.registries import VQModelRegistry

    shape = dict(width=8, multipliers=(1, 2), residual_blocks=1, attention_levels=(), refine=False)
    torch.manual_seed(0)
    ours = VQModelRegistry.build(
        dict(
            type='VQGAN',
            encoder=dict(type='ConvEncoder', out_channels=16, **shape),
            post_encode=dict(type='ChainConnector', widths=(12,)),
            quantizer=dict(type='FiniteScalarQuantizer', levels=[3, 5, 4]),
            pre_decode=dict(type='ChainConnector', widths=(12,)),
            decoder=dict(type='ConvDecoder', **shape),
        )
    ).eval()
    words = {'blocks.': '_residuals.', 'levels.': '_layers.', 'norm1': '_residual.0', 'conv1': '_residual.2'}
    words |= {'norm2': '_residual.3', 'conv2': '_residual.5', 'shortcut': '_shortcut', 'stem': '_in_conv'}
    words |= {'norm_out': '_projector.0', 'conv_out': '_projector.2', 'resample.conv': '_conv'}
    state = {reference.TABLE: table_of([3, 5, 4])}
    for key, value in ours.state_dict().items():
        side, _, rest = key.partition('.')
        for word, theirs in words.items():
            rest = rest.replace(word, theirs)
        if rest.endswith(('._conv.weight', '._conv.bias')):
            rest = rest.replace('_layers.', '_resamples.')
        if rest.startswith('convs.'):
            rest = f'_connectors.{rest[6]}._conv{rest[7:]}'
        state[f'_{side}.{rest}'] = value
    torch.save({'model': state}, tmp_path / 'model.pth')
    said = dict(convert_file('reference', tmp_path / 'model.pth', {'image_size': 16}, tmp_path / 'model'))
    assert said['codes'] == '60 of 3 channels (FiniteScalarQuantizer)'
    loaded = vq.load(tmp_path / 'model')
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    tokens = loaded.tokenize(image)
    assert torch.equal(tokens, ours.tokenize(image))
    wanted = ((ours.detokenize(tokens) + 1) * 127.5).clamp(0, 255).round()
    assert (loaded.detokenize(tokens).float() - wanted).abs().max() <= 1


NAMES = {  # of the published network at 16 pixels -> of the reference toolkit
    'b16.fromrgb': '_layers.0',
    'b16.conv0': '_layers.1._residual.0',
    'b16.conv1': '_layers.1._residual.1',
    'b16.skip': '_layers.1._shortcut',
    'b8.conv0': '_layers.2._residual.0',
    'b8.conv1': '_layers.2._residual.1',
    'b8.skip': '_layers.2._shortcut',
    'b4.conv': '_layers.4',  # 3 is the statistic of a group
    'b4.fc': '_projector.0',
    'b4.out': '_projector.1',
}


def stylegan2_state(peer: Any) -> dict[str, Tensor]:
    state = {}
    for key, value in peer.state.items():
        place, _, leaf = key.rpartition('.')
        if leaf == 'weight':
            state[f'_discriminator.{NAMES[place]}._original_weight'] = value
        elif leaf == 'bias':
            own = 'bias' if place == 'b4.out' else '_activate.bias'
            state[f'_discriminator.{NAMES[place]}.{own}'] = value
        elif place.endswith(('conv1', 'skip')):  # the layers that blur
            state[f'_discriminator.{NAMES[place]}._blur._kernel'] = value
    return state


def test_the_stylegan2_discriminator_gives_the_peers_logits() -> None:
    peer = read_golden('stylegan2_discriminator')
    state = {**state_of(read_manifest('vq_reference_vqgan_f16_1024')), **stylegan2_state(peer)}
    state = {key: value for key, value in state.items() if not key.startswith('_discriminator._discriminator.')}
    prefix = 'discriminator.'
    found = {key: value for key, value in reference.convert(state).tensors.items() if key.startswith(prefix)}
    settings = {name: peer.meta[name] for name in ('channel_base', 'channel_max')}
    network = VQDiscriminatorRegistry.build(dict(type='StyleGAN2Discriminator', image_size=16, **settings))
    network.load_state_dict({key.removeprefix(prefix): value for key, value in found.items()})
    torch.testing.assert_close(network(peer['in/image']), peer['out/logits_real'], rtol=1e-4, atol=1e-5)
    assert not [key for key in reference.convert(state, discriminator=False).tensors if key.startswith(prefix)]


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('_layers.1._residual.1._blur._kernel', torch.ones(4, 4) / 16, 'another filter'),
        ('_layers.9._original_weight', torch.ones(1), 'not a tensor of'),
        ('_layers.1._residual.0._weight', torch.ones(1), 'not a tensor of'),
    ],
)
def test_a_discriminator_that_is_another_is_refused(key: str, value: Tensor, message: str) -> None:
    state = {**stylegan2_state(read_golden('stylegan2_discriminator')), f'_discriminator.{key}': value}
    state |= state_of(read_manifest('vq_reference_vqgan_f16_1024'))
    state = {key: value for key, value in state.items() if not key.startswith('_discriminator._discriminator.')}
    with pytest.raises(UserError, match=message):
        reference.convert(state)
