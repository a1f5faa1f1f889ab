"""JSON files, entry by entry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vq.core.errors import UserError
from vq.io import json_stream
from vq.io.json_stream import elements, entries, keys

VALUE = {
    'info': {'a': [1, {'b': 2}]},
    'empty': [],
    'images': [{'id': 1, 'name': 'ä"],\\'}, {'id': 22}, -1.5e3, None, 'x', [[]]],
    'number': 12,
    'last': [True],
}


@pytest.mark.parametrize('indent', [None, 2])
@pytest.mark.parametrize('window', [1, 2, 3, 7, 100, 2**20])
def test_entries_are_those_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, window: int) -> None:
    """Wherever the windows end."""
    monkeypatch.setattr(json_stream, 'WINDOW', window)
    (tmp_path / 'a.json').write_text(json.dumps(VALUE, indent=indent, ensure_ascii=window == 7) + '\n')
    assert list(keys(tmp_path / 'a.json')) == list(VALUE)
    wanted = [(key, entry) for key, value in VALUE.items() for entry in (value if isinstance(value, list) else [value])]
    assert list(entries(tmp_path / 'a.json')) == wanted
    (tmp_path / 'a.json').write_text(' {} ')
    assert list(entries(tmp_path / 'a.json')) == list(keys(tmp_path / 'a.json')) == []
    (tmp_path / 'a.json').write_text(json.dumps(VALUE['images'], indent=indent, ensure_ascii=window == 7))
    assert list(elements(tmp_path / 'a.json')) == VALUE['images']


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (b'', '{ is needed at character 0, and there is the end'),
        (b'[1]', 'there is ['),
        (b'{"a": [1, 2', 'is needed at character 11, and there is the end'),
        (b'{"a": [1, ]}', 'Expecting value at character 10'),
        (b'{"a": [1 2]}', ', or ] is needed'),
        (b'{"a": [{"b": 1]}', 'at character'),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'{"a": 1} x', 'more after its end, at character 9'),
        (b'{1: 2}', 'a key is no text'),
        (b'{"a": [' + b'[' * 100_000, 'nested too deeply'),
        (b'{"a": ' + b'9' * 5_000 + b'}', 'is not a JSON object'),
        (b'{"a": "\xff"}', "can't decode"),
    ],
)
def test_what_is_no_json_object_is_told(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / 'a.json').write_bytes(text)
    with pytest.raises(UserError) as error:
        list(entries(tmp_path / 'a.json'))
    assert words in error.value.message and str(tmp_path / 'a.json') in error.value.message


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'a.json').write_text('{"a": ["' + 'x' * 5000)
    with pytest.raises(UserError, match='5,008 bytes, and at most 100'):
        list(entries(tmp_path / 'a.json', largest=100))
    monkeypatch.setattr(json_stream, 'WINDOW', 64)
    monkeypatch.setattr(json_stream, 'LARGEST', 1000)
    with pytest.raises(UserError, match='entry at character 7 has no end within 1,000'):
        list(entries(tmp_path / 'a.json'))
