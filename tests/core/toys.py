"""A small tree of registries with toy parts, separate from the tree of the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from vq.core.errors import ConfigError
from vq.core.registry import Registry


class Animal:
    """An interface."""


class Plant:
    """Another."""


class Moss(Plant):
    """The interface of a child registry, unrelated to the interface of its parent."""


class ToyRegistry(Registry):
    """The root."""


class AnimalRegistry(ToyRegistry):
    interface = 'tests.core.toys:Animal'


class HousePetRegistry(AnimalRegistry):
    """A child without an interface of its own: animals."""


class WildRegistry(AnimalRegistry):
    pass


class PlantRegistry(AnimalRegistry):
    """A child of the registry of animals with another interface, like encoders below tokenizers."""

    interface = 'tests.core.toys:Plant'


class SizeRegistry(ToyRegistry):
    """Functions."""


Size = Annotated[Callable[..., float], SizeRegistry]


@AnimalRegistry.register_()
class Cat(Animal):
    def __init__(self, age: float, name: str = 'cat', lives: int = 9) -> None:
        self.age, self.name, self.lives = age, name, lives


@HousePetRegistry.register_()
class Hamster(Animal):
    def __init__(self, food: Plant | None = None) -> None:
        self.food = food


@HousePetRegistry.register_('Rat')
class TameRat(Animal):
    pass


@WildRegistry.register_('Rat')
class WildRat(Animal):
    pass


@WildRegistry.register_('Cat')
class WildCat(Animal):
    pass


@PlantRegistry.register_()
class Fern(Plant):
    def __init__(self, leaves: int = 3) -> None:
        self.leaves = leaves


@AnimalRegistry.register_()
class Robot:
    """Does not have the interface, but is registered in this registry itself."""


@SizeRegistry.register_()
def times(value: float, *, factor: float) -> float:
    return factor * value


@SizeRegistry.register_()
def plus(value: float, amount: float = 1.0) -> float:
    return value + amount


@dataclasses.dataclass
class Rules:
    """Settings without a type."""

    guest: Animal | None = None
    limit: int = 5

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f'limit is {self.limit}')


@dataclasses.dataclass
class Entry:
    """Settings with one required field."""

    key: str


@AnimalRegistry.register_()
class House(Animal):
    """One parameter of each kind that is built."""

    wires = {'second.age': 'first.age', 'second.name': 'first.name', 'third.age': 'second.lives', 'tree.leaves': 'first'}

    def __init__(
        self,
        first: Animal | None = None,
        second: Animal | None = None,
        third: Animal | None = None,
        herd: list[Animal] | None = None,
        pair: tuple[Animal, ...] = (),
        named: dict[str, Animal] | None = None,
        sizes: dict[str, Size] | None = None,
        size: Size | None = None,
        tree: Annotated[Plant, 'documented'] | None = None,
        rules: Rules | None = None,
        entry: Entry | None = None,
        numbers: list[int] | tuple[int, int] | None = None,
        corners: tuple[float, float] = (0.0, 1.0),
        words: Sequence[str] = (),
        by_name: dict[str, int] | None = None,
        mode: Literal['a', 'b', 1] = 'a',
        anything: Any = None,
        on: bool = False,
        text: str = '',
    ) -> None:
        self.given = {key: value for key, value in locals().items() if key not in ('self', '__class__')}

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'given':
            raise AttributeError(name)
        return self.given[name]


@AnimalRegistry.register_()
class Greedy(Animal):
    """Changes its arguments in place."""

    def __init__(self, food: list[str], extra: dict[str, Any]) -> None:
        food.append('eaten')
        extra['inner'].clear()


@AnimalRegistry.register_()
class Picky(Animal):
    def __init__(self, reason: str) -> None:
        raise {'user': ConfigError('no thanks', 'Offer fish.'), 'value': ValueError('bad fish'), 'key': KeyError('fish')}[
            reason
        ]
