"""The source files of the repository, as text and as syntax trees."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {'.venv', '.venv-xla', '.venv-oldest', 'work_dirs', 'build', 'dist', '__pycache__', 'data', 'pretrained'}


def files(*folders: str) -> list[Path]:
    """Python files below folders of the repository, as relative paths."""
    found = (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob('*.py'))
    return sorted(path for path in found if not SKIPPED & set(path.parts[:1]) and '__pycache__' not in path.parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def module_name(path: Path) -> str:
    parts = path.with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """(imported module, whether the import runs with the module itself, line), function-level ones included.

    ``from a import b`` gives ``a.b``, which may be a module or a name in one.
    """
    inside = {
        id(node)
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    package = module_name(path).split('.')[: None if path.name == '__init__.py' else -1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in inside, node.lineno
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = '.'.join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f'{base}.{alias.name}', id(node) not in inside, node.lineno
