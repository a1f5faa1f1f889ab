"""Finding items and building parts."""

from __future__ import annotations

import functools
import json
import sys

import pytest

from tests.core.toys import (
    AnimalRegistry,
    Cat,
    Fern,
    Hamster,
    House,
    HousePetRegistry,
    PlantRegistry,
    Robot,
    Rules,
    SizeRegistry,
    TameRat,
    ToyRegistry,
    WildRegistry,
    times,
)
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.registry import Registry

# names


@pytest.mark.parametrize(
    ('registry', 'key', 'item'),
    [
        (AnimalRegistry, 'Hamster', Hamster),
        (ToyRegistry, 'Fern', Fern),
        (AnimalRegistry, 'HousePetRegistry.Rat', TameRat),
        (HousePetRegistry, 'AnimalRegistry.Cat', Cat),  # upwards
        (SizeRegistry, 'ToyRegistry.SizeRegistry.times', times),  # from the root down again
        (WildRegistry, 'HousePetRegistry.Hamster', Hamster),  # sideways
        (AnimalRegistry, 'AnimalRegistry.WildRegistry.Cat', WildRegistry['Cat']),
        (AnimalRegistry, 'Cat', Cat),  # the registry's own item hides those of its children
        (AnimalRegistry, 'Robot', Robot),  # registered here: trusted without the interface
    ],
)
def test_names_resolve_from_anywhere(registry, key, item):
    assert registry.parse(key)[1] is item


def test_ambiguous_name_lists_the_dotted_ones():
    with pytest.raises(ConfigError, match=r"'Rat' is ambiguous.*HousePetRegistry\.Rat, WildRegistry\.Rat"):
        AnimalRegistry.parse('Rat')


@pytest.mark.parametrize(
    ('registry', 'key', 'message'),
    [
        (AnimalRegistry, 'Hamser', "unknown type 'Hamser' in AnimalRegistry; did you mean 'Hamster'"),
        (PlantRegistry, 'AnimalRegistry.Hamser', 'in AnimalRegistry; did you mean'),
        (AnimalRegistry, 'HusePetRegistry.Rat', "no registry 'HusePetRegistry'; did you mean 'HousePetRegistry'"),
        (
            PlantRegistry,
            'Hamster',
            r"'Hamster' is a HousePetRegistry item \(Animal\), and a PlantRegistry item \(Plant\) is needed",
        ),
        (AnimalRegistry, 'Fern', r"'Fern' is a PlantRegistry item \(Plant\), and a AnimalRegistry item \(Animal\) is needed"),
        (AnimalRegistry, 'PlantRegistry.Fern', r"'PlantRegistry.Fern' is a PlantRegistry item \(Plant\), and a Animal"),
        (AnimalRegistry, 'SizeRegistry.times', r'is a SizeRegistry item, and a AnimalRegistry item \(Animal\) is needed'),
        (SizeRegistry, 'AnimalRegistry.Cat', r'is a AnimalRegistry item \(Animal\), and a SizeRegistry item is needed'),
    ],
)
def test_wrong_names_say_what_was_meant_or_found(registry, key, message):
    with pytest.raises(ConfigError, match=message) as error:
        registry.parse(key)
    assert 'Fern' not in error.value.hint or registry is PlantRegistry  # only what can be used is offered


def test_the_packages_encoders_are_no_tokenizers():
    from vq.registries import VQModelRegistry

    with pytest.raises(ConfigError, match=r'ConvEncoder.*\(Encoder\).*\(Tokenizer\) is needed'):
        VQModelRegistry.parse('ConvEncoder')


def test_name_cannot_be_taken_twice():
    with pytest.raises(ConfigError, match="AnimalRegistry has an item 'Cat' already"):
        AnimalRegistry.register_('Cat')(Hamster)
    assert AnimalRegistry.parse('Cat')[1] is Cat


# packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A registry with items in a package that has not been imported."""

    class LazyRegistry(Registry):
        package = 'lazy_items'

    folder = tmp_path / 'lazy_items'
    (folder / 'deep').mkdir(parents=True)
    (folder / '__init__.py').touch()
    (folder / '__main__.py').write_text('raise AssertionError("a door was opened")')
    (folder / 'deep' / '__init__.py').touch()
    (folder / 'deep' / 'one.py').write_text(
        'from sys import modules\n\n@modules["lazy_test"].LazyRegistry.register_()\ndef late(*, x: int = 1): return x\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, 'lazy_test', type('m', (), {'LazyRegistry': LazyRegistry}))
    yield LazyRegistry, folder
    for name in [name for name in sys.modules if name.startswith('lazy_items')]:
        del sys.modules[name]


def test_a_registry_imports_its_package_on_the_first_miss(package):
    registry, _ = package
    assert 'lazy_items' not in sys.modules
    assert registry.build({'type': 'late', 'x': 4})() == 4


def test_a_package_that_fails_to_import_is_tried_again(package):
    registry, folder = package
    broken = folder / 'broken.py'
    broken.write_text('import a_module_that_is_not_there')
    for _ in range(2):  # not "unknown type" the second time
        with pytest.raises(ModuleNotFoundError, match='a_module_that_is_not_there'):
            registry.parse('missing')
    broken.unlink()
    assert registry.names() == ['late']


def test_users_register_through_custom_imports(tmp_path, monkeypatch, write):
    from vq.assembly.compose import compose
    from vq.registries import VQMetricRegistry

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path / 'my_metrics_of_a_test.py').write_text(
        'from vq.registries import VQMetricRegistry\n\n@VQMetricRegistry.register_()\nclass MetricOfATest:\n    pass\n'
    )
    try:
        compose(str(write('a.py', "custom_imports = ['my_metrics_of_a_test']")), {}, {})
        assert type(VQMetricRegistry.build({'type': 'MetricOfATest'})).__module__ == 'my_metrics_of_a_test'
    finally:
        VQMetricRegistry.data.pop('MetricOfATest', None)
    with pytest.raises(ConfigError, match=r"custom_imports: 'no\.such\.module' cannot be imported"):
        compose(str(write('b.py', "custom_imports = ['no.such.module']")), {}, {})


# building


def build(**parts):
    return AnimalRegistry.build(dict(type='House', **parts), 'home')


CAT = {'type': 'Cat', 'age': 2}


def test_nested_parts_are_built_by_annotation():
    house = build(
        first=CAT,
        herd=[CAT, None, {'type': 'Hamster', 'food': {'type': 'Fern', 'leaves': 1}}],
        pair=(CAT, CAT),
        named={'a': CAT, 'off': None},
        tree={'type': 'Fern'},
        rules={'guest': CAT},
    )
    assert isinstance(house.first, Cat) and house.first.age == 2
    assert [type(animal) for animal in house.herd] == [Cat, Hamster] and house.herd[1].food.leaves == 1
    assert isinstance(house.pair, tuple) and len({id(animal) for animal in house.pair}) == 2
    assert list(house.named) == ['a'] and isinstance(house.named['a'], Cat)
    assert isinstance(house.tree, Fern)
    assert isinstance(house.rules, Rules) and isinstance(house.rules.guest, Cat) and house.rules.limit == 5


def test_functions_are_built_as_partials():
    house = build(size={'type': 'times', 'factor': 3.0}, sizes={'more': {'type': 'plus', 'amount': 2.0}})
    assert isinstance(house.size, functools.partial)
    assert house.size(2.0) == 6.0 and house.sizes['more'](2.0) == 4.0


def test_what_is_no_part_passes_unchanged():
    ready = Cat(1)
    house = build(first=ready, numbers=[1, 2], by_name={'a': 1}, anything={'type': 'Cat', 'age': 1}, herd=[ready])
    assert house.first is ready and house.herd == [ready]
    assert house.numbers == [1, 2] and house.by_name == {'a': 1} and house.anything == {'type': 'Cat', 'age': 1}


def test_none_stays_in_lists_that_hold_no_parts():
    assert build(words=['a', None]).words == ['a', None]


def test_registry_of_the_annotation_builds_whatever_registry_was_asked():
    assert isinstance(ToyRegistry.build({'type': 'House', 'tree': {'type': 'Fern'}}).tree, Fern)


def test_config_may_be_a_config_or_a_dict_and_defaults_yield_to_it():
    for config in ({'type': 'Cat', 'age': 3}, PyConfig(type='Cat', age=3)):
        cat = AnimalRegistry.build(config, age=1, name='x')
        assert (cat.age, cat.name) == (3, 'x')


def test_what_is_no_config_is_refused():
    with pytest.raises(ConfigError, match='home: a part is needed here, not None'):
        AnimalRegistry.build(None, 'home')


def test_build_or_return_builds_plain_dicts_too():
    """todd builds its own Config only, and returns a dict unchanged without an error."""
    for config in (CAT, PyConfig(CAT)):
        assert isinstance(AnimalRegistry.build_or_return(config), Cat)
    ready = Cat(1)
    assert AnimalRegistry.build_or_return(ready) is ready and AnimalRegistry.build_or_return(None) is None


def test_type_may_be_the_class_itself():
    assert isinstance(AnimalRegistry.build({'type': Cat, 'age': 1}), Cat)


def test_constructors_get_plain_dicts_which_c_code_can_read():
    house = build(anything=PyConfig(a={'b': 1}))
    assert json.dumps(house.anything) == '{"a": {"b": 1}}'


@pytest.mark.parametrize('make', [dict, PyConfig])
def test_building_leaves_the_config_alone(make):
    config = make(type='Greedy', food=['fish'], extra=make(inner=[1]))
    AnimalRegistry.build(config)
    assert config == {'type': 'Greedy', 'food': ['fish'], 'extra': {'inner': [1]}}


# wires


