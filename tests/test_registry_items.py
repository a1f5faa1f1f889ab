"""Every registered item is used by a shipped config, can be found by name, and implements the interface of its registry."""

from __future__ import annotations

import pytest

from tests.shipped import composed, entries, fragments, types_in
from vq.core.bindings import bindings_of
from vq.core.parameters import parameters_of
from vq.registries import VQRegistry

# items that commands create, so that no config needs to name them
BY_COMMAND = {
    'VQITRunnerRegistry.Tokenizer': 'vq.tasks.image_tokenization.tokenize',
    'VQITRunnerRegistry.LatentStatistics': 'vq.tools.latents',
    'VQITRunnerRegistry.LatentWriter': 'vq.data latents',
    'VQSMRunnerRegistry.Sampler': 'vq.sample',
    'VQCallbackRegistry.ReconstructionsCallback': 'vq.test --visual',
    'VQCallbackRegistry.SamplesCallback': 'vq.test --samples',
}


def items():
    """(registry, name, item) of all that the package registers."""
    VQRegistry.names()
    return [
        (registry, name, item)
        for registry in VQRegistry.tree()
        for name, item in sorted(registry.data.items())
        if item.__module__.startswith('vq.')
    ]


@pytest.mark.slow
def test_every_item_is_used_by_a_shipped_config():
    used = {name for _, config in fragments() for name in types_in(config)}
    used |= {name for entry in entries() for name in types_in(composed(entry, tiny=False))}
    unused = [
        f'{registry.__name__}.{name}'
        for registry, name, _ in items()
        if not {name, f'{registry.__name__}.{name}'} & used and f'{registry.__name__}.{name}' not in BY_COMMAND
    ]
    assert not unused, f'no shipped config shows how to use {", ".join(unused)}'


def test_exceptions_name_items_that_exist():
    assert set(BY_COMMAND) <= {f'{registry.__name__}.{name}' for registry, name, _ in items()}


@pytest.mark.parametrize(
    ('registry', 'name', 'item'), [pytest.param(*found, id=f'{found[0].__name__}.{found[1]}') for found in items()]
)
def test_item_keeps_the_promises_of_its_registry(registry, name, item):
    for asked, key in ((VQRegistry, f'{registry.__name__}.{name}'), (registry, name)):
        assert asked.parse(key) == (registry, item)  # neither hidden nor ambiguous
    interface = registry.interface_class()
    if interface is not None:
        assert isinstance(item, type) and issubclass(item, interface)
    parameters = list(parameters_of(item))
    for target, source in getattr(item, 'wires', {}).items():
        part, sibling = target.partition('.')[0], source.partition('.')[0]
        assert part in parameters and sibling in parameters
        assert parameters.index(sibling) < parameters.index(part), f'{target} is wired from a part that is built later'
    for binding in bindings_of(item) if 'binds' in vars(item) else ():  # a class below may take fewer parameters
        assert binding.part in parameters and (not binding.sibling or binding.sibling in parameters), binding
    assert item.__doc__ or not isinstance(item, type) or not parameters, 'no docstring says what it does'
