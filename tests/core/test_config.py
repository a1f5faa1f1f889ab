"""Composing config files: faults of todd's loader (see the docstring of vq/core/config.py) and the guarantees of ours."""

from __future__ import annotations

import copy
import json
import pickle
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_map

from vq.core.config import PyConfig, packaged_configs, plain, resolve_config
from vq.core.errors import ConfigError

# the file itself


def test_functions_and_comprehensions_see_the_names_of_their_file(write):
    file = write(
        'a.py',
        """
        width = 3
        def double(x):
            return width * x
        _export_ = dict(a=[width * i for i in range(3)], b=double(4), c={k: width for k in 'xy'})
    """,
    )
    assert PyConfig.load(file) == {'a': [0, 3, 6], 'b': 12, 'c': {'x': 3, 'y': 3}}


def test_file_knows_its_own_path(write):
    file = write('a.py', 'here = __file__')
    assert PyConfig.load(file).here == str(file)


def test_future_imports_of_the_loader_do_not_leak_into_the_file(write):
    assert PyConfig.load(write('a.py', 'x: int = 1\nkind = __annotations__["x"] is int')).kind is True


def test_without_export_only_values_leave_the_file(write):
    file = write(
        'a.py',
        """
        from __future__ import annotations
        import math
        from collections.abc import Callable
        from functools import partial
        from typing import Any, Literal
        from vq.core import PyConfig
        class Thing: pass
        def function(): return 1
        double = lambda x: 2 * x
        half = partial(function)
        _hidden = 5
        shown = math.floor(2.5)
    """,
    )
    config = PyConfig.load(file)
    assert config == {'shown': 2}
    assert PyConfig.loads(config.dumps()) == config


def test_export_limits_what_leaves_the_file(write):
    assert PyConfig.load(write('a.py', 'x = 1\n_export_ = dict(y=2)')) == {'y': 2}


# errors


def test_error_names_the_file_and_line_also_of_a_base(write):
    base = write('base.py', 'x = 1\n\ny = x / 0\n')
    for file in (base, write('leaf.py', "_base_ = ['base.py']")):
        with pytest.raises(ConfigError, match=rf'{base}:3: ZeroDivisionError'):
            PyConfig.load(file)


def test_error_in_a_function_names_the_innermost_line_of_the_file(write):
    file = write('a.py', 'def f():\n    return [][1]\n\nx = f()\n')
    with pytest.raises(ConfigError, match=rf'{file}:2: IndexError'):
        PyConfig.load(file)


def test_syntax_error_names_the_line(write):
    file = write('a.py', 'x = 1\ny = (\n')
    with pytest.raises(ConfigError, match=rf'{file}:2: '):
        PyConfig.load(file)


@pytest.mark.parametrize('content', [b'\xff\xfe', b'x = 1\0'])
def test_binary_file_is_a_config_error(write, content):
    file = write('a.py', '')
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=str(file)):
        PyConfig.load(file)


def test_base_as_a_string_is_refused(write):
    write('base.py', 'x = 1')
    with pytest.raises(ConfigError, match=r'_base_ must be a list') as error:
        PyConfig.load(write('leaf.py', "_base_ = 'base.py'"))
    assert "_base_ = ['parent.py']" in error.value.hint


def test_export_that_is_no_dict_is_refused(write):
    with pytest.raises(ConfigError, match='_export_ is a int'):
        PyConfig.load(write('a.py', '_export_ = 3'))


def test_circle_of_bases_is_named(write):
    write('b.py', "_base_ = ['c.py']")
    write('c.py', "from vq.core import PyConfig\n_export_ = PyConfig.load('a.py')")
    with pytest.raises(ConfigError, match=r'circle: \S*a\.py -> \S*b\.py -> \S*c\.py -> \S*a\.py'):
        PyConfig.load(write('a.py', "_base_ = ['b.py']"))


def test_missing_base_names_the_file_that_wants_it_and_the_nearest_name(write):
    write('interface.py', 'x = 1')
    leaf = write('leaf.py', "_base_ = ['interfaec.py']")
    with pytest.raises(ConfigError, match=rf"{leaf}: config file 'interfaec.py' does not exist; did you mean 'interface.py'"):
        PyConfig.load(leaf)


def test_an_optimizer_that_replaces_another_keeps_the_settings_of_the_step(write):
    adam = "dict(type='Adam', lr=1.0, betas=(0, 1), clip=1.0, schedule=dict(type='CosineSchedule'))"
    write('base.py', f'optimizers=dict(a={adam}, b={adam})')
    child = "dict(a=dict(_delete_=True, type='SGD', lr=2.0), b=dict(_delete_=True, type='SGD', clip=None))"
    found = PyConfig.load(write('leaf.py', f"_base_ = ['base.py']\noptimizers = {child}")).optimizers
    assert found.a == {'type': 'SGD', 'lr': 2.0, 'clip': 1.0, 'schedule': {'type': 'CosineSchedule'}}
    assert found.b == {'type': 'SGD', 'clip': None, 'schedule': {'type': 'CosineSchedule'}}


