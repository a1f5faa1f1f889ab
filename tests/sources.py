"""The source files of the repository, as text and as syntax trees."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {'.venv', '.venv-xla', '.venv-oldest', 'work_dirs', 'build', 'dist', '__pycache__', 'data', 'pretrained'}


def files(*folders: str) -> list[Path]:
    """Python files below folders of the repository, as relative paths."""
    found = (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob('*.py'))
    return sorted(path for path in found if not SKIPPED & set(path.parts[:1]) and '__pycache__' not in path.parts)


OTHERS = """
import sys
before = {name.partition('.')[0] for name in sys.modules}
import vq.cli.main
try:
    vq.cli.main.main(sys.argv[1:])
except SystemExit:
    pass
found = {name.partition('.')[0] for name in sys.modules} - before - sys.stdlib_module_names - {'vq'}
print('\\npackages:', *sorted(found), file=sys.stderr)
"""


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def module_name(path: Path) -> str:
    parts = path.with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


@functools.cache
def imports(path: Path) -> Sequence[tuple[str, bool, int]]:
    """(imported module, whether the import runs with the module itself, line), function-level ones included.

    ``from a import b`` gives ``a.b``, which may be a module or a name in one.
    """
    package = module_name(path).split('.')[: None if path.name == '__init__.py' else -1]
    found: list[tuple[str, bool, int]] = []

    def look(statements: Iterable[ast.AST], at_import: bool) -> None:
        for node in statements:
            if isinstance(node, ast.Import):
                found.extend((alias.name, at_import, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = package[: len(package) - node.level + 1] if node.level else []
                base = '.'.join([*start, *([node.module] if node.module else [])])
                found.extend((f'{base}.{alias.name}', at_import, node.lineno) for alias in node.names)
            elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):  # an import is never in an expression
                look(ast.iter_child_nodes(node), at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    look(tree(path).body, True)
    return found


def imported_by(words: Sequence[str]) -> tuple[str, set[str]]:
    """What ``vq WORDS`` prints, and the packages that it imports besides vq and the standard library, in a cold process."""
    done = subprocess.run([sys.executable, '-c', OTHERS, *words], cwd=ROOT, capture_output=True, text=True, timeout=100)
    *said, packages = done.stderr.splitlines()
    assert packages.startswith('packages:'), done.stderr
    return '\n'.join([done.stdout, *said]), {*packages.split()[1:]}
