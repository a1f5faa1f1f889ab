"""Settings that generators take from their tokenizer: configs without these numbers build the same modules."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tests.shipped import composed, entries
from vq.assembly.counting import token_facts
from vq.core.check import check_config, find_problems
from vq.core.config import plain
from vq.core.errors import ConfigError, UserError
from vq.core.meta import on_meta
from vq.core.specs import TokenSpec
from vq.generators.networks.llama import LlamaNetwork
from vq.registries import VQTaskRegistry

GENERATORS = [
    name
    for name in entries()
    if name.split('/')[0] in ('ar', 'mage', 'maskgit', 'llamagen') or '/ar' in name or 'maskgit' in name
]
NUMBERS = ('cells', 'codebooks')
TOKENIZER = dict(
    type='VQGAN',
    encoder=dict(type='ConvEncoder', width=8, multipliers=(1, 1), attention_levels=(), norm_groups=4, out_channels=8),
    quantizer=dict(type='VectorQuantizer', codebook_size=13, embedding_dim=8),
    decoder=dict(type='ConvDecoder', width=8, multipliers=(1, 1), attention_levels=(), norm_groups=4),
)
LLAMA = dict(type='LlamaNetwork', dim=16, depth=1, heads=2)


def entries_of_generators(tiny):
    for name in GENERATORS:
        model = composed(name, tiny=tiny).trainer.model
        if model['type'] == 'SequenceModeling':
            yield name, plain(model)


def bare(model):
    """The config without settings that follow from the tokenizer."""
    model = copy.deepcopy(model)
    generator = model['generator']
    for key in NUMBERS:
        generator.pop(key, None)
    network = generator.get('network')
    if network is not None:
        if network.pop('grid', None) is not None:
            network['rope'] = 'grid'
        for key in ('vocabulary', 'prefix'):
            network.pop(key, None)
        if network.get('length') != 1024:  # that of a published table
            network.pop('length', None)
    return model


def explicit(model):
    """The config with all these settings, set by hand."""
    model = bare(model)
    tokens = token_facts(model['tokenizer'])
    generator, shape = model['generator'], tokens.shape
    generator.update(cells=tokens.cells, codebooks=tokens.codebooks)
    if generator['type'] == 'Autoregressive':
        network, joint = generator['network'], generator.get('vocabulary') == 'joint'
        ids = generator['classes'] + (generator['label_drop'] > 0) if joint else 0
        network['vocabulary'] = ids + sum(tokens.codebooks)
        if network.pop('rope', None) == 'grid' and len(shape) == 2:
            network.update(grid=shape, prefix=1)
        else:
            network.setdefault('length', math.prod(shape))
    return model


def build(model, seed=5):
    check_config(VQTaskRegistry, model, 'trainer.model')
    torch.manual_seed(seed)
    return VQTaskRegistry.build(model, 'trainer.model')


def described(module):
    """Plain settings of all sub-modules, by path."""
    kinds = (int, float, bool, str, tuple, type(None))
    return {
        name: (type(part).__name__, {key: value for key, value in vars(part).items() if isinstance(value, kinds)})
        for name, part in module.named_modules()
    }


def assert_same_modules(one, other):
    assert described(one) == described(other)
    state, expected = one.state_dict(), other.state_dict()
    assert list(state) == list(expected) and [value.shape for value in state.values()] == [
        value.shape for value in expected.values()
    ]
    for (name, found), (key, wanted) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        assert name == key and found.shape == wanted.shape  # those that are in no checkpoint too


@pytest.mark.slow
@pytest.mark.parametrize('form', ['composed', 'by hand'])
def test_entries_without_the_numbers_are_the_same_models_in_values(form):
    seen = set()
    for name, model in entries_of_generators(tiny=True):
        one, other = build(bare(model)), build(model if form == 'composed' else explicit(model))
        assert_same_modules(one, other)
        buffers = dict(other.named_buffers())
        assert all(torch.equal(value, buffers[key]) for key, value in one.named_buffers()), name
        expected = other.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in one.state_dict().items()), name
        seen |= {type(one.generator).__name__, type(one.generator.network).__name__}
    assert seen >= {'Autoregressive', 'MaskedGenerator', 'MAGEGenerator', 'LlamaNetwork', 'GPT2Network', 'HuggingFaceLlama'}


@pytest.mark.slow
def test_entries_without_the_numbers_are_the_same_models_in_full_size():
    for _, model in entries_of_generators(tiny=False):
        with on_meta():
            assert_same_modules(build(bare(model)), build(explicit(model)))


# one by one


def sequence(generator, tokenizer=TOKENIZER, size=8):
    return dict(
        type='SequenceModeling',
        generator=generator,
        tokenizer=dict(type='FrozenTokenizer', tokenizer=tokenizer, image_size=size),
        sampler=dict(type='Greedy'),
        guidance=dict(type='ConstantGuidance'),
    )


def generator_of(network=LLAMA, **options):
    return dict(type='Autoregressive', network=network, **options)


@pytest.mark.parametrize(
    ('options', 'vocabulary'),
    [
        ({}, 13),
        (dict(classes=4, vocabulary='joint'), 18),
        (dict(classes=4, vocabulary='joint', label_drop=0.0), 17),
        (dict(classes=4), 13),
    ],
)
def test_vocabularies(options, vocabulary):
    generator = build(sequence(generator_of(**options))).generator
    assert generator.network.vocabulary == vocabulary and generator.tokens == TokenSpec((4, 4), (13,))


def test_each_of_several_codebooks_is_in_the_vocabulary():
    quantizer = dict(
        type='ResidualQuantizer', quantizer=dict(type='VectorQuantizer', codebook_size=7, embedding_dim=8), stages=3
    )
    tokenizer = {**TOKENIZER, 'quantizer': quantizer}
    generator = build(sequence(generator_of(dict(LLAMA, rope='grid')), tokenizer)).generator
    assert generator.tokens == TokenSpec((4, 4), (7, 7, 7))
    assert generator.network.vocabulary == 21
    assert (generator.network.length, generator.network.grid) == (48, None), 'a grid has two axes: this is a line'


def test_positions_on_a_grid_or_a_line():
    line, grid = (build(sequence(generator_of(dict(LLAMA, **more)))).generator.network for more in ({}, {'rope': 'grid'}))
    assert (line.length, line.grid, line.prefix) == (16, None, 0)
    assert (grid.length, grid.grid, grid.prefix) == (17, (4, 4), 1)


@pytest.mark.parametrize(
    ('more', 'found'),
    [
        (dict(length=40), (40, None, 0)),
        (dict(grid=(4, 4), prefix=1), (17, (4, 4), 1)),
        (dict(grid=(6, 6), prefix=2, rope='grid'), (38, (6, 6), 2)),
        (dict(grid=(4, 4)), (16, (4, 4), 0)),
        (dict(rope='grid', length=16), (16, (4, 4), 1)),
    ],
)
def test_places_that_the_config_gives_stay(more, found):
    network = build(sequence(generator_of(dict(LLAMA, **more)))).generator.network
    assert (network.length, network.grid, network.prefix) == found


@pytest.mark.parametrize(
    ('generator', 'message'),
    [
        (generator_of(codebooks=(512,)), 'generator.codebooks is (512,) in the config, and trainer.model.tokenizer has (13,)'),
        (
            generator_of(cells=(2, 2)),
            'generator.cells is (2, 2) in the config, and trainer.model.tokenizer has (4, 4)',
        ),
        (
            generator_of(dict(LLAMA, vocabulary=14)),
            'generator.network.vocabulary is 14 in the config, and the other settings of trainer.model.generator require 13',
        ),
        (
            generator_of(dict(LLAMA, length=15)),
            'generator.network.length is 15 in the config, '
            'and the other settings of trainer.model.generator require 16 or more',
        ),
        (
            generator_of(dict(LLAMA, vocabulary=512, length=16), codebooks=(512,), cells=(4, 4)),
            'generator.codebooks is (512,) in the config, and trainer.model.tokenizer has (13,)',
        ),
        (
            dict(type='MaskedGenerator', classes=2, dim=16, depth=1, heads=2, codebook_size=12),
            'generator: codebook_size is 12, and codebooks are (13,)',
        ),
    ],
)
def test_other_values_are_refused(generator, message):
    with pytest.raises(ConfigError) as error:
        build(sequence(generator))
    assert error.value.message == f'trainer.model.{message}'


def test_a_continuous_tokenizer_gives_no_tokens():
    tokenizer = {**TOKENIZER, 'type': 'KLAutoencoder', 'encoder': {**TOKENIZER['encoder'], 'out_channels': 16}}
    tokenizer.pop('quantizer')
    tokenizer['decoder'] = {**TOKENIZER['decoder'], 'in_channels': 8}
    with pytest.raises(UserError, match=r'^trainer\.model\.tokenizer: KLAutoencoder is continuous'):
        build(sequence(generator_of(), tokenizer))
    numbers = dict(cells=(4, 4), codebooks=(13,))
    with pytest.raises(UserError, match=r'^trainer\.model\.generator\.cells: KLAutoencoder is continuous'):
        build(sequence(generator_of(**numbers), tokenizer))


def test_a_generator_without_a_tokenizer_needs_its_numbers():
    problems = [message for message, _ in find_problems(VQTaskRegistry, sequence(generator_of()), 'model')]
    assert problems == []
    model = sequence(generator_of())
    del model['tokenizer']
    problems = [message for message, _ in find_problems(VQTaskRegistry, model, 'model')]
    assert any("needs 'cells'" in message for message in problems) and any("'tokenizer'" in it for it in problems)


def test_networks_say_what_rope_may_be():
    with pytest.raises(ConfigError, match="rope is 'cube'"):
        LlamaNetwork(5, 8, 1, 1, length=4, rope='cube')
    with pytest.raises(ConfigError, match='neither length nor grid'):
        LlamaNetwork(5, 8, 1, 1, rope='grid')
