"""Read the Python text of ``PyConfig.dumps``, the ``config.py`` of older runs, without executing it.

The text is parsed to a syntax tree. Allowed are ``name = value`` lines, or a single ``_export_ = value``, where a value is a
literal, a list, tuple or dict of values, ``dict(name=value)``, ``set([...])``, ``frozenset([...])``, ``float('inf')`` and
``complex(a, b)``. Anything else is refused, because only execution could tell its value.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from vq.core.config_json import LARGEST, read_text
from vq.core.errors import ConfigError


class NotDumped(ConfigError):
    """Text that ``PyConfig.dumps`` does not write."""


def read(path: Path) -> dict[str, Any]:
    """The composed config in a file."""
    return loads(read_text(path), str(path))


def loads(text: str, where: str) -> dict[str, Any]:
    """The config that was dumped as ``text``; ``where`` is the file named in errors."""
    try:
        if len(text) > LARGEST:
            raise _refused(None, 'it is too long')
        return _config(ast.parse(text).body)
    except SyntaxError as error:
        raise NotDumped(f'{where}:{error.lineno}: {error.msg}', 'Fix the syntax of the config file.') from error
    except _Refused as error:
        raise NotDumped(
            f'{where}{error.line}: {error}, which the config of a run cannot contain',
            'A composed config holds only literals: anything else would have to be executed.',
        ) from error
    except (RecursionError, MemoryError) as error:
        raise NotDumped(f'{where}: it is nested too deeply', 'A composed config is not nested that deeply.') from error
    except (ValueError, TypeError) as error:  # a null byte, a dict as a key
        raise NotDumped(f'{where}: {error}', 'A composed config holds only literals.') from error


class _Refused(Exception):
    """Why the text is refused, and the line."""

    line: str


def _refused(node: ast.AST | None, reason: str) -> _Refused:
    error = _Refused(reason)
    error.line = f':{node.lineno}' if node is not None and hasattr(node, 'lineno') else ''
    return error


def _config(statements: list[ast.stmt]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for statement in statements:
        if not (
            isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)
        ):
            raise _refused(statement, f'it has a statement of the kind {type(statement).__name__}')
        name = statement.targets[0].id
        if name == '_export_' and len(statements) == 1:
            content = _value(statement.value)
            if isinstance(content, dict):
                return content
        if name.startswith('_') or name in found:
            raise _refused(statement, f"it assigns '{name}'" + (' twice' if name in found else ''))
        found[name] = _value(statement.value)
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and node.value is not Ellipsis:
        return node.value
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise _refused(node, 'it unpacks a dict')
        return _dict(node, [(_value(key), item) for key, item in zip(node.keys, node.values, strict=True) if key is not None])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        number = node.operand.value
        if type(number) is int or type(number) is float:
            return -number
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call(node, node.func.id)
    raise _refused(node, f'it has an expression of the kind {type(node).__name__}')


def _dict(node: ast.expr, items: list[tuple[Any, ast.expr]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, item in items:
        if key in found:
            raise _refused(node, f'it has the key {key!r:.40} twice')
        found[key] = _value(item)
    return found


def _call(node: ast.Call, name: str) -> Any:
    """The value of a call: only those that ``PyConfig.dumps`` writes."""
    if name == 'dict' and not node.args and all(keyword.arg is not None for keyword in node.keywords):
        return _dict(node, [(keyword.arg, keyword.value) for keyword in node.keywords])
    arguments = [] if node.keywords else [_value(argument) for argument in node.args]
    if name in ('set', 'frozenset') and len(arguments) == 1 and isinstance(arguments[0], list):
        return set(arguments[0]) if name == 'set' else frozenset(arguments[0])
    if name == 'float' and len(arguments) == 1 and arguments[0] in ('inf', '-inf', 'nan'):
        return float(arguments[0])
    if name == 'complex' and len(arguments) == 2 and all(type(part) is float for part in arguments):
        return complex(*arguments)
    raise _refused(node, f"it calls '{name}'")
