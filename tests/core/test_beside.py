"""A dataclass that shares the dict of a part: ``Annotated[X, SomeRegistry, Settings]``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest

from tests.core.toys import Animal, AnimalRegistry, Cat, Fern, Plant, SizeRegistry, ToyRegistry, times
from vq.core.check import check_config, find_problems
from vq.core.errors import ConfigError
from vq.core.registry import beside_of, registry_for


@dataclasses.dataclass
class Care:
    """Flat, next to the parameters of an animal."""

    plant: Plant | None = None
    mode: Literal['day', 'night'] = 'day'
    hours: int = 8

    def __post_init__(self) -> None:
        if self.hours > 24:
            raise ConfigError(f'hours is {self.hours}', 'A day has 24.')


Kept = Annotated[Animal, AnimalRegistry, Care]
Size = Annotated[Callable[..., float], SizeRegistry, Care]


class KeeperRegistry(ToyRegistry):
    pass


@KeeperRegistry.register_()
class Zoo:
    def __init__(
        self, kept: dict[str, Kept], one: Kept | None = None, herd: list[Kept] | None = None, size: Size | None = None
    ) -> None:
        self.kept, self.one, self.herd, self.size = kept, one, herd, size


@KeeperRegistry.register_()
class Clash:
    def __init__(self, kept: Annotated[Any, KeeperRegistry, Care]) -> None: ...


@KeeperRegistry.register_()
class Sitter:
    def __init__(self, hours: int = 3) -> None: ...


def zoo(**parts: Any) -> dict[str, Any]:
    return dict(type='Zoo', **{'kept': {}, **parts})


def problems(config: dict[str, Any]) -> list[tuple[str, str]]:
    return list(find_problems(KeeperRegistry, config, 'zoo'))


def test_the_value_is_the_pair() -> None:
    config = zoo(
        kept=dict(
            tom=dict(type='Cat', age=3, hours=5, plant=dict(type='Fern', leaves=7), mode='night'),
            old=dict(type='Cat', age=9),
            gone=None,
        ),
        one=dict(type='Cat', age=1, hours=1),
        herd=[dict(type='Cat', age=2)],
        size=dict(type='times', factor=2.0, hours=2),
    )
    check_config(KeeperRegistry, config, 'zoo')
    built = KeeperRegistry.build(config)
    tom, care = built.kept['tom']
    assert isinstance(tom, Cat) and tom.age == 3
    assert isinstance(care.plant, Fern) and care.plant.leaves == 7 and (care.mode, care.hours) == ('night', 5)
    assert built.kept['old'][1] == Care() and list(built.kept) == ['tom', 'old']
    assert built.one[1].hours == 1 and built.herd[0][1] == Care()
    size, hours = built.size
    assert isinstance(size, functools.partial) and size.func is times and size(3.0) == 6.0 and hours.hours == 2


def test_annotations_say_which() -> None:
    for annotation in (Kept, Kept | None):
        assert beside_of(annotation) is Care and registry_for(annotation, ToyRegistry) is AnimalRegistry
    assert beside_of(Animal) is None and beside_of(Annotated[Animal, AnimalRegistry]) is None


@pytest.mark.parametrize(
    ('part', 'message', 'hint'),
    [
        (
            dict(huors=3),
            "zoo.one: Cat has no parameter 'huors'; did you mean 'hours'?",
            'age, hours, lives, mode, name, plant',
        ),
        (dict(livs=3), "zoo.one: Cat has no parameter 'livs'; did you mean 'lives'?", 'age, hours, lives, mode, name, plant'),
        (dict(mode='dusk'), "zoo.one.mode: 'dusk' is a str, and 'day' | 'night' is needed", 'type'),
        (dict(hours='x'), "zoo.one.hours: 'x' is a str, and int is needed", 'type'),
        (dict(plant=dict(type='Fern', leves=1)), "zoo.one.plant: Fern has no parameter 'leves'; did you mean 'leaves'?", ''),
        (dict(age='x'), "zoo.one.age: 'x' is a str, and float is needed", 'type'),
    ],
)
def test_each_key_is_judged_by_the_one_that_takes_it(part: dict[str, Any], message: str, hint: str) -> None:
    found = problems(zoo(one={'type': 'Cat', 'age': 1, **part}))
    assert len(found) == 1 and found[0][0] == message and hint in found[0][1]


def test_what_is_wrong_with_both_is_said_at_once() -> None:
    found = [message for message, _ in problems(zoo(one=dict(type='Cat', hours='x', livs=1)))]
    assert [message.partition(': ')[0] for message in found] == ['zoo.one', 'zoo.one', 'zoo.one.hours']


def test_what_the_settings_refuse_has_a_path() -> None:
    with pytest.raises(ConfigError, match=r'zoo\.kept\.tom: hours is 25') as error:
        KeeperRegistry.build(zoo(kept=dict(tom=dict(type='Cat', age=1, hours=25))), 'zoo')
    assert error.value.hint == 'A day has 24.'
    with pytest.raises(ConfigError, match="Cat has no parameter 'livs'; did you mean 'lives'"):
        KeeperRegistry.build(zoo(one=dict(type='Cat', age=1, livs=1)), 'zoo')


def test_a_part_that_takes_such_a_key_itself_is_refused() -> None:
    config = dict(type='Clash', kept=dict(type='Sitter'))
    message = "clash.kept: Sitter has a parameter 'hours', also a field of Care beside it"
    assert next(iter(find_problems(KeeperRegistry, config, 'clash')))[0] == message
    with pytest.raises(ConfigError, match='Sitter has a parameter'):
        KeeperRegistry.build(config, 'clash')
