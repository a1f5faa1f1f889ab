"""Parts by name: a dict that users' files can also change like a list, which it was in older versions."""

from __future__ import annotations

import copy
import json

import pytest

from vq.core.config import PyConfig, plain
from vq.core.errors import ConfigError
from vq.core.parts import NamedParts
from vq.core.paths import parse_path
from vq.core.phases import name_of, snake_case

LOG, SAVE = dict(type='LogCallback', interval=50), dict(type='CheckpointCallback')


@pytest.fixture
def config() -> PyConfig:
    return PyConfig(trainer=dict(callbacks=dict(log=LOG, git=None, checkpoint=SAVE), iters=5))


@pytest.mark.parametrize(
    ('kind', 'taken', 'name'),
    [
        ('EMACallback', (), 'ema'),
        ('VQCallbackRegistry.LogCallback', (), 'log'),
        ('ImageGridCallback', (), 'pictures'),
        ('CodebookAlarmCallback', (), 'alarm'),
        ('EvalCallback', (), 'evaluate'),
        ('KMeansInitCallback', (), 'kmeans'),
        ('GenerationsCallback', (), 'generations'),
        ('TokenReportCallback', (), 'token_report'),
        ('MyOwnCallback', (), 'my_own'),
        ('SampleRecorder', (), 'sample_recorder'),
        ('Callback', (), 'callback'),
        ('AnnealCallback', ('anneal',), 'anneal_2'),
        ('AnnealCallback', ('anneal', 'anneal_2'), 'anneal_3'),
        (NamedParts, (), 'named_parts'),
    ],
)
def test_names_follow_from_types(kind: object, taken: tuple[str, ...], name: str) -> None:
    assert name_of(kind, taken) == name


def test_words_are_told_apart_by_their_capitals() -> None:
    assert [snake_case(word) for word in ('HTTPServer', 'A', 'KMeans2Init', 'already_snake')] == [
        'http_server',
        'a',
        'k_means2_init',
        'already_snake',
    ]


def test_a_dict_under_callbacks_is_one_wherever_it_comes_from(config: PyConfig) -> None:
    given = {'callbacks': {'log': LOG}}
    found = [PyConfig(given), PyConfig(), PyConfig(), PyConfig(), PyConfig(callbacks=[SAVE])]
    found[1].update(given)
    found[2]['callbacks'] = given['callbacks']
    found[3].override({'.callbacks': {'log': LOG}})
    found[4].update(given)  # names are merged over those of a list
    for one in found:
        assert isinstance(one.callbacks, NamedParts) and one.callbacks.log == LOG
        assert type(one.callbacks.log) is PyConfig
    assert list(found[4].callbacks.keys()) == ['checkpoint', 'log']
    for again in (PyConfig(config), copy.deepcopy(config), PyConfig.loads(config.dumps())):
        assert isinstance(again.trainer.callbacks, NamedParts)
        assert again == config and again.trainer.callbacks is not config.trainer.callbacks


def test_it_is_a_mapping_to_whoever_asks_for_one(config: PyConfig) -> None:
    parts = config.trainer.callbacks
    assert list(parts.keys()) == ['log', 'git', 'checkpoint'] and len(parts) == 3
    assert list(parts.values()) == [LOG, None, SAVE] and dict(parts.items()) == dict(parts) == {**parts}
    assert 'log' in parts and 'git' in parts and 'lgo' not in parts and parts.get('lgo') is None
    assert parts == {'log': LOG, 'git': None, 'checkpoint': SAVE}


def test_it_is_written_as_a_plain_dict(config: PyConfig) -> None:
    assert 'callbacks=dict(' in config.dumps() and "log=dict(type='LogCallback', interval=50)" in config.dumps()
    found = plain(config)
    assert type(found['trainer']['callbacks']) is dict and json.loads(json.dumps(found)) == found


