"""Checking a config without building it: all problems at once, each with its path."""

from __future__ import annotations

import pytest

from tests.core.toys import AnimalRegistry, Cat, Hamster, Rules, WildRegistry
from vq.core.check import check_config, find_problems
from vq.core.errors import ConfigError
from vq.core.parameters import describe, fits, parameters_of

CAT = {'type': 'Cat', 'age': 2}


def problems(**parts):
    return [message for message, _ in find_problems(AnimalRegistry, dict(type='House', **parts), 'home')]


RIGHT = [
    {'first': CAT, 'second': None, 'herd': [CAT, None], 'pair': (CAT,), 'named': {'a': CAT, 'b': None}},
    {'first': Cat(1), 'herd': [Cat(1), CAT]},
    {'tree': {'type': 'Fern', 'leaves': 1}, 'rules': {'guest': CAT, 'limit': 1}, 'entry': {'key': 'x'}},
    {'rules': Rules(limit=2)},
    {'size': {'type': 'times', 'factor': 2}, 'sizes': {'a': {'type': 'plus'}}},
    {'size': abs},
    {'numbers': [1, 2, 3]},
    {'numbers': (1, 2)},
    {'numbers': None},
    {'corners': (0, 1.5)},
    {'corners': [0.0, 1.0]},
    {'words': ['a'], 'by_name': {'a': 1}, 'mode': 'b', 'on': True, 'text': ''},
    {'mode': 1},
    {'anything': {'type': 'nonsense'}},
    {'first': CAT, 'second': {'type': 'Cat'}},  # age is wired
    {'first': {'type': 'WildRegistry.Cat'}},
]


@pytest.mark.parametrize('parts', RIGHT)
def test_right_configs_have_no_problem(parts):
    assert problems(**parts) == []


@pytest.mark.parametrize('parts', [parts for parts in RIGHT if 'size' not in parts])
def test_what_passes_the_check_can_be_built(parts):
    AnimalRegistry.build(dict(type='House', **parts))


WRONG = [
    # names and keys
    ({'first': {'type': 'Catt', 'age': 1}}, "home.first: unknown type 'Catt' in AnimalRegistry; did you mean 'Cat'?"),
    ({'first': {'type': 'Fern'}}, "home.first: 'Fern' is a PlantRegistry item (Plant), and a AnimalRegistry item (Animal)"),
    ({'first': {'type': 'Rat'}}, "home.first: 'Rat' is ambiguous"),
    ({'first': {'type': None}}, "home.first: 'type' is missing"),
    ({'first': {'age': 1}}, "home.first: 'type' is missing"),
    ({'first': {'type': 5}}, "home.first: 'type' is 5"),
    ({'frist': CAT}, "home: House has no parameter 'frist'; did you mean 'first'?"),
    ({'first': {'type': 'Cat'}}, "home.first: Cat needs 'age' (float)"),
    ({'second': {'type': 'Cat'}}, "home.second: Cat needs 'age' (float)"),  # nothing to wire it from
    (
        {'herd': [CAT, {'type': 'Cat', 'age': 1, 'nmae': 'x'}]},
        "home.herd[1]: Cat has no parameter 'nmae'; did you mean 'name'?",
    ),
    ({'named': {'a': {'type': 'Cat'}}}, "home.named.a: Cat needs 'age' (float)"),
    ({'herd': [{'type': 'Hamster', 'food': {'type': 'Fern', 'leaf': 1}}]}, "home.herd[0].food: Fern has no parameter 'leaf'"),
    ({'rules': {'limti': 1}}, "home.rules: Rules has no parameter 'limti'; did you mean 'limit'?"),
    ({'rules': {'guest': {'type': 'Cat'}}}, "home.rules.guest: Cat needs 'age' (float)"),
    ({'entry': {}}, "home.entry: Entry needs 'key' (str)"),
    ({'size': {'type': 'times'}}, "home.size: times needs 'factor' (float)"),
    ({'size': {'type': 'times', 'factor': 'x'}}, "home.size.factor: 'x' is a str, and float is needed"),
    # values
    ({'first': 'Cat'}, "home.first: 'Cat' is a str, and Animal | None is needed"),
    ({'herd': CAT}, 'home.herd: '),
    ({'herd': [3]}, 'home.herd[0]: 3 is a int, and Animal is needed'),
    ({'first': {'type': 'Cat', 'age': 'old'}}, "home.first.age: 'old' is a str, and float is needed"),
    ({'first': {'type': 'Cat', 'age': True}}, 'home.first.age: True is a bool, and float is needed'),
    ({'first': {'type': 'Cat', 'age': 1, 'lives': 9.0}}, 'home.first.lives: 9.0 is a float, and int is needed'),
    ({'first': {'type': 'Cat', 'age': 1, 'lives': False}}, 'home.first.lives: False is a bool, and int is needed'),
    ({'first': {'type': 'Cat', 'age': 1, 'name': None}}, 'home.first.name: None is a NoneType, and str is needed'),
    ({'on': 1}, 'home.on: 1 is a int, and bool is needed'),
    ({'mode': 'c'}, "home.mode: 'c' is a str, and 'a' | 'b' | 1 is needed"),
    ({'mode': True}, "home.mode: True is a bool, and 'a' | 'b' | 1 is needed"),
    ({'numbers': [1, 'x']}, "home.numbers[1]: 'x' is a str, and int is needed"),
    ({'numbers': [1, None]}, 'home.numbers[1]: None is a NoneType, and int is needed'),
    ({'numbers': 5}, 'home.numbers: 5 is a int, and list[int] | tuple[int, int] | None is needed'),
    ({'corners': (0.0,)}, 'home.corners: (0.0,) is a tuple, and tuple[float, float] is needed'),
    ({'corners': ('a', 1.0)}, "home.corners: ('a', 1.0) is a tuple, and tuple[float, float] is needed"),
    ({'words': 'abc'}, "home.words: 'abc' is a str, and Sequence[str] is needed"),
    ({'by_name': {'a': '1'}}, "home.by_name.a: '1' is a str, and int is needed"),
    ({'by_name': [1]}, 'home.by_name: [1] is a list, and dict[str, int] | None is needed'),
    ({'rules': 3}, 'home.rules: 3 is a int, and Rules | None is needed'),
]