# bases


def test_bases_merge_in_order_and_the_file_wins(write):
    write('one.py', 'part = dict(a=1, b=1, c=1, list=[1, 2])')
    write('two.py', 'part = dict(b=2, c=2)')
    file = write('leaf.py', "_base_ = ['one.py', 'two.py', dict(part=dict(d=4))]\npart = dict(c=3, list=[5])")
    assert PyConfig.load(file).part == {'a': 1, 'b': 2, 'c': 3, 'd': 4, 'list': [5]}


@pytest.mark.parametrize('part', ["dict(_delete_=True, type='B', x=1)", "dict(type='B', _delete_=True, x=1)"])
def test_delete_replaces_wherever_it_stands_in_the_dict(write, part):
    write('base.py', "part = dict(type='A', width=3)")
    assert PyConfig.load(write('leaf.py', f"_base_ = ['base.py']\npart = {part}")).part == {'type': 'B', 'x': 1}


def test_delete_with_nothing_to_replace_leaves_no_trace(write):
    assert PyConfig.load(write('a.py', 'part = [dict(inner=dict(_delete_=True, x=1))]')).part == [{'inner': {'x': 1}}]


def test_delete_of_a_base_still_acts_on_an_earlier_base(write):
    write('one.py', "part = dict(type='A', width=3)")
    write('two.py', "part = dict(_delete_=True, type='B')")
    assert PyConfig.load(write('leaf.py', "_base_ = ['one.py', 'two.py']")).part == {'type': 'B'}


def test_override_patches_a_base_by_path(write):
    write('base.py', 'callbacks = [dict(n=1), dict(n=2)]\nkeep = 1')
    file = write('leaf.py', "_base_ = ['base.py']\n_override_ = {'.callbacks[-1].n': 5, '.new': 6}")
    assert PyConfig.load(file) == {'callbacks': [{'n': 1}, {'n': 5}], 'keep': 1, 'new': 6}


def test_override_within_a_part(write):
    write('base.py', 'part = dict(list=[dict(n=1)])')
    file = write('leaf.py', "_base_ = ['base.py']\npart = dict(_override_={'.list[0].n': 2}, x=1)")
    assert PyConfig.load(file).part == {'list': [{'n': 2}], 'x': 1}


def test_patches_in_tiny_wait_until_it_is_applied(write):
    config = PyConfig.load(
        write(
            'a.py',
            """
        trainer = dict(model=dict(type='A', width=9), callbacks=[dict(n=1), dict(n=2)])
        tiny = dict(trainer=dict(model=dict(_delete_=True, type='B'), _override_={'.callbacks[-1].n': 0}))
    """,
        )
    )
    config.update(config['tiny'])
    config.settle()
    assert config.trainer == {'model': {'type': 'B'}, 'callbacks': [{'n': 1}, {'n': 0}]}


def test_composing_leaves_the_parts_of_a_base_alone(write):
    """A config loaded by hand and changed after it was given as a base."""
    write('base.py', 'part = dict(a=1)')
    file = write(
        'leaf.py',
        """
        from vq.core import PyConfig
        base = PyConfig.load('base.py')
        _base_ = [base]
        _export_ = dict(part=dict(a=2), original=base.part)
    """,
    )
    assert PyConfig.load(file) == {'part': {'a': 2}, 'original': {'a': 1}}


# options


def test_options_reach_bases_and_explicitly_loaded_files(write):
    write('deep.py', "depth = _kwargs_['depth']")
    write('base.py', "_base_ = ['deep.py']")
    write('loaded.py', "inner = _kwargs_.get('depth')")
    file = write(
        'leaf.py',
        """
        from vq.core import PyConfig
        _base_ = ['base.py', PyConfig.load('loaded.py')]
    """,
    )
    assert PyConfig.load(file, depth=3) == {'depth': 3, 'inner': 3}


def test_what_the_outer_file_says_wins_over_a_default_of_an_inner_load(write):
    """A trap of the peer: forwarding ``**_kwargs_`` with fixed keywords is a TypeError, and not forwarding drops options."""
    write('entry.py', "from vq.core import PyConfig\n_export_ = PyConfig.load('family.py', distance='l2', size=8)")
    write('family.py', "_export_ = dict(distance=_kwargs_['distance'], size=_kwargs_['size'])")
    write('method.py', "from vq.core import PyConfig\n_export_ = PyConfig.load('entry.py', distance='cosine')")
    assert PyConfig.load(write('m.py', "_base_ = ['method.py']")) == {'distance': 'cosine', 'size': 8}
    assert PyConfig.load(write('m.py', "_base_ = ['method.py']"), size=16) == {'distance': 'cosine', 'size': 16}


def test_setdefault_gives_the_bases_of_a_file_a_default_and_nobody_else(write):
    write('base.py', "size = _kwargs_.get('size', 1)")
    write('other.py', "other = _kwargs_.get('size', 1)")
    write('sets.py', "_kwargs_.setdefault('size', 7)\n_base_ = ['base.py']")
    file = write('leaf.py', "_base_ = ['sets.py', 'other.py']")
    assert PyConfig.load(file) == {'size': 7, 'other': 1}
    assert PyConfig.load(file, size=2) == {'size': 2, 'other': 2}


