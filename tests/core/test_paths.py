"""Overrides by path: ``.a.b[-1]['c d']``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.paths import format_path, parse_path

names = st.text('abcXYZ019_ .[]-é', min_size=1, max_size=5)


@given(st.lists(names | st.integers(-99, 99), min_size=1, max_size=5))
def test_format_and_parse_are_inverse(steps):
    assert parse_path(format_path(steps)) == steps


@pytest.fixture
def config():
    return PyConfig(
        trainer={'callbacks': [{'n': 1}, {'n': 2}], 'sizes': (1, 2), 'iters': 5}, other={'c d': 1, '.x[0]': 2, 7: 3}
    )


@pytest.mark.parametrize(
    ('path', 'read'),
    [
        ('.trainer.callbacks[-1].n', lambda c: c.trainer.callbacks[1].n),
        ('.trainer.callbacks[0].new', lambda c: c.trainer.callbacks[0].new),
        (".other['c d']", lambda c: c.other['c d']),
        ('.other[".x[0]"]', lambda c: c.other['.x[0]']),
        ("['trainer'].iters", lambda c: c.trainer.iters),
        ('.other[7]', lambda c: c.other[7]),
    ],
)
def test_override_sets_what_the_path_leads_to(config, path, read):
    config.override({path: 'set'})
    assert read(config) == 'set'


def test_a_dict_that_is_set_becomes_part_of_the_config(config):
    given = {'type': 'X'}
    config.override({'.trainer.callbacks[0]': given, '.trainer.callbacks[0].n': 4})
    assert config.trainer.callbacks[0].type == 'X' and config.trainer.callbacks[0].n == 4
    assert given == {'type': 'X'}


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('.trainer.model.width', r"override '\.trainer\.model\.width': \.trainer has no 'model'"),
        ('.trianer.iters', r"override '\.trianer\.iters': the config has no 'trianer'; did you mean 'trainer'"),
        ('.trainer.callbacks[2].n', r'\.trainer\.callbacks has 2 entries, so \[2\] does not exist'),
        ('.trainer.callbacks[-3]', r'\.trainer\.callbacks has 2 entries, so \[-3\] does not exist'),
        ('.trainer.iters[0]', r'\.trainer\.iters is not a list'),
        ('.trainer[0]', r'\.trainer is not a list'),
        ('.trainer.iters.x', r'\.trainer\.iters is a int, in which nothing can be set'),
        ('.trainer.iters.x.y', r'\.trainer\.iters is a int, not a part'),
        ('.trainer.callbacks.n', r'\.trainer\.callbacks is a list, in which nothing can be set'),
        ('.trainer.sizes[0]', r'\.trainer\.sizes is a tuple, in which nothing can be set'),
    ],
)
def test_missing_parents_and_wrong_steps_are_named_with_the_path(config, path, message):
    before = config.dumps()
    with pytest.raises(ConfigError, match=message):
        config.override({path: 1})
    assert config.dumps() == before


@pytest.mark.parametrize('path', ['', 'trainer.iters', '.trainer..iters', '.a[x]', '.a[1', ".a['b]", '.0', '.a b', '.a.'])
def test_bad_syntax_is_refused_with_an_example(config, path):
    with pytest.raises(ConfigError, match='override path') as error:
        config.override({path: 1})
    assert 'starting with a dot' in error.value.hint


def test_paths_are_not_evaluated(config, tmp_path):
    with pytest.raises(ConfigError):
        config.override({f'.a[__import__("pathlib").Path({str(tmp_path)!r}, "hacked").touch()]': 1})
    assert not list(tmp_path.iterdir())