@pytest.mark.parametrize(('parts', 'message'), WRONG, ids=[message for _, message in WRONG])
def test_each_problem_has_its_path(parts, message):
    found = problems(**parts)
    assert len(found) == 1 and found[0].startswith(message)


def test_a_part_that_is_no_dict():
    assert next(iter(find_problems(AnimalRegistry, 'Cat', 'home')))[0] == "home: a part is needed here, not 'Cat'"


def test_all_problems_are_reported_at_once_in_order():
    with pytest.raises(ConfigError) as error:
        check_config(
            AnimalRegistry, {'type': 'House', 'frist': 1, 'on': 'yes', 'herd': [{'type': 'Cat'}, {'type': 'Dog'}]}, 'home'
        )
    lines = error.value.message.splitlines()
    assert lines[0] == '4 problems in the config:'
    for line, start in zip(
        lines[1:], ("home: House has no parameter 'frist'", 'home.herd[0]', 'home.herd[1]', 'home.on'), strict=True
    ):
        assert line.strip().startswith(start)
    assert error.value.hint.startswith('Fix these')


def test_a_single_problem_is_said_as_it_is():
    with pytest.raises(ConfigError) as error:
        check_config(AnimalRegistry, {'type': 'Cat', 'age': 1, 'lifes': 2}, 'pet')
    assert error.value.message == "pet: Cat has no parameter 'lifes'; did you mean 'lives'?"
    assert error.value.hint == 'It takes: age, lives, name.'


def test_config_is_judged_as_its_build_pre_hook_leaves_it():
    def hook(config, registry, item):
        config.age = config.pop('old')
        return config

    WildRegistry.register_('Converted', build_pre_hook=hook)(type('Converted', (Cat,), {}))
    try:
        assert problems(first={'type': 'Converted', 'old': 3}) == []
        assert problems(first={'type': 'Converted', 'old': 'x'}) == ["home.first.age: 'x' is a str, and float is needed"]
        assert problems(first={'type': 'Converted'}) == ["home.first: the build_pre_hook fails: KeyError: 'old'"]
    finally:
        del WildRegistry.data['Converted']


def test_foreign_items_that_take_any_keyword_are_judged_by_what_they_name():
    class Loose(Hamster):
        def __init__(self, size: int, **rest: int) -> None: ...

    found = list(find_problems(AnimalRegistry, {'type': Loose, 'size': 'x', 'other': 1}, 'pet'))
    assert [message for message, _ in found] == ["pet.size: 'x' is a str, and int is needed"]


def test_unreadable_annotation_is_a_problem_with_a_path():
    class Hidden:
        def __init__(self, part: OnlyWhileTypeChecking) -> None: ...  # noqa: F821

    ((message, _),) = find_problems(AnimalRegistry, {'type': Hidden}, 'home')
    assert message.startswith('home: an annotation of') and "'OnlyWhileTypeChecking'" in message


def test_functions_take_from_configs_what_stands_behind_the_star():
    def with_star(image, *, size: int, flip: bool = False): ...
    def without(image, size: int): ...

    assert {name: found.required for name, found in parameters_of(with_star).items()} == {'size': True, 'flip': False}
    assert {name: found.required for name, found in parameters_of(without).items()} == {'image': False, 'size': False}


@pytest.mark.parametrize(
    ('annotation', 'text'),
    [
        (dict[str, list[int]] | None, 'dict[str, list[int]] | None'),
        (tuple[int, ...], 'tuple[int, ...]'),
        (parameters_of(AnimalRegistry['House'])['sizes'].annotation, 'dict[str, Callable] | None'),
    ],
)
def test_annotations_are_described_as_one_writes_them(annotation, text):
    assert describe(annotation) == text


def test_unknown_annotations_accept_everything():
    assert fits(object(), 'SomeText')