def test_wires_fill_what_a_part_takes_from_its_sibling_in_signature_order():
    house = build(third={'type': 'Cat'}, second={'type': 'Cat', 'lives': 4}, first={'type': 'Cat', 'age': 7, 'name': 'x'})
    assert (house.second.age, house.second.name, house.third.age) == (7, 'x', 4)


def test_explicit_value_wins_over_a_wire():
    assert build(first=CAT, second={'type': 'Cat', 'age': 1}).second.age == 1


def test_wire_from_an_absent_sibling_is_left_open():
    with pytest.raises(ConfigError, match=r'home\.second: Cat needs age'):
        build(second={'type': 'Cat'})


def test_wire_of_a_part_that_was_given_built_or_not_at_all():
    ready = Cat(5)
    assert build(first=CAT, second=ready).second is ready
    assert build(first=CAT, second=None).second is None


def test_wire_without_an_attribute_takes_the_sibling_itself():
    house = build(first=CAT, tree={'type': 'Fern'})
    assert house.tree.leaves is house.first


def test_sibling_without_the_wired_attribute_is_named():
    with pytest.raises(ConfigError, match=r"home\.second: 'age' is taken from first\.age, and Hamster has no 'age'"):
        build(first={'type': 'Hamster'}, second={'type': 'Cat'})


# errors


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        ({'first': {'type': 'Catt'}}, r"home\.first: unknown type 'Catt' in AnimalRegistry; did you mean 'Cat'"),
        ({'herd': [CAT, {'type': 'Cat', 'aeg': 1}]}, r"home\.herd\[1\]: Cat has no parameter 'aeg'; did you mean 'age'"),
        ({'named': {'x': {'type': 'Cat'}}}, r'home\.named\.x: Cat needs age'),
        ({'rules': {'limt': 1}}, r"home\.rules: there is no 'limt'; did you mean 'limit'"),
        ({'rules': {'limit': -1}}, r'home\.rules: Rules cannot be built: limit is -1'),
        ({'entry': {}}, r'home\.entry: Entry needs key'),
        ({'rules': {'guest': {'type': 'Cat'}}}, r'home\.rules\.guest: Cat needs age'),
        ({'size': {'type': 'times'}}, r'home\.size: times needs factor'),
        ({'first': {'type': 'Fern'}}, r"home\.first: 'Fern' is a PlantRegistry item"),
        ({'first': {'type': 3}}, r"home\.first: 'type' is 3"),
        ({'first': {'type': 'Picky', 'reason': 'user'}}, r'home\.first: no thanks'),
        ({'first': {'type': 'Picky', 'reason': 'value'}}, r'home\.first: Picky cannot be built: bad fish'),
    ],
)
def test_build_errors_say_the_path(parts, message):
    with pytest.raises(ConfigError, match=message):
        build(**parts)


def test_missing_type_says_what_there_is():
    with pytest.raises(ConfigError, match="home: 'type' is missing") as error:
        HousePetRegistry.build({'food': None}, 'home')
    assert 'Hamster, Rat' in error.value.hint


def test_other_errors_of_a_constructor_carry_the_path_as_a_note():
    with pytest.raises(KeyError) as error:
        build(first={'type': 'Picky', 'reason': 'key'})
    assert error.value.__notes__ == ['while building home.first: Picky']


def test_hint_of_a_constructors_own_error_is_kept():
    with pytest.raises(ConfigError) as error:
        build(first={'type': 'Picky', 'reason': 'user'})
    assert error.value.hint == 'Offer fish.'


# todd's hook


@pytest.fixture
def hooked():
    """An item from outside whose config is converted before it is built."""

    def hook(config, registry, item):
        assert registry is WildRegistry
        config.pop('old')
        config.age = 4
        return config

    WildRegistry.register_('Hooked', build_pre_hook=hook)(type('Hooked', (Cat,), {}))
    yield
    del WildRegistry.data['Hooked']


def test_build_pre_hook_converts_the_config_first(hooked):
    config = {'type': 'Hooked', 'old': [1]}
    assert AnimalRegistry.build(config).age == 4
    assert config == {'type': 'Hooked', 'old': [1]}


def test_build_pre_hook_that_fails_names_the_part(hooked):
    with pytest.raises(ConfigError, match=r"home\.first: the build_pre_hook fails: KeyError: 'old'"):
        build(first={'type': 'Hooked'})


def test_annotation_that_cannot_be_read_is_named():
    class Hidden:
        def __init__(self, part: OnlyWhileTypeChecking) -> None: ...  # noqa: F821

    with pytest.raises(ConfigError, match=r"annotation of \S*Hidden cannot be read: name 'OnlyWhileTypeChecking'") as error:
        AnimalRegistry.build({'type': Hidden, 'part': 1})
    assert 'TYPE_CHECKING' in error.value.hint


def test_house_covers_the_parameters_it_claims():
    assert House.__init__.__annotations__.keys() >= {'first', 'herd', 'named', 'sizes', 'rules'}