def test_iteration_and_positions_are_those_of_the_parts_that_are_on(config: PyConfig) -> None:
    parts = config.trainer.callbacks
    assert list(parts) == [parts[0], parts[1]] == [parts.log, parts.checkpoint] == [parts[-2], parts[-1]]
    for part in parts:
        part.interval = 7
    assert parts.log.interval == parts.checkpoint.interval == 7
    parts[0] = dict(type='Other')
    assert parts.log == {'type': 'Other'} and next(iter(parts.keys())) == 'log'
    del parts[0]
    assert parts.pop() == {'type': 'CheckpointCallback', 'interval': 7}
    assert dict(parts) == {'git': None}
    with pytest.raises(IndexError):
        parts[0]
    parts.clear()
    assert not parts


def test_parts_are_inserted_where_a_list_would_have_them(config: PyConfig) -> None:
    parts, model = config.trainer.callbacks, [LOG, SAVE]
    for index, name in ((0, 'First'), (-1, 'BeforeLast'), (1, 'Second'), (99, 'Last'), (-99, 'Front')):
        parts.insert(index, dict(type=f'{name}Callback'))
        model.insert(index, dict(type=f'{name}Callback'))
        assert list(parts) == model
    parts.append(dict(type='LogCallback'))
    assert list(parts.keys())[-1] == 'log_2' and type(parts.log_2) is PyConfig
    parts.append(dict(type='GitCallback'))  # the one that was switched off
    assert list(parts.keys())[-1] == 'git' and parts.git == {'type': 'GitCallback'}
    for wrong in ({'interval': 3}, 'LogCallback', None):
        with pytest.raises(ConfigError, match='named parts'):
            parts.append(wrong)


def test_names_are_merged_and_none_switches_off(config: PyConfig) -> None:
    config.update(dict(trainer=dict(callbacks=dict(log=dict(interval=3), checkpoint=None, mine=dict(type='MyCallback')))))
    assert config.trainer.callbacks == {
        'log': {'type': 'LogCallback', 'interval': 3},
        'git': None,
        'checkpoint': None,
        'mine': {'type': 'MyCallback'},
    }
    config.update(dict(trainer=dict(callbacks=[SAVE])))
    assert config.trainer.callbacks == [SAVE]
    config.trainer.callbacks = dict(log=LOG)
    config.update(dict(trainer=dict(callbacks=dict(_delete_=True, ema=dict(type='EMACallback')))))
    config.settle()
    assert list(config.trainer.callbacks.keys()) == ['ema']


@pytest.mark.parametrize(
    ('path', 'found'),
    [
        ('.trainer.callbacks[0].interval', lambda parts: parts.log.interval),
        ('.trainer.callbacks[-1].interval', lambda parts: parts.checkpoint.interval),
        ('.trainer.callbacks[1].interval', lambda parts: parts.checkpoint.interval),
        ('.trainer.callbacks.checkpoint.interval', lambda parts: parts.checkpoint.interval),
        ('.trainer.callbacks[1]', lambda parts: parts.checkpoint),
        ('.trainer.callbacks.mine', lambda parts: parts.mine),
        ('.trainer.callbacks.git', lambda parts: parts.git),
    ],
)
def test_paths_go_by_name_and_by_position(config: PyConfig, path: str, found) -> None:
    config.override({path: 9})
    assert found(config.trainer.callbacks) == 9
    assert parse_path(path)


@pytest.mark.parametrize(
    ('path', 'message', 'hint'),
    [
        ('.trainer.callbacks[2].n', r'\.trainer\.callbacks has 2 entries, so \[2\] does not exist', 'look at'),
        ('.trainer.callbacks[-3]', r'\.trainer\.callbacks has 2 entries, so \[-3\] does not exist', 'look at'),
        ('.trainer.callbacks.lgo.n', r"has no 'lgo'; did you mean 'log'", 'log'),
        ('.trainer.iters[0]', r'\.trainer\.iters is not a list', 'look at'),
    ],
)
def test_paths_that_lead_nowhere(config: PyConfig, path: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        config.override({path: 1})
    assert hint in error.value.hint


def test_a_position_after_a_whole_part_was_set_is_the_same_part(config: PyConfig) -> None:
    config.override({'.trainer.callbacks[0]': dict(type='X', n=1), '.trainer.callbacks[0].n': 2})
    assert config.trainer.callbacks.log == {'type': 'X', 'n': 2}
