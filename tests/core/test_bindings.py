"""Settings that follow from other parts: filled in if a config leaves them out, refused if the config contradicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from vq.core.bindings import Bound, same
from vq.core.check import check_config, find_problems
from vq.core.errors import ConfigError
from vq.core.meta import facts_of
from vq.core.registry import Registry


class Part(torch.nn.Module):
    """An interface."""


class BoundRegistry(Registry):
    """The root of the toys of this file."""


class PartRegistry(BoundRegistry):
    interface = 'tests.core.test_bindings:Part'


BUILT: list[str] = []  # devices of codebooks, in the order they were built


@PartRegistry.register_()
class Book(Part):
    def __init__(self, codes: int, sizes: tuple[int, ...] = (), continuous: bool = False) -> None:
        super().__init__()
        self.codes, self.sizes = codes, tuple(sizes)
        self.weight = torch.nn.Parameter(torch.rand(codes))
        self.continuous = continuous
        BUILT.append(self.weight.device.type)

    @property
    def counted(self) -> Bound:
        if self.continuous:
            raise ConfigError('Book is continuous', 'Leave counters out.')
        return Bound(self.codes, lambda given: same(given, self.sizes or self.codes))


@PartRegistry.register_()
class Counter(Part):
    def __init__(self, codes: int | list[int], name: str = '') -> None:
        super().__init__()
        self.codes, self.name = codes, name


@PartRegistry.register_()
class Plain(Part):
    """Takes no bound parameters."""


@PartRegistry.register_()
class Network(Part):
    def __init__(self, ids: int, length: int) -> None:
        super().__init__()
        self.ids, self.length = ids, length
        self.weight = torch.nn.Parameter(torch.rand(ids))


def ids_of(settings: Mapping[str, Any]) -> int:
    return settings['codes'] + settings['classes']


def length_of(settings: Mapping[str, Any]) -> Bound | None:
    least = settings['codes']
    return None if settings['open'] else Bound(least, lambda given: given >= least, f'{least} or more')


@PartRegistry.register_()
class Writer(Part):
    binds = {'network.ids': ids_of, 'network.length': length_of}

    def __init__(self, network: Part, codes: int, sizes: tuple[int, ...] = (), classes: int = 2, open: bool = False) -> None:
        super().__init__()
        self.network, self.codes, self.sizes = network, codes, tuple(sizes)


@PartRegistry.register_()
class Model(Part):
    """The writer comes before the part that its settings follow from."""

    binds = {'writer.codes': 'book.codes', 'writer.sizes': 'book.sizes'}

    def __init__(self, writer: Part | None = None, book: Part | None = None) -> None:
        super().__init__()
        self.writer, self.book = writer, book

    @property
    def counted(self) -> Bound:
        return self.book.counted


@PartRegistry.register_()
class Watch(Part):
    binds = {'counters.*.codes': 'model.counted', 'row.*.codes': 'model.counted'}

    def __init__(self, model: Part | None = None, counters: dict[str, Part] | None = None, row: list[Part] = ()) -> None:
        super().__init__()
        self.model, self.counters, self.row = model, counters or {}, row


BOOK = dict(type='Book', codes=5)
WRITER = dict(type='Writer', network=dict(type='Network'))


def model_of(writer=WRITER, book=BOOK, **others):
    return dict(type='Model', writer=writer, book=book, **others)


def build(config):
    check_config(PartRegistry, config, 'top')
    BUILT.clear()
    torch.manual_seed(0)
    return PartRegistry.build(config, 'top')


def refused(config):
    with pytest.raises(ConfigError) as error:
        build(config)
    return error.value.message


# filling


def test_what_is_absent_is_filled_through_all_levels():
    model = build(model_of())
    assert (model.writer.codes, model.writer.sizes) == (5, ())
    assert (model.writer.network.ids, model.writer.network.length) == (7, 5)


def test_none_is_absent():
    writer = dict(type='Writer', codes=None, network=dict(type='Network', ids=None, length=None))
    model = build(model_of(writer))
    assert (model.writer.codes, model.writer.network.ids) == (5, 7)


def test_functions_see_the_owners_defaults_and_what_its_own_owner_filled():
    assert build(model_of(dict(WRITER, classes=10))).writer.network.ids == 15


def test_nothing_is_bound_where_a_function_gives_none():
    assert 'network: Network needs length' in refused(model_of(dict(WRITER, open=True)))
    model = build(model_of(dict(WRITER, open=True, network=dict(type='Network', length=1))))
    assert model.writer.network.length == 1


def test_nothing_is_filled_from_an_absent_sibling():
    assert [message for message, _ in find_problems(PartRegistry, dict(type='Model', writer=WRITER), 'top')] == [
        "top.writer: Writer needs 'codes' (int)"
    ]
    with pytest.raises(ConfigError, match=r'top\.writer: Writer needs codes'):
        PartRegistry.build(dict(type='Model', writer=WRITER), 'top')


def test_parts_without_the_parameter_are_left_alone():
    watch = build(dict(type='Watch', model=model_of(), counters=dict(a=dict(type='Counter'), b=dict(type='Plain'), c=None)))
    assert watch.counters['a'].codes == 5 and isinstance(watch.counters['b'], Plain) and 'c' not in watch.counters


def test_each_part_of_a_list_is_a_target():
    watch = build(dict(type='Watch', model=model_of(), row=[dict(type='Plain'), dict(type='Counter', name='x')]))
    assert (watch.row[1].codes, watch.row[1].name) == (5, 'x')


def test_configs_stay_as_they_were():
    config = dict(type='Watch', model=model_of(), counters=dict(a=dict(type='Counter')))
    build(config)
    assert config == dict(type='Watch', model=model_of(), counters=dict(a=dict(type='Counter'))) and 'codes' not in WRITER


def test_parts_that_were_given_built():
    book = build(BOOK)
    model = build(model_of(book=book))
    assert model.book is book and model.writer.codes == 5 and BUILT == []
    counter = Counter(99)
    watch = build(dict(type='Watch', model=model, counters=dict(a=counter, b=dict(type='Counter'))))
    assert watch.counters['a'] is counter and counter.codes == 99 and watch.counters['b'].codes == 5


# comparing


@pytest.mark.parametrize('sizes', [(), [], (5,), [5]])
def test_equal_values_are_accepted(sizes):
    build(dict(type='Watch', model=model_of(book=dict(BOOK, sizes=sizes)), counters=dict(a=dict(type='Counter', codes=[5]))))
    build(model_of(dict(WRITER, codes=5, sizes=sizes), dict(BOOK, sizes=sizes)))


@pytest.mark.parametrize(
    ('given', 'value', 'equal'),
    [
        (5, (5,), True),
        ((5,), 5, True),
        ([1, (2, 3)], (1, [2, 3]), True),
        ((), [], True),
        (5, (5, 5), False),
        (5, 6, False),
        ((1, 2), (2, 1), False),
        ((), 0, False),
    ],
)
def test_what_is_equal(given, value, equal):
    assert same(given, value) is equal


def test_a_different_value_is_refused_naming_both():
    assert refused(model_of(dict(WRITER, codes=512))) == 'top.writer.codes is 512 in the config, and top.book has 5'
    config = dict(type='Watch', model=model_of(), counters=dict(a=dict(type='Counter', codes=512)))
    assert refused(config) == 'top.counters.a.codes is 512 in the config, and top.model has 5'
    assert refused(dict(type='Watch', model=model_of(), row=[dict(type='Counter', codes=[4])])) == (
        'top.row[0].codes is [4] in the config, and top.model has 5'
    )


def test_a_different_value_is_refused_too_where_all_values_are_given():
    writer = dict(type='Writer', codes=6, sizes=(), network=dict(type='Network', ids=8, length=6))
    assert refused(model_of(writer)) == 'top.writer.codes is 6 in the config, and top.book has 5'


def test_values_that_a_function_gives_are_compared():
    writer = dict(type='Writer', network=dict(type='Network', ids=8))
    assert (
        refused(model_of(writer))
        == 'top.writer.network.ids is 8 in the config, and the other settings of top.writer require 7'
    )


def test_further_values_may_be_accepted():
    model = build(model_of(dict(type='Writer', network=dict(type='Network', length=50))))
    assert model.writer.network.length == 50
    assert refused(model_of(dict(type='Writer', network=dict(type='Network', length=4)))).endswith('require 5 or more')
    book = dict(BOOK, sizes=(5, 5))
    watch = build(dict(type='Watch', model=model_of(None, book), counters=dict(a=dict(type='Counter', codes=[5, 5]))))
    assert watch.counters['a'].codes == [5, 5]


def test_a_source_may_refuse():
    config = dict(type='Watch', model=model_of(None, dict(BOOK, continuous=True)), counters=dict(a=dict(type='Counter')))
    assert refused(config) == 'top.counters.a.codes: Book is continuous'


def test_a_source_without_the_attribute():
    config = dict(type='Watch', model=dict(type='Plain'), counters=dict(a=dict(type='Counter')))
    assert refused(config) == "top.counters.a.codes is taken from 'counted' of top.model, which has no such attribute"
    config['counters']['a']['codes'] = 3  # no part contradicts
    assert build(config).counters['a'].codes == 3


def test_targets_have_two_forms():
    class Wrong(Part):
        binds = {'a.b.c': 'd'}

        def __init__(self, a: Part) -> None: ...

    with pytest.raises(ConfigError, match=r"Wrong\.binds has the target 'a\.b\.c'"):
        PartRegistry.build(dict(type=Wrong, a=dict(type='Plain')), 'top')


# siblings that are built later


def test_a_later_sibling_is_asked_without_changing_the_draws():
    explicit = dict(type='Writer', codes=5, sizes=(), network=dict(type='Network', ids=7, length=5))
    first = build(model_of(explicit))
    assert BUILT == ['cpu'], 'nobody asks where the config says everything'
    second = build(model_of(book=dict(BOOK, continuous=False)))  # another text: not cached
    assert BUILT == ['meta', 'cpu']
    state = dict(second.state_dict())
    assert state and all(torch.equal(state[name], value) for name, value in first.state_dict().items())


def test_a_sibling_is_asked_once_per_process():
    config = model_of(book=dict(BOOK, codes=11))
    build(config)
    build(config)
    assert BUILT == ['cpu']
    assert facts_of(PartRegistry, dict(BOOK, codes=11), ('codes', 'sizes')) == {'codes': 11, 'sizes': ()}
    assert BUILT == ['cpu'], 'the answer is that of the binding'


def test_siblings_with_built_parts_inside_have_no_text_and_are_asked_each_time():
    class Holder(Part):
        def __init__(self, inner: Part) -> None:
            super().__init__()
            self.codes, self.sizes = inner.codes, ()

    config = model_of(book=dict(type=Holder, inner=build(BOOK)))
    assert build(config).writer.codes == 5 and build(config).writer.codes == 5
