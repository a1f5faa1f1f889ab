"""``loads(dumps(config)) == config``, for all values that a config can have."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vq.core.config import PyConfig
from vq.core.errors import ConfigError

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.binary(max_size=4)
    | st.complex_numbers()
)
odd_keys = st.sampled_from(
    [
        'class',
        'None',
        'type',
        'items',
        'update',
        'dict',
        'float',
        'set',
        '_x',
        '__debug__',
        'self',
        'a b',
        '',
        'ﬁ',
        'ª',
        '0',
        'x',
    ]
)
keys = odd_keys | st.text(max_size=4)
sets = st.sets(st.integers() | st.text(max_size=3), max_size=3)
values = st.recursive(
    scalars | sets | st.frozensets(st.floats(allow_nan=False) | st.tuples(st.booleans()), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, two: Any) -> bool:
    """Equal in value, type and order of keys; nan equals nan."""
    if isinstance(one, float | complex) and isinstance(two, float | complex):
        return type(one) is type(two) and (one == two or (one != one and two != two))
    if isinstance(one, dict) and isinstance(two, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(two):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, values, max_size=4))
def test_round_trip(content):
    config = PyConfig(content)
    assert same(PyConfig.loads(config.dumps()), config)


def test_not_finite_numbers_keep_their_sign():
    config = PyConfig.loads(PyConfig(a=[math.inf, -math.inf], b=(math.nan,), c=-0.0).dumps())
    assert config.a == [math.inf, -math.inf] and math.isnan(config.b[0]) and math.copysign(1, config.c) == -1


def test_numbers_of_other_kinds_are_written_as_plain_ones():
    class Level(enum.IntEnum):
        HIGH = 3

    class Mode(enum.StrEnum):
        FAST = 'fast'

    config = PyConfig(a=numpy.float64(0.1), b=Level.HIGH, c=numpy.float64('inf'), d=Mode.FAST)
    assert PyConfig.loads(config.dumps()) == {'a': 0.1, 'b': 3, 'c': math.inf, 'd': 'fast'}


def test_long_containers_break_over_lines_and_short_ones_do_not():
    text = PyConfig(short={'a': [1, 2]}, long={'a': list(range(60)), 'b': 'x' * 90}).dumps()
    assert text.splitlines()[0] == 'short = dict(a=[1, 2])'
    assert max(map(len, text.splitlines())) <= 127
    assert PyConfig.loads(text).long.a == list(range(60))


def test_paths_are_written_as_text():
    assert PyConfig.loads(PyConfig(a=Path('x') / 'y').dumps()) == {'a': 'x/y'}


def test_value_that_cannot_be_written_is_named():
    with pytest.raises(ConfigError, match='holds a function'):
        PyConfig(a=[lambda: None]).dumps()


def test_dump_writes_a_file_that_loads(tmp_path):
    config = PyConfig(a={'b': 1})
    for name in ('config.py', 'config.json'):
        config.dump(tmp_path / name)
        assert PyConfig.load(tmp_path / name) == config
