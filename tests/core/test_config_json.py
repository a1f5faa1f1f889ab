"""Composed configs as JSON: the round trip preserves values and types, and JSON that is not strict is refused."""

from __future__ import annotations

import enum
import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_config_dumps import keys, same, values
from tests.shipped import composed, entries
from vq.core import config_json
from vq.core.config import PyConfig, plain
from vq.core.errors import ConfigError

tags = st.sampled_from(['!tuple', '!set', '!dict', '!', '!tuple ', '!!tuple', '!float'])
odd = st.dictionaries(tags | st.floats(allow_nan=False) | st.none(), values, max_size=2)
nested = st.dictionaries(keys | tags, values | odd, max_size=4)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(nested)
def test_random_values_come_back(content: dict[str, Any]) -> None:
    text = config_json.dumps(content)
    assert same(config_json.loads(text, 'x'), content)
    assert config_json.dumps(config_json.loads(text, 'x')) == text


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(min_codepoint=0xD7FF, max_codepoint=0xE001), max_size=3) | st.text(max_size=5))
def test_text_comes_back_through_a_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Lone surrogates too, which UTF-8 cannot encode."""
    file = tmp_path_factory.mktemp('text') / 'config.json'
    file.write_text(config_json.dumps({'a': text}), encoding='utf-8')
    assert config_json.read(file) == {'a': text}


@pytest.mark.slow
@pytest.mark.parametrize('entry', entries())
def test_shipped_configs_come_back(entry: str) -> None:
    for tiny in (False, True):
        config = plain(composed(entry, tiny=tiny))
        assert same(config_json.loads(config_json.dumps(config), entry), config)


def test_it_is_json_that_others_read_and_people_too() -> None:
    config = {'type': 'Adam', 'betas': (0.9, 0.99), 'levels': [1, 2], 'low': -math.inf, 1: 'one', 'long': list(range(80))}
    text = config_json.dumps({'trainer': config})
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found['trainer']['!dict'][1] == ['betas', {'!tuple': [0.9, 0.99]}]
    assert '["betas", {"!tuple": [0.9, 0.99]}]' in text  # short ones stay on a line
    assert max(map(len, text.splitlines())) <= 127 and len(text.splitlines()) > 80


def test_keys_keep_their_order_and_sets_do_not_matter() -> None:
    assert list(config_json.loads(config_json.dumps({'b': 1, 'a': 2}), 'x')) == ['b', 'a']
    assert config_json.dumps({'a': {3, 1, 2}}) == config_json.dumps({'a': {2, 3, 1}})


def test_numbers_of_other_kinds_are_written_as_plain_ones() -> None:
    class Level(enum.IntEnum):
        HIGH = 3

    class Mode(enum.StrEnum):
        FAST = 'fast'

    given = {'a': numpy.float64(0.1), 'b': Level.HIGH, 'c': numpy.float64('inf'), 'd': Mode.FAST, 'e': Path('x') / 'y'}
    found = config_json.loads(config_json.dumps(given), 'x')
    assert same(found, {'a': 0.1, 'b': 3, 'c': math.inf, 'd': 'fast', 'e': 'x/y'})


def test_what_cannot_be_written_is_named() -> None:
    with pytest.raises(ConfigError, match='holds a function'):
        config_json.dumps({'a': [lambda: None]})


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"a": 1, "a": 2}', 'a key twice'),
        ('{"a": NaN}', 'NaN is not valid JSON'),
        ('{"a": -Infinity}', '-Infinity is not valid JSON'),
        ('{"a": 1e999}', 'beyond the range'),
        ('{"a": {"!tuple": [1], "b": 2}}', "tag '!tuple' is not the only key"),
        ('{"a": {"!tuple": 1}}', "tag '!tuple' has 1"),
        ('{"a": {"!list": [1]}}', "tag '!list'"),
        ('{"a": {"!float": "1.5"}}', "tag '!float'"),
        ('{"a": {"!float": 1.5}}', "tag '!float'"),
        ('{"a": {"!set": [1, 1]}}', "tag '!set'"),
        ('{"a": {"!set": [[1]]}}', 'unhashable'),
        ('{"a": {"!dict": [[1]]}}', "tag '!dict'"),
        ('{"a": {"!dict": [[1, 2], [1, 3]]}}', "tag '!dict'"),
        ('{"a": {"!complex": [1, 2]}}', "tag '!complex'"),
        ('{"a": {"!bytes": "\\u4e2d"}}', 'latin-1'),
        ('{"a": {"!text": "x"}}', "tag '!text'"),
        ('{"a": {"!text": [-1]}}', 'chr'),
        ('{"a": {"!text": [99999999999999999999]}}', 'too large'),
        ('{"a": 1', 'delimiter'),
        ('{"a": ' + '[' * 100_000, 'nested too deeply'),
        ('[1]', 'holds a list'),
        ('{"!dict": [[1, 2]]}', 'holds a dict'),
        ('x' * 10_000_001, 'more than 10,000,000 bytes'),
        ("a = 1\n__import__('os')", 'not a JSON config'),
    ],
)
def test_what_is_not_strict_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / 'config.json'
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        config_json.read(file)
    assert str(file) in caught.value.message
    with pytest.raises(ConfigError, match=message):
        PyConfig.load(file)