def test_unknown_option_names_the_nearest_that_is_read(write):
    write('base.py', "a = _kwargs_.get('num_embeddings')\nb = 'depth' in _kwargs_")
    with pytest.raises(ConfigError, match="no option 'num_embedings'; did you mean 'num_embeddings'") as error:
        PyConfig.load(write('leaf.py', "_base_ = ['base.py']"), num_embedings=3, depth=1)
    assert error.value.hint == 'It reads: depth, num_embeddings.'


def test_missing_required_option_names_the_file_and_the_flag(write):
    base = write('base.py', "a = _kwargs_['teacher']")
    with pytest.raises(ConfigError, match=rf"{base} needs the option 'teacher'") as error:
        PyConfig.load(write('leaf.py', "_base_ = ['base.py']"))
    assert error.value.hint == 'Give it after CONFIG: teacher=VALUE'


def test_file_may_replace_its_options_by_a_dict_of_its_own(write):
    write('base.py', "size = _kwargs_['size']")
    file = write(
        'leaf.py',
        """
        from vq.core import PyConfig
        _kwargs_ = dict(_kwargs_, extra=1)
        _kwargs_.setdefault('size', 3)
        kind = _kwargs_.get('kind')
        _base_ = ['base.py', PyConfig.load('base.py', **_kwargs_)]
    """,
    )
    assert PyConfig.load(file, kind='x') == {'size': 3, 'kind': 'x'}
    with pytest.raises(ConfigError, match="no option 'knid'; did you mean 'kind'"):
        PyConfig.load(file, knid='x')


# paths


@pytest.mark.parametrize('name', ['digits/interface.py', 'configs/digits/interface.py'])
def test_packaged_configs_resolve_from_any_folder(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    assert resolve_config(name) == packaged_configs() / 'digits' / 'interface.py'


def test_a_file_of_the_working_directory_goes_before_a_packaged_one(monkeypatch, tmp_path):
    own = tmp_path / 'digits' / 'interface.py'
    own.parent.mkdir()
    own.touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_config('digits/interface.py') == own


def test_base_resolves_beside_its_file_first_then_among_the_packaged(write, monkeypatch, tmp_path):
    write('strategies/base.py', "kind = 'beside'")
    (tmp_path / 'strategies').mkdir()
    (tmp_path / 'strategies' / 'base.py').write_text("kind = 'working directory'")
    monkeypatch.chdir(tmp_path)
    assert PyConfig.load(write('leaf.py', "_base_ = ['strategies/base.py']")) == {'kind': 'beside'}
    assert PyConfig.load(write('other.py', "_base_ = ['configs/strategies/ddp.py']")).type == 'DDPStrategy'


def test_base_may_be_a_path_object(write):
    write('base.py', 'x = 1')
    assert PyConfig.load(write('leaf.py', "from pathlib import Path\n_base_ = [Path('base.py')]")) == {'x': 1}


# configs in other code


def test_plain_is_what_json_and_c_code_can_read():
    config = PyConfig(a=1, b={'c': [{'d': 2}], 'e': ({'f': 3},)})
    assert json.dumps(config) == '{}'  # the trap
    assert json.loads(json.dumps(plain(config))) == {'a': 1, 'b': {'c': [{'d': 2}], 'e': [{'f': 3}]}}
    assert tree_map(lambda leaf: leaf + 1, plain(config))['b']['c'] == [{'d': 3}]


def test_plain_survives_a_weights_only_load(tmp_path):
    torch.save(plain(PyConfig(a={'b': (1, 2)})), tmp_path / 'file')
    assert torch.load(tmp_path / 'file', weights_only=True) == {'a': {'b': (1, 2)}}


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_copies_are_equal_and_separate(duplicate):
    config = PyConfig(a={'b': [1]})
    other = duplicate(config)
    assert other == config
    other.a.b.append(2)
    assert config.a.b == [1]


def test_keys_named_like_methods_are_reached_by_item_and_by_override():
    config = PyConfig(part={'items': 1, 'update': 2})
    config.override({'.part.items': 5})
    assert config['part']['items'] == 5 and config['part']['update'] == 2


def test_named_tuples_become_tuples():
    pair = namedtuple('Pair', 'a b')(1, {'c': 2})
    config = PyConfig(x=pair, y=[pair])
    assert config == {'x': (1, {'c': 2}), 'y': [(1, {'c': 2})]}
    assert isinstance(config.x[1], PyConfig)


def test_diff_shows_the_lines_that_differ(tmp_path: Path):
    one, two = PyConfig(a=1, b={'c': 1}), PyConfig(a=1, b={'c': 2})
    lines = [line for line in one.diff(two).splitlines() if line[0] in '+-' and line[:3] not in ('+++', '---')]
    assert lines == ['-b = dict(c=1)', '+b = dict(c=2)']
    assert one.diff(one) == ''
