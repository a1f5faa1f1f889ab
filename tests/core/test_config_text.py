"""The output of ``PyConfig.dumps`` is read from its syntax tree; code that would have to be executed is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_config_dumps import keys, same, values
from tests.shipped import composed, entries
from vq.core import config_text
from vq.core.config import PyConfig, plain
from vq.core.config_text import NotDumped


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, values, max_size=4))
def test_random_configs_come_back(content: dict[str, Any]) -> None:
    config = PyConfig(content)
    assert same(config_text.loads(config.dumps(), 'x'), plain(config))


@pytest.mark.parametrize('entry', entries())
def test_shipped_configs_come_back(entry: str) -> None:
    for tiny in (False, True):
        config = composed(entry, tiny=tiny)
        assert same(config_text.loads(config.dumps(), entry), plain(config))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('import os', 'statement of the kind Import'),
        ("open('gone', 'w')", 'statement of the kind Expr'),
        ('"""A docstring."""', 'statement of the kind Expr'),
        ("a = open('gone', 'w')", "calls 'open'"),
        ("a = dict(b=[(open('gone', 'w'),)])", "calls 'open'"),
        ("a = __import__('os').system('touch gone')", 'kind Call'),
        ("a = (lambda: open('gone', 'w'))()", 'kind Call'),
        ("a = [open('gone', 'w') for _ in [1]]", 'kind ListComp'),
        ("a = f'{open(chr(103), chr(119))}'", 'kind JoinedStr'),
        ("a = {**dict(b=open('gone', 'w'))}", 'unpacks a dict'),
        ("a = dict(**dict(b=open('gone', 'w')))", "calls 'dict'"),
        ('a = dict([(1, 2)])', "calls 'dict'"),
        ('a = dict(b=1, b=2)', "key 'b' twice"),
        ('a = {1: 2, 1: 3}', 'key 1 twice'),
        ("a = {open('gone', 'w'): 1}", "calls 'open'"),
        ('a = {[1]: 1}', 'unhashable'),
        ("a = set(open('gone', 'w'))", "calls 'open'"),
        ("a = set('ab')", "calls 'set'"),
        ('a = {1, 2}', 'kind Set'),
        ('a = set([[1]])', 'unhashable'),
        ("a = float('1.5')", "calls 'float'"),
        ("a = float('1' * 10)", 'kind BinOp'),
        ('a = complex(1, 2)', "calls 'complex'"),
        ('a = 1 + 1', 'kind BinOp'),
        ('a = +1', 'kind UnaryOp'),
        ('a = -True', 'kind UnaryOp'),
        ('a = not 1', 'kind UnaryOp'),
        ('a = b', 'kind Name'),
        ('a = ...', 'kind Constant'),
        ('a = b = 1', 'statement of the kind Assign'),
        ('a, b = 1, 2', 'statement of the kind Assign'),
        ('a.b = 1', 'statement of the kind Assign'),
        ('a: int = 1', 'statement of the kind AnnAssign'),
        ('a = 1\na = 2', "assigns 'a' twice"),
        ("_base_ = ['parent.py']", "assigns '_base_'"),
        ('_kwargs_ = dict()', "assigns '_kwargs_'"),
        ('_export_ = [1]', "assigns '_export_'"),
        ('_export_ = dict()\na = 1', "assigns '_export_'"),
        ('def f(): pass', 'statement of the kind FunctionDef'),
        ("class A(metaclass=open('gone', 'w')): pass", 'statement of the kind ClassDef'),
        ('if 1: a = 1', 'statement of the kind If'),
        ('a = (', "was never closed|'\\(' "),
        ('a = 1\0', 'null byte'),
        ('a = ' + '(' * 3000, 'nested|too many'),
        ('a = ' + '-' * 100_000 + '1', 'nested|too|kind UnaryOp'),
        ('a = ' + '[' * 150 + ']' * 150 + '\nb = c', 'kind Name|nested'),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotDumped, match=message) as caught:
        config_text.loads(text, 'work_dirs/x/config.py')
    assert caught.value.message.startswith('work_dirs/x/config.py')
    assert not Path('gone').exists()


def test_the_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotDumped, match=r'x\.py:3: it calls .open.'):
        config_text.loads("a = 1\nb = 2\nc = open('gone')\n", 'x.py')
