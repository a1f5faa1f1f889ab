"""Recipes: precedence of options, errors, and the passing of options to other configs."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from vq.core import recipe as mechanism
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.recipe import REQUIRED, Given, alias, config_of, merge, recipe

# toys


@recipe()
def wheel(given: Given, *, spokes: Annotated[int, 'of a wheel'] = 12, rim: Annotated[str, 'of a wheel'] = 'steel'):
    return dict(type='Wheel', spokes=spokes, rim=rim)


@recipe(wheel)
def cart(
    given: Given,
    *,
    wheels: Annotated[int, 'of the cart', alias('num_wheels', 'tyres')] = 2,
    colour: Annotated[Literal['red', 'blue'], 'of the paint'] = 'red',
):
    return dict(part=dict(type='Cart', wheels=wheels, colour=colour, wheel=wheel(given, spokes=8)))


@recipe(cart)
def coach(given: Given):
    return cart(given, wheels=4, spokes=16)


@recipe(cart, hides=('wheels',))
def tricycle(given: Given, *, seats: Annotated[int, 'for people'] = 1):
    return merge(cart(given, wheels=3), dict(part=dict(seats=seats)))


@recipe(wheel)
def needy(given: Given, *, name: Annotated[str, 'painted on the side'] = REQUIRED):
    return dict(name=name)


@recipe()
def on_top(
    given: Given,
    *,
    below: Annotated[str, 'config of what lies below', config_of('below')] = 'below.py',
    size: Annotated[int, 'of this one'] = 1,
):
    return dict(size=size, below=dict(given.load(below, 'below', ('secret',))))


@pytest.fixture
def leaf(write):
    def make(call: str, name: str = 'leaf.py') -> Path:
        return write(name, f'from tests.recipes.test_recipe import *\n_export_ = {call}\n')

    return make


@pytest.fixture
def write(tmp_path):
    def make(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return make


# precedence


def test_value_is_the_callers_keyword_before_the_default_and_the_option_before_both(leaf):
    assert PyConfig.load(leaf('cart(_kwargs_)')).part.wheels == 2
    assert PyConfig.load(leaf('cart(_kwargs_, wheels=6)')).part.wheels == 6
    assert PyConfig.load(leaf('cart(_kwargs_, wheels=6)'), wheels=8).part.wheels == 8


def test_of_two_calls_the_outer_one_wins(leaf):
    assert PyConfig.load(leaf('wheel(_kwargs_)')).spokes == 12
    assert PyConfig.load(leaf('cart(_kwargs_)')).part.wheel.spokes == 8
    assert PyConfig.load(leaf('coach(_kwargs_)')).part.wheel.spokes == 16
    assert PyConfig.load(leaf('coach(_kwargs_, spokes=20)')).part.wheel.spokes == 20
    assert PyConfig.load(leaf('coach(_kwargs_, spokes=20)'), spokes=24).part.wheel.spokes == 24


def test_setdefault_of_a_file_stands_between_the_leaf_and_the_command_line(leaf, write):
    leaf('coach(_kwargs_, spokes=20)')
    child = write('child.py', "_kwargs_.setdefault('spokes', 22)\n_base_ = ['leaf.py']\npart = dict(extra=1)")
    assert PyConfig.load(child).part.wheel.spokes == 22
    assert PyConfig.load(child).part.extra == 1
    assert PyConfig.load(child, spokes=24).part.wheel.spokes == 24


def test_recipe_can_be_called_from_python_with_plain_options():
    assert cart({'wheels': 5})['part']['wheels'] == 5
    assert cart({}, colour='blue')['part']['colour'] == 'blue'


# aliases


def test_alias_is_accepted_everywhere_with_one_warning(leaf, write, caplog, monkeypatch):
    monkeypatch.setattr(mechanism, '_warned', set())
    caplog.set_level(logging.WARNING, 'vq')
    logging.getLogger('vq').propagate = True
    for _ in range(2):
        assert PyConfig.load(leaf('cart(_kwargs_)'), num_wheels=3).part.wheels == 3
    assert PyConfig.load(leaf('cart(_kwargs_, tyres=5)')).part.wheels == 5
    child = write('child.py', "_kwargs_.setdefault('num_wheels', 7)\n_base_ = ['leaf.py']")
    assert PyConfig.load(child).part.wheels == 7
    told = {id(record): record for record in caplog.records}.values()  # a handler of an earlier test may receive it too
    assert [record.getMessage() for record in told] == [
        "the option 'num_wheels' is called 'wheels' now; the old name still works"
    ]


def test_a_name_and_its_alias_together_are_refused(leaf):
    with pytest.raises(ConfigError, match="'num_wheels' is another name of the option 'wheels', and both are given"):
        PyConfig.load(leaf('cart(_kwargs_)'), num_wheels=3, wheels=3)


# errors


def test_option_that_nobody_declares_is_refused_wherever_it_stands(leaf, write):
    file = leaf('cart(_kwargs_)')
    with pytest.raises(ConfigError, match=r"leaf.py has no option 'wheals'; did you mean 'wheels'\?"):
        PyConfig.load(file, wheals=3)
    with pytest.raises(ConfigError, match=r"bad.py: cart has no option 'wheals'; did you mean 'wheels'\?"):
        PyConfig.load(leaf('cart(_kwargs_, wheals=3)', 'bad.py'))
    child = write('child.py', "_kwargs_.setdefault('wheals', 7)\n_base_ = ['leaf.py']")
    with pytest.raises(ConfigError, match=r"child.py: \S*child.py has no option 'wheals'; did you mean 'wheels'\?"):
        PyConfig.load(child)
    loading = write('loading.py', "from vq.core import PyConfig\n_export_ = PyConfig.load('leaf.py', wheals=3)")
    with pytest.raises(ConfigError, match=r"loading.py: \S*loading.py has no option 'wheals'"):
        PyConfig.load(loading)


@pytest.mark.parametrize('way', ["_kwargs_.setdefault('cargo', 3)", "cargo = _kwargs_.setdefault('cargo', 3)"])
def test_setdefault_counts_as_reading_only_where_its_value_is_used(write, way):
    file = write('a.py', f'{way}\nx = 1')
    if way.startswith('cargo'):
        assert PyConfig.load(file).cargo == 3
    else:
        with pytest.raises(ConfigError, match="has no option 'cargo'"):
            PyConfig.load(file)


def test_typo_that_a_file_sets_is_no_option_of_the_command_line_either(write):
    write('base.py', "width = _kwargs_.get('width', 16)")
    file = write('a.py', "_kwargs_.setdefault('width', 8)\n_base_ = ['base.py']")
    assert PyConfig.load(file).width == 8
    with pytest.raises(ConfigError, match=r"has no option 'widht'; did you mean 'width'\?"):
        PyConfig.load(file, widht=4)


def test_declared_option_that_is_not_used_is_refused_on_the_command_line_only(leaf, write):
    file = leaf("needy(_kwargs_, name='x')")
    with pytest.raises(ConfigError, match=r"does not use the option 'rim' here: wheel does \(of a wheel\)"):
        PyConfig.load(file, rim='wood')
    child = write('child.py', "_kwargs_.setdefault('rim', 'wood')\n_base_ = ['leaf.py']")
    assert PyConfig.load(child).name == 'x'


def test_required_option_says_what_it_means(leaf):
    with pytest.raises(ConfigError, match=r"leaf.py needs the option 'name' \(painted on the side\)") as error:
        PyConfig.load(leaf('needy(_kwargs_)'))
    assert error.value.hint == 'Give it after CONFIG: name=VALUE'


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ({'wheels': 'two'}, r"wheels is 'two' \(the command line\), and int is needed"),
        ({'colour': 'green'}, r"colour is 'green' \(the command line\), and 'red' \| 'blue' is needed"),
    ],
)
def test_value_of_another_type_names_its_origin_and_what_is_needed(leaf, option, said):
    with pytest.raises(ConfigError, match=f'the option {said}'):
        PyConfig.load(leaf('cart(_kwargs_)'), **option)


def test_hidden_option_is_set_by_the_recipe_alone(leaf):
    file = leaf('tricycle(_kwargs_)')
    assert PyConfig.load(file, seats=2).part == PyConfig.load(file).part | {'seats': 2}
    assert PyConfig.load(file).part.wheels == 3
    with pytest.raises(ConfigError, match="has no option 'wheels'"):
        PyConfig.load(file, wheels=4)


def test_parameter_without_a_meaning_is_a_mistake_of_the_recipe():
    @recipe()
    def careless(given: Given, *, size: int = 3):
        return dict(size=size)

    with pytest.raises(TypeError, match='careless: the option size has no meaning'):
        careless({})


# configs that an option names


def test_names_that_a_recipe_lacks_go_to_the_config_it_names(leaf, write):
    leaf('cart(_kwargs_)', 'below.py')
    file = leaf('on_top(_kwargs_)')
    config = PyConfig.load(file, wheels=3, size=7)
    assert (config.size, config.below.part.wheels) == (7, 3)
    assert PyConfig.load(leaf('on_top(_kwargs_, spokes=9)', 'top.py')).below.part.wheel.spokes == 9


def test_one_side_can_be_addressed(leaf, write):
    write('below.py', "size = _kwargs_.get('size', 100)\nwidth = _kwargs_.get('width', 10)")
    file = leaf('on_top(_kwargs_)')
    config = PyConfig.load(file, **{'size': 7, 'below.size': 8, 'width': 20})
    assert (config.size, config.below.size, config.below.width) == (7, 8, 20)


def test_name_that_neither_side_knows_is_refused_by_both_names(leaf, write):
    leaf('cart(_kwargs_)', 'below.py')
    file = leaf('on_top(_kwargs_)')
    with pytest.raises(ConfigError, match=r"neither \S*leaf.py nor below.py has an option 'wheals'; did you mean 'wheels'"):
        PyConfig.load(file, wheals=3)
    with pytest.raises(ConfigError, match=r"below.py has no option 'wheals'; did you mean 'wheels'"):
        PyConfig.load(file, **{'below.wheals': 3})


def test_hidden_names_do_not_reach_the_other_config(leaf, write):
    write('below.py', "secret = _kwargs_.get('secret', 'kept')")
    file = leaf('on_top(_kwargs_)')
    with pytest.raises(ConfigError, match="has an option 'secret'"):
        PyConfig.load(file, secret='told')


# patches


def test_patch_of_a_patch_still_replaces():
    patch = merge({'part': {'_delete_': True, 'type': 'A'}}, {'part': {'_delete_': True, 'type': 'B'}})
    config = PyConfig({'part': {'type': 'C', 'x': 1}})
    config.update(patch)
    config.settle()
    assert config == {'part': {'type': 'B'}}


@pytest.mark.slow
def test_recipes_import_no_torch():
    code = "import sys, vq.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
